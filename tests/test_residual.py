"""What residuals leave of a label: the formula against quadrature, all that asks for c against pairs written out."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdesign as jd
from jaxdesign import _arrays
from jaxdesign.pricing import memory_source, streamed_source
from jaxdesign.pricing.passes import chunk_sensitivities
from jaxdesign.residual_metric import median_length, residual_of
from jaxdesign.solvers import frank_wolfe
from tests.support.problems import DIM, all_pairs_of, random_pool

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(160)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
KINDS = {"noise": 0.7, "cap": "cap"}


def sigma(x):
    return 1 / (1 + np.exp(-x))


def with_residual(pool, variance, **given):
    return jd.CompletionPool(
        pool.features, pool.scores, pool.mask, flip=pool.flip, residual=residual_of(pool, variance, **given)
    )


def listed(pool):
    """All pairs of completions that exist and differ, and their differences in float64."""
    pairs = all_pairs_of(pool.num_prompts, pool.completions)
    p, i, j = pairs.T
    features, mask = np.asarray(pool.features, np.float64), np.asarray(pool.mask)
    z = features[p, i] - features[p, j]
    some = mask[p, i] & mask[p, j] & (z != 0).any(axis=1)
    return pairs[some], z[some]


def expected_information(pool, variance, target=None):
    """(R, S) c of all pairs by hand."""
    pairs, z = listed(pool)
    H = np.asarray(jd.second_moment(pool)) if target is None else target
    lengths = np.einsum("nd,de,ne->n", z, np.linalg.inv(H), z)
    lengths /= np.quantile(lengths, 0.5, method="inverted_cdf")
    k2 = 1 + (0 if variance == "cap" else np.pi * variance / 8) * lengths
    p, i, j = pairs.T
    scores = np.zeros((1, *pool.mask.shape)) if pool.scores is None else np.asarray(pool.scores, np.float64)
    scores = scores.reshape(-1, *pool.mask.shape)
    chance = sigma((scores[:, p, i] - scores[:, p, j]) / np.sqrt(k2))
    flip = np.zeros(len(pairs)) if pool.flip is None else np.asarray(pool.flip, np.float64)
    flip = flip[p] if flip.ndim == 1 else flip if pool.flip is None else flip[p, i, j]
    law = (1 - 2 * flip) * chance + flip
    found = ((1 - 2 * flip) * chance * (1 - chance)) ** 2 / (law * (1 - law)) / k2
    return found * np.minimum(1, 1 / lengths) if variance == "cap" else found


def quadrature(margin, variance, flip=0.0):
    """Information of a label about its margin, the residual integrated over: (dp / dm)^2 / (p (1 - p))."""
    x = margin[:, None] + np.sqrt(variance)[:, None] * NODES
    law, other = ((1 - 2 * flip) * (sigma(side * x) @ WEIGHTS) + flip for side in (1, -1))
    slope = (1 - 2 * flip) * ((sigma(x) * sigma(-x)) @ WEIGHTS)
    return slope**2 / (law * other)


def two_texts(margins, **parts):
    """Prompts of two completions, of so different scores; their features differ by 1."""
    features = np.tile(np.array([[1.0], [0.0]], np.float32), (len(margins), 1, 1))
    scores = np.stack([margins, 0 * margins], axis=1)
    with _arrays.float64():
        rows = {name: np.stack([np.sqrt(form), 0 * form], axis=1)[..., None] for name, form in parts.items()}
        pool = jd.CompletionPool(features.astype(np.float64), scores, residual=jd.Residual(**rows))
        return np.asarray(jd.label_information(pool, np.array([[p, 0, 1] for p in range(len(margins))])))


def test_the_formula_is_the_information_that_is_left_within_the_accuracy_of_its_approximation():
    margins, variance = (grid.ravel() for grid in np.meshgrid(np.linspace(0, 3, 7), [0.1, 1.0, 4.0, 30.0]))
    np.testing.assert_allclose(two_texts(margins, noise=variance), quadrature(margins, variance), rtol=0.2, atol=2e-3)
    at_0 = two_texts(0 * variance, noise=variance)
    np.testing.assert_allclose(at_0, 1 / (4 + np.pi / 2 * variance), rtol=1e-12)
    np.testing.assert_allclose(at_0, quadrature(0 * variance, variance), rtol=0.07)


def test_information_is_averaged_over_a_belief():
    margins, known = (grid.ravel() for grid in np.meshgrid(np.linspace(-2, 2, 5), [0.2, 1.0, 6.0]))
    noise = np.resize([0.0, 0.5, 3.0], len(margins))
    drawn = margins[:, None] + np.sqrt(known)[:, None] * NODES
    left = quadrature(drawn.ravel(), np.repeat(noise, len(NODES))).reshape(drawn.shape) @ WEIGHTS
    np.testing.assert_allclose(two_texts(margins, noise=noise, belief=known), left, rtol=0.1)
    alone = (sigma(drawn) * sigma(-drawn)) @ WEIGHTS
    np.testing.assert_allclose(two_texts(margins, belief=known), alone, rtol=0.06)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("scores", "flip"), [("no", None), ("yes", "pair"), ("draws", "prompt")])
def test_all_that_asks_for_it_sees_the_information_that_is_left(scores, flip, kind):
    pool = random_pool(3, scores, flip)
    shrunk = with_residual(pool, KINDS[kind])
    (pairs, z), c = listed(pool), expected_information(pool, KINDS[kind])
    p, i, j = pairs.T
    np.testing.assert_allclose(np.atleast_2d(jd.label_information(shrunk, pairs)), c, rtol=3e-6)
    np.testing.assert_allclose(memory_source(shrunk).rows(pairs.astype(np.int32)).label_info, c, rtol=1e-6)
    weights = np.random.default_rng(0).random((pool.num_prompts, 5, 5))
    weights = weights + weights.swapaxes(1, 2)
    info = np.einsum("rs,sd,se->rde", c * weights[p, i, j], z, z)
    np.testing.assert_allclose(jd.pair_information(shrunk, weights), info if scores == "draws" else info[0], rtol=3e-5)
    dense = np.asarray(jd.pair_sensitivities(shrunk, np.eye(DIM)))
    np.testing.assert_allclose(dense[p, i, j], c.mean(axis=0) * np.sum(z * z, axis=1), rtol=2e-5)
    held = jd.held_information(shrunk, pairs[:4])
    np.testing.assert_allclose(held, np.einsum("rs,sd,se->rde", c[:, :4], z[:4], z[:4]).reshape(held.shape), rtol=1e-5)


def test_a_target_is_the_metric_where_one_is_given():
    pool, H = random_pool(4), np.diag([1.0, 4.0, 0.25])
    pairs, _ = listed(pool)
    found = jd.label_information(with_residual(pool, 2.0, target=H), pairs)
    np.testing.assert_allclose(found, expected_information(pool, 2.0, H)[0], rtol=3e-6)
    with pytest.raises(ValueError, match="target: singular in directions in which completions differ"):
        residual_of(pool, 2.0, target=np.diag([1.0, 0.0, 0.25]))


@pytest.mark.parametrize("seed", range(5))
def test_the_median_is_that_of_all_pairs(seed):
    pool = random_pool(seed, prompts=6 + seed % 2)
    factor = np.random.default_rng(seed).standard_normal((DIM, 2)) * 10.0 ** (seed - 2)
    lengths = np.sum((listed(pool)[1] @ factor) ** 2, axis=1)
    found = median_length(memory_source(pool), factor)
    np.testing.assert_allclose(found, np.quantile(lengths, 0.5, method="inverted_cdf"), rtol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_and_the_solver_agree(kind):
    pool, budget = with_residual(random_pool(5, prompts=8), KINDS[kind]), jd.Budget(12, per_pair=1)
    for crit in (jd.LogDet(), jd.Trace(np.diag([1.0, 2.0, 0.5]))):
        ours = jd.optimize(pool, crit, budget, prior=0.1, tol=1e-6).certificate
        truth = jd.reference.optimize(pool, crit, budget, prior=0.1).certificate
        assert ours.efficiency >= 1 - 1e-6 and truth.efficiency >= 1 - 1e-6
        assert ours.lower_bound <= truth.value + 1e-9 and truth.lower_bound <= ours.value + 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_certificates_hold_for_every_batch_there_is(kind):
    pool = random_pool(6, prompts=3, completions=4)
    (pairs, z), c = listed(pool), expected_information(pool, KINDS[kind])[0]
    shrunk, size = with_residual(pool, KINDS[kind]), 3
    values = [
        -np.linalg.slogdet(0.1 * np.eye(DIM) + np.einsum("s,sd,se->de", c[list(s)], z[list(s)], z[list(s)]))[1]
        for s in itertools.combinations(range(len(pairs)), size)
    ]
    batch = jd.select_pairs(shrunk, jd.LogDet(), jd.Budget(size, per_pair=1), prior=0.1)
    assert batch.certificate.lower_bound <= min(values) + 1e-9 and batch.certificate.value >= min(values) - 1e-7
    assert min(values) == pytest.approx(batch.certificate.value, abs=0.05)


def test_no_variance_is_the_old_answer_bit_for_bit():
    pool, budget = random_pool(7), jd.Budget(9, per_pair=1)
    same = with_residual(pool, 0.0)
    assert same.residual is None and residual_of(pool, 0.0) == jd.Residual()
    old, new = (jd.optimize(one, jd.LogDet(), budget, prior=0.1) for one in (pool, same))
    jax.tree.map(np.testing.assert_array_equal, (new.pairs, new.labels), (old.pairs, old.labels))
    assert new.certificate == old.certificate


@pytest.mark.parametrize("kind", ["noise", "belief", "cap"])
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_float32_is_within_its_bound(kind, size):
    """Columns of sizes 1 to 1e3, turned: forms of the residual cancel, and so do those of G."""
    rng, worst = np.random.default_rng(8), 0.0
    for seed in range(12):
        pool = random_pool(seed, prompts=20, completions=6, dim=6)
        turned = np.linalg.qr(rng.standard_normal((6, 6)))[0] * 10.0 ** rng.uniform(-3, 0, 6)
        rows = np.asarray(pool.features) @ turned
        residual = jd.Residual(**{kind: size * rng.standard_normal((6, 6)) * 10.0 ** rng.uniform(-2, 1, 6)})
        shrunk = jd.CompletionPool(rows.astype(np.float32), pool.scores, pool.mask, residual=residual)
        factors = (rng.standard_normal((6, 6)) * 10.0 ** rng.uniform(-1, 1, 6))[None]
        source = memory_source(shrunk)
        found, error = source.fold(jax.tree_util.Partial(_with, factors.astype(np.float32)), None)[1]
        pairs, z = listed(shrunk)
        p, i, j = pairs.T
        with _arrays.float64():
            c = np.asarray(source.rows(pairs.astype(np.int32)).label_info)[0]
        exact = c * np.sum((z @ factors[0]) ** 2, axis=1)
        worst = max(worst, np.max(np.abs(np.asarray(found, np.float64)[p, i, j] - exact) / np.asarray(error)[p]))
    assert 0 < worst <= 1, worst


def _with(factors, chunk, carry, _):
    return carry, chunk_sensitivities(chunk, factors)


def test_near_pairs_of_far_completions_are_within_it_too():
    """s = 1 of two rows of length 100: float32 has three digits of it, and G looks along another axis."""
    far = np.array([100.37, 101.41, -99.1, -103.9])
    features = np.stack([far, [1.0, -2.0, 0.5, 3.0]], axis=1)[None].astype(np.float32)
    pool = jd.CompletionPool(features, residual=jd.Residual(np.array([[1.0], [0.0]])))
    factor = np.array([[[0.0, 0.0], [0.0, 1.0]]], np.float32)
    found, error = memory_source(pool).fold(jax.tree_util.Partial(_with, factor), None)[1]
    exact = 9.0 / (4 + np.pi / 2 * float(pool.residual.noise[0, 0, 0] - pool.residual.noise[0, 1, 0]) ** 2)
    assert 1e-5 < abs(float(found[0, 0, 1]) - exact) <= float(error[0]) < exact


# ---- who refuses repeats


@pytest.mark.parametrize("kind", KINDS)
def test_repeats_of_a_pair_are_refused_in_words(kind):
    pool, crit, many = with_residual(random_pool(9), KINDS[kind]), jd.LogDet(), jd.Budget(5, per_pair=2)
    pair = np.array([[0, 0, 2]])
    calls = {
        "budget.per_pair=None": [
            lambda: jd.optimize(pool, crit, jd.Budget(5), prior=0.1),
            lambda: jd.label_curve(pool, crit, jd.Budget(5), [3, 5], prior=0.1),
            lambda: jd.baselines.bait(pool, crit, jd.Budget(5), prior=0.1),
            lambda: frank_wolfe(pool, crit, jd.Budget(5), prior=0.1),
        ],
        "budget.per_pair=2": [
            lambda: jd.select_pairs(pool, crit, many, prior=0.1),
            lambda: jd.evaluate(pool, crit, many, pair, np.array([5.0]), prior=0.1),
            lambda: jd.optimize(memory_source(pool), crit, many, prior=0.1),
            lambda: jd.reference.optimize(pool, crit, many, prior=0.1),
        ],
        "per_pair=None": [lambda: jd.greedy(pool, crit, size=3, per_pair=None)],
        "labels: 2 of the pair": [lambda: jd.held_information(pool, np.repeat(pair, 2, axis=0))],
    }
    for words, those in calls.items():
        for call in those:
            with pytest.raises(ValueError, match=f"{words}.*repeats carry less than their sum.*(use|count)"):
                call()


def test_a_belief_alone_allows_them():
    pool = random_pool(10)
    known = jd.CompletionPool(pool.features, pool.scores, pool.mask, residual=jd.Residual(belief=np.eye(DIM)))
    design = jd.optimize(known, jd.LogDet(), jd.Budget(5), prior=0.1)
    assert design.labels.max() > 1
    assert residual_of(pool, 0.0, belief=np.eye(DIM)).one_label is False


@pytest.mark.parametrize(
    ("residual", "error", "words"),
    [
        (2.0, TypeError, "residual: expected jaxdesign.Residual, found float; residual_of makes one"),
        (jd.Residual(np.eye(2)), ValueError, "residual.noise: shape .2,. found; expected .3,. rows"),
        (jd.Residual(cap=np.full((DIM, 1), np.nan)), ValueError, "residual.cap: .*nan"),
        (jd.Residual(belief=np.ones((DIM, 1), int)), TypeError, "residual.belief: dtype int64"),
    ],
)
def test_what_is_no_residual_is_refused(residual, error, words):
    pool = random_pool(0)
    with pytest.raises(error, match=words):
        jd.CompletionPool(pool.features, residual=residual, mask=pool.mask)


@pytest.mark.parametrize(
    ("variance", "words"), [("caps", "'cap'"), (-1.0, "at least 0"), (np.nan, "finite"), (np.inf, "finite")]
)
def test_what_is_no_variance_is_refused(variance, words):
    with pytest.raises(ValueError, match=words):
        residual_of(random_pool(0), variance)


# ---- the same in other forms


def changed(pool, how, rng):
    """The same problem in other units, another basis, another order, or with something added to every prompt."""
    features, scores, mask = (np.asarray(a) for a in (pool.features, pool.scores, pool.mask))
    order = np.arange(len(features))
    if how == "units":
        features = features * np.array([2.0**20, 1.0, 2.0**-30], np.float32)
    elif how == "basis":
        features = (features.astype(np.float64) @ np.linalg.qr(rng.standard_normal((DIM, DIM)))[0]).astype(np.float32)
    elif how == "order":
        order = rng.permutation(len(features))
        features, scores, mask = features[order], scores[order], mask[order]
    else:
        features = features + np.float32(8)
    return jd.CompletionPool(features, scores, mask), order


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["units", "basis", "order", "shift"])
def test_information_is_that_of_the_problem_and_not_of_its_form(how, kind):
    pool = random_pool(11)
    other, order = changed(pool, how, np.random.default_rng(0))
    pairs = listed(pool)[0]
    place = np.argsort(order)[pairs[:, 0]]
    found = jd.label_information(with_residual(other, KINDS[kind]), np.column_stack([place, pairs[:, 1:]]))
    np.testing.assert_allclose(found, jd.label_information(with_residual(pool, KINDS[kind]), pairs), rtol=2e-5)


def test_designs_do_not_know_units():
    pool, units = random_pool(12), np.array([2.0**20, 1.0, 2.0**-30])
    other, _ = changed(pool, "units", None)
    given = jd.LogDet(), jd.Budget(9, per_pair=1)
    found = jd.optimize(with_residual(other, 1.0), *given, prior=0.1 * np.diag(units**2), tol=1e-6)
    truth = jd.optimize(with_residual(pool, 1.0), *given, prior=0.1, tol=1e-6)
    assert found.certificate.value - truth.certificate.value == pytest.approx(20 * np.log(2.0), abs=2e-5)


def test_a_pool_in_its_range_keeps_what_it_says():
    features, scores, mask = (np.asarray(getattr(random_pool(13), name)) for name in ("features", "scores", "mask"))
    wide = np.concatenate([features, features[..., :1] - features[..., 1:2]], axis=-1)
    pool = jd.CompletionPool(wide, scores, mask)
    shrunk = jd.CompletionPool(wide, scores, mask, residual=residual_of(pool, 1.0))
    narrow, basis = jd.restrict_to_range(shrunk)
    assert narrow.dim == DIM and basis.shape == (DIM + 1, DIM)
    pairs = listed(pool)[0]
    np.testing.assert_array_equal(*(jd.label_information(one, pairs) for one in (shrunk, narrow)))
    again = with_residual(jd.restrict_to_range(pool)[0], 1.0)
    np.testing.assert_allclose(*(jd.label_information(one, pairs) for one in (again, narrow)), rtol=1e-5)


def test_float64_is_float32_with_more_digits():
    pool = random_pool(14)
    pairs = listed(pool)[0]
    low = jd.label_information(with_residual(pool, 1.0), pairs)
    with jax.enable_x64(True):
        wide = jd.CompletionPool(np.asarray(pool.features, np.float64), np.asarray(pool.scores, np.float64), pool.mask)
        high = jd.label_information(with_residual(wide, 1.0), pairs)
        assert high.dtype == np.float64
        np.testing.assert_allclose(high, expected_information(pool, 1.0)[0], rtol=1e-6)
    np.testing.assert_allclose(low, high, rtol=3e-6)


def test_it_passes_through_jit_and_vmap():
    pool = random_pool(15)
    residual, features = residual_of(pool, 1.0), jnp.asarray(pool.features)

    def information(features, noise):
        one = jd.CompletionPool(features, pool.scores, pool.mask, residual=jd.Residual(noise))
        return jd.pair_sensitivities(one, jnp.eye(DIM))

    noise = jnp.asarray(residual.noise, jnp.float32)
    expected = jd.pair_sensitivities(with_residual(pool, 1.0), np.eye(DIM))
    np.testing.assert_allclose(jax.jit(information)(features, noise), expected, rtol=2e-5, atol=1e-6)
    both = jax.vmap(information, (None, 0))(features, jnp.stack([noise, 0 * noise]))
    np.testing.assert_allclose(both[0], expected, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(both[1], jd.pair_sensitivities(pool, np.eye(DIM)), rtol=2e-5, atol=1e-6)


def test_a_pool_that_is_read_says_what_the_pool_in_memory_says():
    pool = random_pool(16, "yes", "pair", prompts=12)
    given = {name: np.asarray(getattr(pool, name)) for name in ("features", "scores", "mask", "flip")}
    read = streamed_source(**given, chunk=5)
    residual = residual_of(read, 1.0)
    np.testing.assert_allclose(residual.noise, residual_of(pool, 1.0).noise, rtol=1e-5, atol=1e-6)
    read, held = streamed_source(**given, chunk=5, residual=residual), jd.CompletionPool(**given, residual=residual)
    pairs = np.zeros((4096, 3), np.int32)
    some = listed(pool)[0]
    pairs[: len(some)] = some
    np.testing.assert_allclose(read.rows(pairs).label_info, memory_source(held).rows(pairs).label_info, rtol=1e-6)
    budget = jd.Budget(12, per_pair=1)
    designs = [jd.optimize(one, jd.LogDet(), budget, prior=0.1, tol=1e-5) for one in (read, held)]
    np.testing.assert_allclose(*(design.certificate.value for design in designs), rtol=1e-5)
    with pytest.raises(ValueError, match=r"budget.per_pair=None: the pool has a residual"):
        jd.optimize(read, jd.LogDet(), jd.Budget(12), prior=0.1)
