"""Exchange: no swap of the whole pool helps in the end, by enumeration; rules are kept, the criterion never rises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from medium import medium_pool
from problems import (
    DIM,
    DRAWS,
    PROMPTS,
    criterion_of,
    gradients_of,
    information_of,
    random_arrays,
    random_pool,
    random_spd,
    sensitivities_of,
    written_out,
)

import jaxdesign
from jaxdesign import Budget, CompletionPool, Criterion, LogDet, Trace, _arrays
from jaxdesign.exact import exchange as module
from jaxdesign.exact import swap_rounds, swap_search, swaps
from jaxdesign.exact.exchange import exchange
from jaxdesign.exact.greedy import greedy_allocation
from jaxdesign.pricing.memory import memory_source
from jaxdesign.problem import make_problem

TARGET = random_spd(2)
QUOTA = np.array([3, 9, 1, 3, 5, 4])
PRIOR = 0.1
RULES = {
    "one a pair": {"per_pair": 1},
    "two a pair": {"per_pair": 2.9},
    "quotas": {"per_pair": 1, "per_prompt": QUOTA},
    "repeats": {},
    "repeats and quotas": {"per_prompt": QUOTA + 0.5},
}
CRITERIA = {"LogDet": None, "Trace": TARGET, "Trace of a low-rank H": random_spd(3, rank=1)}


def criterion_with(H):
    return LogDet() if H is None else Trace(H)


def random_start(pool, total, seed, per_pair=np.inf, per_prompt=np.inf):
    """Labels put one by one on random pairs that caps and quotas leave open: `total` of them, or as many as fit."""
    pairs, _, _ = written_out(pool)
    rng, labels = np.random.default_rng(seed), np.zeros(len(pairs))
    cap = np.broadcast_to(per_pair, (pool.num_prompts,))[pairs[:, 0]]
    quota = np.broadcast_to(per_prompt, (pool.num_prompts,))
    for _ in range(total):
        spent = np.bincount(pairs[:, 0], labels, pool.num_prompts)
        is_open = (labels + 1 <= cap) & (spent + 1 <= quota)[pairs[:, 0]]
        if is_open.any():
            labels[rng.choice(np.flatnonzero(is_open))] += 1
    return pairs[labels > 0], labels[labels > 0]


def labels_on(pairs, chosen, labels):
    """Labels of a sparse allocation on the list of all pairs."""
    index = {tuple(pair): k for k, pair in enumerate(pairs.tolist())}
    dense = np.zeros(len(pairs))
    dense[[index[tuple(pair)] for pair in np.asarray(chosen).tolist()]] = labels
    return dense


def allowed_swaps(pairs, labels, per_pair=np.inf, per_prompt=np.inf):
    """(k, l) index arrays of every swap that caps and quotas allow."""
    prompts = PROMPTS if np.ndim(per_prompt) else pairs[:, 0].max() + 1
    cap = np.floor(np.broadcast_to(per_pair, (prompts,)))[pairs[:, 0]]
    quota = np.floor(np.broadcast_to(per_prompt, (prompts,)))
    full = np.bincount(pairs[:, 0], labels, prompts) + 1 > quota
    same = pairs[:, :1] == pairs[None, :, 0]
    ok = (labels >= 1)[:, None] & (labels + 1 <= cap)[None, :] & (same | ~full[pairs[:, 0]][None, :])
    np.fill_diagonal(ok, False)
    return np.nonzero(ok)


def values_after(z, c, matrix, k, l, H):
    """The criterion after each swap, from fresh determinants or inverses."""
    outer = np.einsum("rs,sd,se->rsde", c, z, z)
    after = matrix[:, None] + outer[:, l] - outer[:, k]
    if H is None:
        sign, log = np.linalg.slogdet(after)
        return np.mean(np.where(sign > 0, -log, np.inf), axis=0)
    spectrum = np.linalg.eigvalsh(after)[..., 0]
    traces = np.trace(np.linalg.solve(after, np.broadcast_to(H, after.shape)), axis1=2, axis2=3)
    return np.mean(np.where(spectrum > 1e-12, traces, np.inf), axis=0)


def check_optimum(pool, H, prior, rules, chosen, labels, report, total):
    """Allowed, whole, and by enumeration no allowed swap lowers the criterion."""
    pairs, z, c = written_out(pool)
    dense = labels_on(pairs, chosen, labels)
    assert dense.sum() == total and (dense == np.rint(dense)).all() and (labels > 0).all()
    assert (labels <= np.floor(rules.get("per_pair", np.inf))).all()
    spent = np.bincount(pairs[:, 0], dense, pool.num_prompts)
    assert (spent <= np.floor(rules.get("per_prompt", np.inf))).all()
    matrix = information_of(z, c, dense, prior * np.eye(pool.dim))
    value = criterion_of(matrix, H)
    np.testing.assert_allclose(report.value, value, rtol=1e-9, atol=1e-9)
    assert report.value <= report.value_before and report.optimal
    k, l = allowed_swaps(pairs, dense, **rules)
    if len(k):
        least = 1e-8 if H is None else 1e-8 * value
        assert values_after(z, c, matrix, k, l, H).min() >= value - least


@pytest.mark.parametrize("scores", ["yes", "draws"])
@pytest.mark.parametrize("name", CRITERIA)
@given(rules=st.sampled_from(list(RULES)), total=st.integers(3, 18), seed=st.integers(0, 10**6))
def test_no_swap_helps_in_the_end_whatever_the_start(name, scores, rules, total, seed):
    pool, rules = random_pool(seed % 7, scores), RULES[rules]
    start = random_start(pool, total, seed, **rules)
    total = start[1].sum()
    problem = make_problem(pool, criterion_with(CRITERIA[name]), Budget(total, **rules), PRIOR)
    chosen, labels, report = exchange(problem, *start)
    assert chosen.dtype == np.int32 and labels.dtype == np.float64
    np.testing.assert_array_equal(chosen, chosen[np.lexsort(chosen.T[::-1])])
    check_optimum(pool, CRITERIA[name], PRIOR, rules, chosen, labels, report, total)


@pytest.mark.parametrize("name", ["LogDet", "Trace"])
def test_a_pool_of_many_chunks_and_more_labelled_pairs_than_a_round_looks_at(name, monkeypatch):
    monkeypatch.setattr(_arrays, "CHUNK_ENTRIES", 8 * 8 * 3)  # 3 prompts a chunk, the last one padded
    monkeypatch.setattr(swap_rounds, "LABELLED", 16)
    monkeypatch.setattr(swap_rounds, "BLOCK", 8)
    monkeypatch.setattr(swap_rounds, "ASIDE", 12)
    monkeypatch.setattr(swap_search, "BLOCK", 8)
    monkeypatch.setattr(swap_search, "ENTRIES", 256)
    monkeypatch.setattr(module, "OTHERS", 16)
    pool, H = medium_pool(1), None if name == "LogDet" else random_spd(4, 8)
    problem = make_problem(pool, criterion_with(H), Budget(100, per_pair=1), 0.3)
    assert problem.source.copies.shape[0] == 14
    start = random_start(pool, 100, 0, per_pair=1)
    chosen, labels, report = exchange(problem, *start)
    assert report.swaps > 50 and report.passes > 2
    check_optimum(pool, H, 0.3, {"per_pair": 1}, chosen, labels, report, 100)


@pytest.mark.parametrize("draws", [None, 3])
@pytest.mark.parametrize("name", ["LogDet", "Trace"])
def test_a_complete_search_finds_the_best_swap_into_every_completion(name, draws):
    pool, H = medium_pool(2, draws), None if name == "LogDet" else random_spd(5, 8)
    start = random_start(pool, 60, 1, per_pair=1, per_prompt=3)
    problem = make_problem(pool, criterion_with(H), Budget(start[1].sum(), per_pair=1, per_prompt=3), 0.3)
    with _arrays.float64():
        batch = module._batch(problem, module.pair_forms.root(problem.criterion), *start)
        found = module._search(problem, batch, memory_source(pool, np.float64), 1e-9, complete=True)
    pairs, z, c = written_out(pool)
    dense = labels_on(pairs, *start)
    matrix = information_of(z, c, dense, 0.3 * np.eye(8))
    k, l = allowed_swaps(pairs, dense, per_pair=1, per_prompt=3)
    value = criterion_of(matrix, H)
    gain = value - values_after(z, c, matrix, k, l, H)
    gain = gain if H is None else gain / value
    best = np.full(len(pairs), -np.inf)
    np.maximum.at(best, l, gain)
    index = {tuple(pair): n for n, pair in enumerate(pairs.tolist())}
    listed = np.array([index[tuple(pair)] for pair in found.others.tolist()])
    np.testing.assert_allclose(found.gains, best[listed], rtol=1e-6, atol=1e-10)
    table = np.full((*pool.mask.shape, 2), -np.inf)  # of every completion, the best gain by enumeration and as found
    for column, (places, values) in enumerate([(np.arange(len(pairs)), best), (listed, found.gains)]):
        for end in (1, 2):
            np.maximum.at(table[..., column], (pairs[places, 0], pairs[places, end]), values)
    helps = table[..., 0] > 1e-9
    assert helps.sum() > 50
    np.testing.assert_allclose(table[helps, 1], table[helps, 0], rtol=1e-6)
    first = k[gain == gain.max()][0]
    np.testing.assert_array_equal(start[0][found.labelled[0]], pairs[first])


@pytest.mark.parametrize("total", [DIM, DIM + 2, 12])
def test_with_repeats_a_local_optimum_is_as_efficient_as_fedorovs_bound(total):
    for seed in range(3):
        pool = random_pool(30 + seed, "yes")
        problem = make_problem(pool, LogDet(), Budget(total))
        relaxed = jaxdesign.optimize(pool, LogDet(), Budget(total), tol=1e-7)
        chosen, labels, report = exchange(problem, *greedy_allocation(pool, LogDet(), problem.limits, problem.prior))
        efficiency = np.exp(-(report.value - relaxed.certificate.value) / DIM)
        assert report.optimal and efficiency >= (total - DIM + 1) / total - 1e-6
        pairs, z, c = written_out(pool)
        matrix = information_of(z, c, labels_on(pairs, chosen, labels))
        b = sensitivities_of(z, c, gradients_of(matrix))
        assert b.max() <= DIM / (total - DIM + 1) + 1e-7


@pytest.mark.parametrize("name", ["LogDet", "Trace"])
def test_scores_are_those_of_fresh_matrices(name):
    pool, H = random_pool(3, "draws"), CRITERIA[name]
    pairs, z, c = written_out(pool)
    matrix = information_of(z, c, np.ones(len(pairs)), PRIOR * np.eye(DIM))
    value = criterion_of(matrix, H)
    with _arrays.float64():
        root = None if H is None else np.linalg.cholesky(H)
        found, factors = swaps.factors_of(jnp.asarray(matrix), root)
        rows = swaps.whitened(factors, jnp.asarray(z), jnp.asarray(c), jnp.float64)
        forms = swaps.norms(rows)
        gain = np.asarray(swaps.gains(forms, swaps.score_table(rows, forms, rows, forms)))
    np.testing.assert_allclose(found, value, rtol=1e-12)
    k, l = np.nonzero(np.ones_like(gain))
    expected = value - values_after(z, c, matrix, k, l, H)
    np.testing.assert_allclose(gain[k, l], expected if H is None else expected / value, rtol=1e-9, atol=1e-12)
    assert gain.shape == (len(pairs), len(pairs)) and len(c) == DRAWS


def medium_case(seed=3):
    pool = medium_pool(seed)
    return make_problem(pool, LogDet(), Budget(30, per_pair=1), 0.2), random_start(pool, 30, seed, per_pair=1)


def test_an_optimum_stays_as_it_is():
    problem, start = medium_case()
    chosen, labels, report = exchange(problem, *start)
    assert report.swaps > 0
    again, same, second = exchange(problem, chosen, labels)
    np.testing.assert_array_equal(again, chosen)
    np.testing.assert_array_equal(same, labels)
    assert second.swaps == 0 and second.optimal and second.value == second.value_before == report.value


def test_the_same_arguments_give_the_same_labels_and_the_order_of_the_start_does_not_matter():
    problem, (pairs, labels) = medium_case()
    first, _, report = exchange(problem, pairs, labels)
    second, _, same = exchange(problem, pairs[::-1][:, [0, 2, 1]], labels[::-1])
    np.testing.assert_array_equal(first, second)
    assert report == same


def test_limits_stop_the_search_on_the_way_down():
    problem, start = medium_case()
    _, _, free = exchange(problem, *start)
    values = []
    for swapped in (0, 1, 3):
        _, labels, report = exchange(problem, *start, max_swaps=swapped)
        assert report.swaps == swapped and not report.optimal and labels.sum() == 30
        values.append(report.value)
    assert values[0] == report.value_before > values[1] > values[2] > free.value
    _, _, report = exchange(problem, *start, max_passes=1)
    assert report.passes == 1 and not report.optimal and free.value <= report.value < report.value_before


def test_a_larger_least_gain_stops_earlier_and_leaves_only_smaller_gains():
    problem, start = medium_case()
    _, _, fine = exchange(problem, *start)
    chosen, labels, coarse = exchange(problem, *start, least_gain=0.05)
    assert coarse.optimal and coarse.swaps < fine.swaps
    pairs, z, c = written_out(problem.pool)
    dense = labels_on(pairs, chosen, labels)
    matrix = information_of(z, c, dense, 0.2 * np.eye(8))
    k, l = allowed_swaps(pairs, dense, 1)
    assert values_after(z, c, matrix, k, l, None).min() >= coarse.value - 0.05 - 1e-9


def test_a_full_pool_has_no_swaps():
    pool = random_pool(1)
    pairs, _, _ = written_out(pool)
    problem = make_problem(pool, LogDet(), Budget(len(pairs), per_pair=1))
    chosen, labels, report = exchange(problem, pairs, np.ones(len(pairs)))
    np.testing.assert_array_equal(chosen, pairs)
    assert report.optimal and report.swaps == 0 and labels.sum() == len(pairs)


def test_features_of_any_scale_and_without_a_prior():
    features, u, mask = random_arrays(14)
    start = random_start(CompletionPool(features, u, mask), 12, 5, per_pair=1)
    expected = None
    for scale in (1, 2.0**40, 2.0**-40):
        pool = CompletionPool(features * np.float32(scale), u, mask)
        found, _, report = exchange(make_problem(pool, Trace(TARGET), Budget(len(start[0]), per_pair=1)), *start)
        expected = found if expected is None else expected
        np.testing.assert_array_equal(found, expected)
        assert report.optimal


def test_features_of_float64_inside_a_float64_scope(float64_scope):
    features, u, mask = random_arrays(1)
    pool = CompletionPool(features.astype(np.float64), u.astype(np.float64), mask)
    start = random_start(pool, 10, 0, per_pair=1)
    problem = make_problem(pool, Trace(TARGET), Budget(start[1].sum(), per_pair=1), PRIOR)
    assert problem.source.dtype == np.float64
    chosen, labels, report = exchange(problem, *start)
    check_optimum(pool, TARGET, PRIOR, {"per_pair": 1}, chosen, labels, report, start[1].sum())


def test_nothing_is_compiled_again_for_other_values(monkeypatch):
    problem, start = medium_case(3)
    exchange(problem, *start)
    pool = medium_pool(8)
    other = make_problem(pool, LogDet(), Budget(30, per_pair=2), 0.3)
    start = random_start(pool, 30, 1, per_pair=1)

    def fail(*_):
        raise AssertionError("traced again")

    for name in ("scores", "whitened", "factors_of", "norms"):
        monkeypatch.setattr(swaps, name, fail)
    assert exchange(other, *start)[2].swaps > 0


def test_bad_input_is_named():
    pool = random_pool(1)
    problem = make_problem(pool, LogDet(), Budget(4, per_pair=1), PRIOR)
    pairs, labels = random_start(pool, 4, 0, per_pair=1)
    user = make_problem(pool, Criterion(lambda A: jnp.trace(jnp.linalg.inv(A))), Budget(4), PRIOR)
    with pytest.raises(TypeError, match=r"crit: exchange knows the swaps of LogDet\(\) and Trace\(H\)"):
        exchange(user, pairs, labels)
    with pytest.raises(ValueError, match=r"labels: 0\.5 at row 0; exchange moves whole labels"):
        exchange(problem, pairs, [0.5, 1, 1.5, 1])
    with pytest.raises(ValueError, match=r"labels: they sum to 3, but budget\.total=4"):
        exchange(problem, pairs[:3], labels[:3])
    with pytest.raises(ValueError, match=r"labels: pair .* has 2 labels, above"):
        exchange(problem, pairs[:3], [2.0, 1, 1])
    with pytest.raises(ValueError, match="labels: their information is singular"):
        exchange(make_problem(pool, LogDet(), Budget(4)), pairs[:1], [4.0])
    with pytest.raises(ValueError, match="least_gain=0: must be positive"):
        exchange(problem, pairs, labels, least_gain=0)
    with pytest.raises(TypeError, match="max_swaps: expected an integer or None, found float"):
        exchange(problem, pairs, labels, max_swaps=1.0)
    with pytest.raises(ValueError, match="max_passes=-1: must be at least 0"):
        exchange(problem, pairs, labels, max_passes=-1)


def test_a_quota_of_one_lets_a_prompt_swap_within_itself_only():
    # prompt 0 has its one label on the short pair (0, 1); only the long pair (0, 2) of the same prompt may get it
    features = np.zeros((2, 3, 2), np.float32)
    features[0, 1:] = [[1, 0], [3, 0]]
    features[1, 1:] = [[0, 1], [0, 2]]
    problem = make_problem(CompletionPool(features), LogDet(), Budget(2, 1, per_prompt=1), 0.1)
    chosen, _labels, report = exchange(problem, [[0, 0, 1], [1, 0, 1]], [1.0, 1.0])
    np.testing.assert_array_equal(chosen, [[0, 0, 2], [1, 0, 2]])
    assert report == (report.value_before, report.value, 2, report.passes, True)
    value = -np.log(0.1 + 9 / 4) - np.log(0.1 + 4 / 4)
    np.testing.assert_allclose(report.value, value, rtol=1e-12)


def test_many_labels_on_few_pairs_move_one_by_one():
    problem = make_problem(random_pool(5, "no"), LogDet(), Budget(60))
    pairs, z, _c = written_out(problem.pool)
    first = np.linalg.matrix_rank(z[:1])
    basis = [0]
    for k in range(1, len(z)):
        if np.linalg.matrix_rank(z[[*basis, k]]) > first:
            basis, first = [*basis, k], first + 1
    labels = np.array([58.0, 1, 1])
    chosen, labels, report = exchange(problem, pairs[basis], labels)
    relaxed = jaxdesign.optimize(problem.pool, LogDet(), Budget(60), tol=1e-7)
    assert np.exp(-(report.value - relaxed.certificate.value) / DIM) >= (60 - DIM + 1) / 60
    check_optimum(problem.pool, None, 0.0, {}, chosen, labels, report, 60)


def test_a_gram_matrix_after_a_swap_is_that_of_the_new_matrix():
    rng = np.random.default_rng(0)
    z, c, H = rng.standard_normal((6, DIM)), rng.uniform(0.1, 0.25, (2, 6)), TARGET
    before = information_of(z, c, np.ones(6), np.eye(DIM))
    after = information_of(z, c, np.array([1, 0, 1, 1, 2, 1]), np.eye(DIM))
    with _arrays.float64():
        grams = []
        value = None
        for matrix in (before, after):
            inverse = np.linalg.inv(matrix)
            value = np.mean(np.trace(H @ inverse, axis1=1, axis2=2)) if value is None else value
            y = np.sqrt(c)[..., None] * z
            grams.append(
                swaps.Rows(
                    jnp.asarray(y @ inverse @ y.swapaxes(1, 2)),
                    jnp.asarray(y @ inverse @ H @ inverse @ y.swapaxes(1, 2) / value),
                )
            )
        found = swap_rounds._swapped(grams[0], jnp.array([1, 4]), 1.0)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13), found, grams[1])
        same = swap_rounds._swapped(grams[0], jnp.array([1, 4]), 0.0)
        jax.tree.map(np.testing.assert_array_equal, same, grams[0])
