"""Flip noise in the pool: every kernel and solver against pairs written out one by one, and what noise must do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxdesign
from jaxdesign import Budget, CompletionPool, LogDet, Trace, _arrays, baselines, evaluate, optimize, select_pairs
from jaxdesign._pairs import Allocation
from jaxdesign.analysis import analyse, exact_sensitivities, information
from jaxdesign.baselines._common import information_of_all, pair_forms
from jaxdesign.budget.limits import Limits
from jaxdesign.certificates.allowed import check_allowed
from jaxdesign.door import make_problem
from jaxdesign.exact.exchange import search, swap_gains
from jaxdesign.exact.exchange.exchange import exchange
from jaxdesign.exact.greedy.greedy import myopic_allocation
from jaxdesign.information import margin_information, pair_information, pair_sensitivities
from jaxdesign.pricing.memory import memory_source
from jaxdesign.pricing.passes import price
from tests.support.padded import DIM as PADDED_DIM
from tests.support.padded import padded_pool, solve_padded
from tests.support.problems import (
    COMPLETIONS,
    DIM,
    DRAWS,
    PROMPTS,
    criterion_of,
    even_allocation,
    frank_wolfe_gap,
    gradients_of,
    information_of,
    random_arrays,
    random_flips,
    random_pool,
    random_spd,
    sensitivities_of,
    stored,
    written_out,
)

H = random_spd(1)
RIDGE = 0.1 * np.eye(DIM)
seeds = st.integers(0, 2**32 - 1)
slow = pytest.mark.slow
KINDS, SCORES = ["one", "prompt", "pair"], ["no", "yes", "draws"]
every_kind = pytest.mark.parametrize("flip", KINDS)
# solvers compile for every kind: those of pairs, which are the most general, run daily
pairs_daily = pytest.mark.parametrize(
    "flip", [pytest.param(flip, marks=[] if flip == "pair" else slow) for flip in KINDS]
)
# kernels too, for scores of every kind as well: each kind of both runs daily, once
every_kind_and_score = pytest.mark.parametrize(
    ("scores", "flip"),
    [
        pytest.param(scores, flip, marks=[] if SCORES.index(scores) == KINDS.index(flip) else slow)
        for scores in SCORES
        for flip in KINDS
    ],
)
few = settings(max_examples=5)


def symmetric(pairs, values):
    dense = np.zeros((PROMPTS, COMPLETIONS, COMPLETIONS))
    p, i, j = pairs.T
    dense[p, i, j] = dense[p, j, i] = values
    return dense


def random_G(seed, draws):
    return np.stack([random_spd([seed, r]) for r in range(draws or 1)])


# ---- the pool


@every_kind
def test_a_pool_keeps_one_number_per_prompt_or_per_pair(flip):
    mask = random_arrays(0)[2]
    given_flip, pool = random_flips(0, mask, flip), random_pool(0, flip=flip)
    paired = mask[:, :, None] & mask[:, None, :] & ~np.eye(COMPLETIONS, dtype=bool)
    if flip != "pair":
        paired = paired.any(axis=(1, 2))
    assert pool.flip.shape == ((PROMPTS, COMPLETIONS, COMPLETIONS) if flip == "pair" else (PROMPTS,))
    assert pool.flip.dtype == jnp.float32
    np.testing.assert_array_equal(pool.flip, np.where(paired, np.float32(given_flip), 0))


def test_a_pool_does_not_follow_changes_of_the_array_it_was_given():
    features, _, mask = random_arrays(0)
    flip = np.full(PROMPTS, 0.2, np.float32)
    pool = CompletionPool(features, mask=mask, flip=flip)
    flip[:] = 0.4
    assert float(pool.flip[0]) == np.float32(0.2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_flips_of_half_precision_are_kept_in_float32(dtype):
    pool = CompletionPool(random_arrays(0, ragged=False)[0], flip=jnp.full(PROMPTS, 0.25, dtype))
    assert pool.flip.dtype == jnp.float32 and (np.asarray(pool.flip) == 0.25).all()


def test_zero_is_a_probability_and_an_integer_zero_too():
    features, u, mask = random_arrays(0)
    pairs = written_out(random_pool(0))[0]
    for zero in (0, 0.0, np.zeros(PROMPTS)):
        pool = CompletionPool(features, u, mask, flip=zero)
        expected = jaxdesign.label_information(CompletionPool(features, u, mask), pairs)
        np.testing.assert_array_equal(jaxdesign.label_information(pool, pairs), expected)


@every_kind
def test_the_range_of_a_pool_keeps_its_flips(flip):
    pool = random_pool(3, flip=flip)
    assert jaxdesign.restrict_to_range(pool)[0].flip is pool.flip


def test_rounding_in_a_symmetric_array_is_averaged_away():
    features = random_arrays(0, ragged=False)[0]
    flip = np.full((PROMPTS, COMPLETIONS, COMPLETIONS), 0.2, np.float32)
    flip[2, 1, 3] += 4e-6
    kept = np.asarray(CompletionPool(features, flip=flip).flip)
    assert kept[2, 1, 3] == kept[2, 3, 1] == pytest.approx(0.200002, abs=1e-7)


# ---- kernels against pairs written out


@every_kind_and_score
@few
@given(seed=seeds)
def test_both_forms_are_sums_over_pairs(seed, scores, flip):
    pool = random_pool(seed, scores, flip)
    pairs, z, c = written_out(pool)
    labels = np.random.default_rng(seed).random(len(pairs))
    close = {"rtol": 0, "atol": 3e-6}
    expected = information_of(z, c, labels)
    found = pair_information(pool, symmetric(pairs, labels))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found / scale, (expected if pool.num_draws else expected[0]) / scale, **close)
    G = random_G(seed, pool.num_draws)
    expected = symmetric(pairs, sensitivities_of(z, c, G))
    found = np.asarray(pair_sensitivities(pool, G if pool.num_draws else G[0]))
    np.testing.assert_allclose(found / expected.max(), expected / expected.max(), **close)
    assert (found == found.swapaxes(1, 2)).all()


@every_kind_and_score
def test_lists_of_pairs_know_their_flips(scores, flip):
    pool = random_pool(1, scores, flip)
    pairs, _, c = written_out(pool)
    found = jaxdesign.label_information(pool, pairs)
    np.testing.assert_allclose(found, c if pool.num_draws else c[0], rtol=2e-5)
    turned = jaxdesign.label_information(pool, pairs[:, [0, 2, 1]])
    np.testing.assert_allclose(turned, found, rtol=1e-6)


@every_kind_and_score
def test_float64_kernels_of_a_problem(scores, flip):
    pool = random_pool(2, scores, flip)
    pairs, z, c = written_out(pool)
    c = np.broadcast_to(c, (pool.num_draws or 1, len(pairs)))
    problem = make_problem(pool, LogDet(), Budget(30.0), RIDGE)
    labels = np.random.default_rng(0).random(len(pairs))
    np.testing.assert_allclose(
        information(problem, Allocation(pairs, labels)), information_of(z, c, labels, RIDGE), rtol=1e-10
    )
    again = np.concatenate([pairs] * 3), np.concatenate([labels / 3] * 3)  # long lists take another way
    assert len(again[0]) > 2 * PROMPTS * COMPLETIONS
    np.testing.assert_allclose(information(problem, again), information_of(z, c, labels, RIDGE), rtol=1e-10)
    even = np.full(len(pairs), 30 / len(pairs))
    np.testing.assert_allclose(problem.even, information_of(z, c, even, RIDGE), rtol=2e-6, atol=1e-6)
    G = random_G(0, pool.num_draws)
    np.testing.assert_allclose(
        exact_sensitivities(problem, pairs, np.linalg.cholesky(G)), sensitivities_of(z, c, G), rtol=1e-9
    )
    np.testing.assert_allclose(information_of_all(problem), information_of(z, c, 1.0), rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(pair_forms(problem.pool, G, pairs), sensitivities_of(z, c, G), rtol=1e-9)


@every_kind_and_score
@few
@given(seed=seeds)
def test_a_pass_over_the_pool(seed, scores, flip):
    pool = random_pool(seed, scores, flip)
    pairs, z, c = written_out(pool)
    G = random_G(seed, pool.num_draws)
    factors = np.linalg.cholesky(G).astype(np.float32)
    expected = -np.sort(-np.where(np.eye(COMPLETIONS, dtype=bool), 0, symmetric(pairs, sensitivities_of(z, c, G))))
    source = memory_source(pool)
    for view in (source, source.subset(np.arange(PROMPTS))):
        result = price(view, factors, np.float32(np.inf))
        best, error = np.asarray(result.best), np.asarray(result.error)[:, None, None]
        assert (np.abs(np.where(best == -1, 0, best) - expected[..., :2]) <= error + 0 * best).all()


@every_kind_and_score
def test_the_search_for_swaps_scores_pairs_with_their_flips(scores, flip):
    pool = random_pool(3, scores, flip)
    pairs, z, c = written_out(pool)
    matrix = information_of(z, np.broadcast_to(c, (pool.num_draws or 1, len(pairs))), 0.3, RIDGE)
    with _arrays.float64():
        source = memory_source(pool, np.float64)
        _, factors = swap_gains.factors_of(jnp.asarray(matrix), None)
        closed = np.full((4, 3), -1, np.int32)
        rules = search.Rules(closed, np.full(PROMPTS, -1.0), np.ones(PROMPTS, bool))
        found = np.asarray(search.promising(source, factors, rules).best)[..., 0]
    leverage = c * np.einsum("sd,rde,se->rs", z, np.linalg.inv(matrix), z)
    expected = symmetric(pairs, np.log1p(leverage).mean(axis=0)).max(axis=-1)
    np.testing.assert_allclose(np.where(np.isfinite(found), found, 0), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("level", [0.0, 0.3, 0.49, 0.4999])
@pytest.mark.parametrize("flip", ["prompt", "pair"])
@given(seed=seeds, dtype=st.sampled_from(["float32", "float64"]))
def test_the_bound_on_the_rounding_error_shrinks_with_the_information(seed, level, flip, dtype):
    """It stays a bound, and a small share of the largest sensitivities however noisy the labels."""
    features, u, mask = random_arrays(seed)
    noise = random_flips(seed, mask, flip)
    noise = level + noise * (0.49999 - level)
    with jax.enable_x64(dtype == "float64"):
        pool = CompletionPool(features, (3 * u).astype(dtype), mask, flip=noise.astype(dtype))
        problem = make_problem(pool, LogDet(), Budget(100.0))
        analysis = analyse(problem, problem.even)
        pairs = written_out(pool)[0]
        exact = symmetric(pairs, exact_sensitivities(problem, pairs, analysis.factors) / analysis.unit)
        result = price(problem.source, analysis.scaled, np.float32(np.inf))
    best, error = np.asarray(result.best, np.float64)[..., 0], np.asarray(result.error)
    assert (np.abs(best - exact.max(axis=-1))[best > 0] <= (0.5 * error[:, None] + 0 * best)[best > 0]).all()
    assert error.max() <= 1e-3 * exact.max()


@slow  # and forgets all compiled programs
def test_chunks_change_nothing(monkeypatch):
    results = []
    for entries in (_arrays.chunk_entries(), 100):
        monkeypatch.setitem(_arrays.CHUNK_ENTRIES, jax.default_backend(), entries)
        jax.clear_caches()
        pool = random_pool(0, "draws", "pair")
        problem = make_problem(pool, Trace(H), Budget(30.0), RIDGE)
        uniform = problem.even
        analysis = analyse(problem, uniform)
        passed = price(problem.source, analysis.scaled, np.float32(0.1))
        kernels = pair_information(pool, np.ones((PROMPTS, COMPLETIONS, COMPLETIONS))), pair_sensitivities(pool, H)
        results.append([uniform, np.asarray(passed.best), *kernels])
    assert _arrays.chunk_length(PROMPTS, COMPLETIONS, DIM) < PROMPTS
    jax.clear_caches()
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


# ---- margins


@given(st.floats(-60, 60), st.floats(1e-12, 0.4999))
def test_float32_information_is_accurate_at_any_margin_and_noise(margin, flip):
    margin, flip = np.float32(margin), np.float32(flip)
    with jax.enable_x64(True):
        expected = float(margin_information(jnp.float64(margin), jnp.float64(flip)))
    assert float(margin_information(jnp.asarray(margin), jnp.asarray(flip))) == pytest.approx(expected, rel=3e-5)


def test_no_noise_among_noise_is_no_noise_and_never_nan():
    margins = jnp.asarray([0.0, 3.0, -50.0, 200.0, -1e4])
    np.testing.assert_array_equal(margin_information(margins, jnp.zeros(5)), margin_information(margins))
    slopes = jax.vmap(jax.grad(margin_information), (0, 0))(margins, jnp.zeros(5))
    assert np.isfinite(slopes).all()


# ---- solvers


BUDGETS = {"repeats": {"total": 20.0}, "caps": {"total": 20.0, "per_pair": 1.0}}
BUDGETS["quotas"] = {"total": 20.0, "per_pair": 3.0, "per_prompt": 5.0}


@pytest.mark.parametrize(
    ("name", "limits", "flip"),
    [
        ("LogDet", "quotas", "prompt"),
        ("Trace", "caps", "pair"),
        pytest.param("LogDet", "repeats", "one", marks=slow),
        pytest.param("LogDet", "caps", "pair", marks=slow),
        pytest.param("Trace", "repeats", "one", marks=slow),
        pytest.param("Trace", "quotas", "prompt", marks=slow),
    ],
)
def test_optimize_agrees_with_the_reference_and_with_the_arithmetic_of_pairs(name, limits, flip):
    target, limits = {"LogDet": None, "Trace": H}[name], BUDGETS[limits]
    pool = random_pool(len(limits), "draws" if flip == "pair" else "no" if flip == "one" else "yes", flip)
    criterion = LogDet() if target is None else Trace(target)
    reference = jaxdesign.reference.optimize(pool, criterion, Budget(**limits), RIDGE)
    design = optimize(pool, criterion, Budget(**limits), prior=RIDGE, tol=1e-6)
    found, expected = design.certificate, reference.certificate
    assert found.value == pytest.approx(expected.value, rel=1e-5, abs=1e-5)
    assert found.lower_bound <= expected.value + 1e-9 and expected.lower_bound <= found.value + 1e-9
    pairs, z, c = written_out(pool)
    index = {tuple(pair): k for k, pair in enumerate(pairs.tolist())}
    labels = np.zeros(len(pairs))
    labels[[index[tuple(pair)] for pair in design.pairs.tolist()]] = design.labels
    assert found.value == pytest.approx(criterion_of(information_of(z, c, labels, RIDGE), target), rel=1e-9)
    assert frank_wolfe_gap(pairs, z, c, labels, limits, RIDGE, target) <= 2e-5 * max(1, abs(found.value))


@pairs_daily
@pytest.mark.parametrize("solver", ["frank_wolfe", "multiplicative", "matrix_atoms", "interior_point"])
def test_every_solver_knows_flips(solver, flip):
    pool = random_pool(4, "yes", flip)
    expected = optimize(pool, LogDet(), Budget(20.0), prior=RIDGE, tol=1e-6).certificate
    tol = 1e-5 if solver == "interior_point" else 2e-3
    found = optimize(pool, LogDet(), Budget(20.0), prior=RIDGE, tol=tol, solver=solver).certificate
    assert found.efficiency >= 1 - tol
    assert found.value == pytest.approx(expected.value, abs=DIM * 1.1 * tol)
    assert found.lower_bound <= expected.value + 1e-9


@slow
@every_kind
@settings(max_examples=3)
@given(seed=seeds)
def test_padding_and_the_certificate_of_an_even_allocation(seed, flip):
    pool = random_pool(seed, flip=flip)
    pairs, z, c = written_out(pool)
    labels = even_allocation(pairs, 20.0)
    found = evaluate(pool, Trace(H), Budget(20.0), pairs, labels, RIDGE).certificate
    gap = frank_wolfe_gap(pairs, z, c, labels, {"total": 20.0}, RIDGE, H)
    assert found.gap <= gap * (1 + 1e-6)
    design, value = solve_padded(pool, Trace(H), Budget(20.0), RIDGE)
    assert padded_pool(pool).features.shape[-1] == PADDED_DIM
    assert found.lower_bound <= value * (1 + 1e-9) and value <= found.value
    assert design.certificate.efficiency > 1 - 1e-6


@pytest.mark.parametrize(("scores", "flip"), [pytest.param("no", "prompt", marks=slow), ("yes", "pair")])
@pytest.mark.parametrize("name", ["LogDet", pytest.param("Trace", marks=slow)])
def test_whole_labels(name, scores, flip):
    pool = random_pool(5, scores, flip)
    budget = Budget(12, per_pair=1)
    criterion, target = {"LogDet": (LogDet(), None), "Trace": (Trace(H), H)}[name]
    batch = select_pairs(pool, criterion, budget, prior=RIDGE)
    pairs, z, c = written_out(pool)
    index = {tuple(pair): k for k, pair in enumerate(pairs.tolist())}
    labels = np.zeros(len(pairs))
    labels[[index[tuple(pair)] for pair in batch.pairs.tolist()]] = batch.labels
    value = criterion_of(information_of(z, c, labels, RIDGE), target)
    assert batch.certificate.value == pytest.approx(value, rel=1e-9)
    problem = make_problem(pool, criterion, budget, RIDGE)
    after, moved, told = exchange(problem, Allocation(pairs[::-1][:12], np.ones(12)))
    check_allowed(problem, Allocation(after, moved))
    assert told.optimal and told.value < told.value_before
    rest = np.ones(len(pairs), bool)
    rest[[index[tuple(pair)] for pair in after.tolist()]] = False
    n = (~rest).astype(float)
    for k in np.flatnonzero(n):  # no swap helps, by enumeration
        for l in np.flatnonzero(rest):
            n[[k, l]] = 0, 1
            assert criterion_of(information_of(z, c, n, RIDGE), target) >= told.value - 2e-9 * max(1, abs(value))
            n[[k, l]] = 1, 0


@every_kind_and_score
def test_greedy_takes_the_largest_gain_each_time(scores, flip):
    pool = random_pool(6, scores, flip)
    picked, _ = jaxdesign.greedy(pool, LogDet(), size=8, prior=RIDGE)
    check_gains(pool, None, np.asarray(picked).tolist())


@pytest.mark.parametrize("scores", ["no", pytest.param("draws", marks=slow)])
@pytest.mark.slow
def test_greedy_for_trace_takes_the_largest_gain(scores):
    # by gains at A itself; what `greedy` anticipates for Trace is tested in test_greedy
    pool = random_pool(6, scores, "pair")
    pairs, z, c = written_out(pool)
    limits = Limits(1.0, np.ones(PROMPTS), np.full(PROMPTS, np.inf))
    picked, held = [], np.zeros(len(pairs))
    for _ in range(4):
        at = information_of(z, c, held, RIDGE[None].repeat(len(c), 0))
        picked.append(tuple(myopic_allocation(pool, Trace(H), limits, at, pairs[held > 0])[0][0].tolist()))
        held += (pairs == picked[-1]).all(axis=1)
    check_gains(pool, H, picked)


def check_gains(pool, target, picked):
    """Every pick lowers the criterion as much as any other pair would."""
    pairs, z, c = written_out(pool)
    labels = np.zeros(len(pairs))
    index = {tuple(pair): k for k, pair in enumerate(pairs.tolist())}
    for pair in picked:
        values = []
        for k in range(len(pairs)):
            more = labels + (np.arange(len(pairs)) == k)
            values.append(np.inf if labels[k] else criterion_of(information_of(z, c, more, RIDGE), target))
        chosen = index[tuple(pair)]
        assert values[chosen] - min(values) <= 1e-5 * max(1, abs(min(values)))
        labels[chosen] = 1


@pytest.mark.slow
def test_a_greedy_choice_among_some_prompts_keeps_their_flips():
    from jaxdesign.exact import candidates

    pool = random_pool(7, "yes", "pair")
    problem = make_problem(pool, LogDet(), Budget(4, per_pair=1), RIDGE)
    prompts = np.array([3, 4])
    found, _ = candidates._greedy_among(problem, LogDet(), prompts)
    mask = np.asarray(pool.mask) & np.isin(np.arange(PROMPTS), prompts)[:, None]
    masked = CompletionPool(pool.features, pool.scores, mask, flip=pool.flip)
    expected, _ = jaxdesign.greedy(masked, LogDet(), size=4, prior=RIDGE)
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, np.asarray(expected).tolist()))


@pytest.mark.parametrize(  # those that are loops of picks compile
    "name", [pytest.param(name, marks=slow if name in ("adpo", "bait") else []) for name in sorted(baselines.SELECTORS)]
)
def test_baselines_are_judged_with_flips(name):
    pool = random_pool(8, "yes", "pair")
    design = baselines.SELECTORS[name](pool, Trace(H), Budget(10), prior=RIDGE)
    pairs, z, c = written_out(pool)
    index = {tuple(pair): k for k, pair in enumerate(pairs.tolist())}
    labels = np.zeros(len(pairs))
    labels[[index[tuple(pair)] for pair in design.pairs.tolist()]] = design.labels
    assert design.certificate.value == pytest.approx(criterion_of(information_of(z, c, labels, RIDGE), H), rel=1e-9)


# ---- what noise must do


@pairs_daily
def test_flips_move_along_with_prompts_and_completions(flip):
    pool = random_pool(9, "draws", flip)
    features, scores, mask = stored(pool)
    noise = np.asarray(pool.flip)
    rng = np.random.default_rng(0)
    prompts, slots = rng.permutation(PROMPTS), np.argsort(rng.random((PROMPTS, COMPLETIONS)))
    rows = np.arange(PROMPTS)[:, None]

    def moved(array):
        return array[prompts][rows, slots]

    noise = noise[prompts]
    if flip == "pair":
        noise = noise[rows[:, :, None], slots[:, :, None], slots[:, None, :]]
    u = np.stack([moved(one) for one in scores])
    other = CompletionPool(moved(features).astype(np.float32), u.astype(np.float32), moved(mask), flip=noise)
    first, second = (optimize(p, Trace(H), Budget(20.0), prior=RIDGE, tol=1e-6).certificate for p in (pool, other))
    assert first.value == pytest.approx(second.value, rel=1e-5)
    G = random_G(0, DRAWS)
    b, moved_b = np.asarray(pair_sensitivities(pool, G)), np.asarray(pair_sensitivities(other, G))
    expected = b[prompts][rows[:, :, None], slots[:, :, None], slots[:, None, :]]
    np.testing.assert_allclose(moved_b, expected, rtol=1e-4, atol=1e-5 * b.max())


@slow
def test_even_noise_without_scores_makes_every_label_worth_less():
    features, _, mask = random_arrays(10)
    plain, noisy = CompletionPool(features, mask=mask), CompletionPool(features, mask=mask, flip=0.3)
    share = (1 - 2 * 0.3) ** 2
    first = optimize(plain, Trace(H), Budget(20.0 * share), prior=RIDGE, tol=1e-6)
    second = optimize(noisy, Trace(H), Budget(20.0), prior=RIDGE, tol=1e-6)
    assert first.certificate.value == pytest.approx(second.certificate.value, rel=1e-5)
    fewer = evaluate(plain, Trace(H), Budget(20.0 * share), second.pairs, second.labels * share, RIDGE).certificate
    assert fewer.value == pytest.approx(second.certificate.value, rel=1e-6)


@given(st.floats(-20, 20), st.floats(0, 0.49), st.floats(0, 0.49))
def test_more_noise_never_tells_more(margin, a, b):
    with jax.enable_x64(True):
        low, high = (float(margin_information(margin, e)) for e in sorted([a, b]))
    assert high <= low * (1 + 1e-12)


def test_labels_avoid_noisy_prompts():
    features = random_arrays(11, ragged=False)[0]
    flip = np.zeros(PROMPTS)
    flip[::2] = 0.45
    design = optimize(CompletionPool(features, flip=flip), LogDet(), Budget(20.0), prior=RIDGE)
    spent = np.bincount(design.pairs[:, 0], design.labels, PROMPTS)
    plain = optimize(CompletionPool(features), LogDet(), Budget(20.0), prior=RIDGE)
    before = np.bincount(plain.pairs[:, 0], plain.labels, PROMPTS)
    assert spent[::2].sum() < 0.2 * before[::2].sum()


# ---- inside of jit, vmap and grad


@pairs_daily
def test_a_pool_made_inside_of_jit_is_the_same(flip):
    features, u, mask = random_arrays(12)
    noise = np.nan_to_num(random_flips(12, mask, flip))
    outside = CompletionPool(features, u, mask, flip=noise)
    inside = jax.jit(CompletionPool)(np.nan_to_num(features), np.nan_to_num(u), mask, flip=np.float32(noise))
    np.testing.assert_array_equal(inside.flip, outside.flip)
    chosen = jax.jit(lambda f: jaxdesign.greedy(CompletionPool(f, u, mask, flip=noise), LogDet(), size=5, prior=1.0))
    np.testing.assert_array_equal(chosen(features)[0], jaxdesign.greedy(outside, LogDet(), size=5, prior=1.0)[0])


@slow
def test_pools_with_flips_are_stacked_and_mapped():
    pools = [random_pool(seed, "yes", "pair") for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pools)
    together = jax.vmap(pair_sensitivities, (0, None))(stacked, H)
    for pool, mapped in zip(pools, together, strict=True):
        np.testing.assert_allclose(mapped, pair_sensitivities(pool, H), rtol=1e-5, atol=1e-5)
    run = jax.vmap(lambda pool: jaxdesign.solvers.frank_wolfe(pool, LogDet(), Budget(20.0), passes=20, prior=RIDGE))
    allocations, certificates = run(stacked)
    for k, pool in enumerate(pools):
        pairs, z, c = written_out(pool)
        value = criterion_of(information_of(z, c, np.asarray(allocations[k], np.float64)[tuple(pairs.T)], RIDGE))
        assert float(certificates.value[k]) == pytest.approx(value, abs=1e-4)


def test_gradients_with_respect_to_flips():
    features, u, mask = random_arrays(13)
    features, u = np.nan_to_num(features), np.nan_to_num(u)
    weights = symmetric(written_out(random_pool(13))[0], 1.0)

    def value(flip):
        pool = CompletionPool(features, u, mask, flip=flip)
        return LogDet().value(pair_information(pool, weights) + jnp.eye(DIM))

    flip = jnp.linspace(0.05, 0.4, PROMPTS)
    slope = np.asarray(jax.jit(jax.grad(value))(flip))
    for p in (0, 1, 3):
        step = jnp.where(jnp.arange(PROMPTS) == p, 1e-2, 0)
        difference = (value(flip + step) - value(flip - step)) / 2e-2
        assert slope[p] == pytest.approx(float(difference), rel=2e-2, abs=1e-4)
    assert slope[2] == 0  # a single completion
    assert (slope[[0, 1, 3, 4, 5]] > 0).all()


def test_gradient_of_the_design_matters_not_for_pairs_that_do_not_exist():
    pool = random_pool(0, "yes", "pair")
    G = gradients_of(information_of(*written_out(pool)[1:], 1.0))[0]

    def total(flip):
        return jnp.sum(pair_sensitivities(CompletionPool.tree_unflatten(None, (*jax.tree.leaves(pool)[:3], flip)), G))

    slope = np.asarray(jax.grad(total)(pool.flip))
    assert np.isfinite(slope).all() and (slope[~np.asarray(pool.mask)] == 0).all()


# ---- bad input


FEATURES, _, MASK = random_arrays(0, ragged=False)


def noise(index, value, shape=(PROMPTS, COMPLETIONS, COMPLETIONS)):
    flip = np.full(shape, 0.1)
    flip[index] = value
    return flip


CASES = {
    "a half": (0.5, ValueError, ["flip", "0.5 at prompt 0", "6 such", "below 1/2", "no information", "mask"]),
    "just below a half in float64": (0.5 - 1e-12, ValueError, ["0.5 at prompt 0", "below 1/2"]),
    "negative": (noise(3, -0.1, PROMPTS), ValueError, ["flip", "-0.1 at prompt 3", "at least 0"]),
    "NaN": (noise((2, 0, 1), np.nan), ValueError, ["nan at prompt 2, completions 0 and 1", "1 such"]),
    "a pair": (noise((2, 1, 4), 0.7), ValueError, ["0.7 at prompt 2, completions 1 and 4"]),
    "not symmetric": (noise((2, 1, 4), 0.2), ValueError, ["prompt 2, completions 1 and 4", "mirror"]),
    "another shape": (np.zeros((PROMPTS, COMPLETIONS)), ValueError, ["flip", "(6, 5)", "(P,) or (P, K, K)"]),
    "other prompts": (np.zeros(PROMPTS + 1), ValueError, ["flip", "(7,)", "(6,)"]),
    "other completions": (np.zeros((PROMPTS, 4, 4)), ValueError, ["flip", "(6, 4, 4)", "(6, 5, 5)"]),
    "integers": (np.zeros(PROMPTS, int), TypeError, ["flip", "int64"]),
    "a truth": (True, TypeError, ["flip", "bool"]),
    "words": ("often", TypeError, ["flip", "<U5"]),
}


@pytest.mark.parametrize(("flip", "kind", "words"), CASES.values(), ids=CASES.keys())
def test_bad_flips_are_named(flip, kind, words):
    with pytest.raises(kind) as raised:
        CompletionPool(FEATURES, mask=MASK, flip=flip)
    assert all(word in str(raised.value) for word in words), raised.value
