"""`sampler_shift` against direct optimisation; what changes nothing; where no fit exists; its noise by simulation."""

import jax
import numpy as np
import pytest
from scipy import special, stats

from jaxdesign import CompletionPool, policy_target
from jaxdesign.dynamics import sampler_shift
from jaxdesign.dynamics.weighted_fits import as_pair_labels, noise, regret, weighted_fit
from jaxdesign.preference.labels.labels import SKIP, TIE, Labels
from tests.support.bent_rewards import all_pairs, bent, directly, labels_of
from tests.support.refusals import check_refusal

BENT = bent(0.5, labels=600)
HELD = BENT.drawn(np.random.default_rng(1))
RNG = np.random.default_rng(2)
TREE = all_pairs(1, 4)[[0, 3, 5]]  # 01, 12, 23
TABULAR = CompletionPool(np.eye(4, 3)[None])
EVEN = np.zeros((1, 4))


def own_target(pool):
    with jax.enable_x64(True):
        return np.asarray(policy_target(pool))


def counts_of(labels):
    """(pair, first, second, tie) by hand."""
    found = {}
    for pair, choice in zip(np.asarray(labels.pairs).tolist(), np.asarray(labels.choices).tolist(), strict=True):
        if choice != SKIP:
            found.setdefault(tuple(pair), [0, 0, 0])[choice] += 1
    return np.array(list(found)), np.array(list(found.values()), float)


def by_hand(problem, labels, temper=1.0):
    """Both fits and the covariance of their difference, label by label."""
    pairs, choices = counts_of(labels)
    place = {tuple(pair): row for row, pair in enumerate(problem.pairs.tolist())}
    at = [place[tuple(pair)] for pair in pairs.tolist()]
    rows, counts = problem.rows[at], choices.sum(1)
    worth = choices @ [1, 0, 0.5] / counts
    weights = (problem.mass()[at] * counts.sum() / counts) ** temper
    fits = [directly(rows, worth, counts * w) for w in (weights, np.ones_like(weights))]
    covariance, inverses = 0, []
    for w, fit in zip((weights, np.ones_like(weights)), fits, strict=True):
        chances = special.expit(rows @ fit)
        inverses.append(np.linalg.inv((rows * (counts * w * chances * (1 - chances))[:, None]).T @ rows))
    for e, z in enumerate(rows):
        for y, number in zip((1, 0, 0.5), choices[e], strict=True):
            psi = weights[e] * inverses[0] @ z * (y - special.expit(z @ fits[0]))
            psi = psi - inverses[1] @ z * (y - special.expit(z @ fits[1]))
            covariance = covariance + number * np.outer(psi, psi)
    return (*fits, covariance)


def same(one, other, rtol=1e-9):
    for name in ("statistic", "degrees", "p_value", "gap", "gap_interval", "effective", "uncovered", "largest_weight"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=rtol, atol=1e-14, err_msg=name)


# ---- by hand


@pytest.mark.parametrize("temper", [0.3, 1.0])
@pytest.mark.parametrize("ties", [0, 2])
def test_fits_shift_noise_test_and_gap_by_hand(temper, ties):
    wins = np.random.default_rng(3).binomial(BENT.counts, BENT.chances)
    labels = labels_of(BENT.pairs, wins, BENT.counts - wins, ties)
    target = np.diag([1.0, 2, 3])
    found = sampler_shift(BENT.pool, labels, BENT.policy, beta=0.2, target=target, temper=temper)
    weighted, plain, covariance = by_hand(BENT, labels, temper)
    np.testing.assert_allclose(found.plain, plain, rtol=1e-9)
    np.testing.assert_allclose(found.weighted, weighted, rtol=1e-9)
    np.testing.assert_allclose(found.shift, weighted - plain, rtol=1e-8)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-8)
    statistic = found.shift @ np.linalg.solve(covariance, found.shift)
    assert (found.statistic, found.degrees) == (pytest.approx(statistic, rel=1e-7), 3)
    assert found.p_value == pytest.approx(stats.chi2.sf(statistic, 3), rel=1e-6) and found.converged
    gap = (found.shift @ target @ found.shift - np.trace(target @ covariance)) / 0.4
    assert found.gap == pytest.approx(gap, rel=1e-7) and found.gap_interval[0] < max(gap, 0) < found.gap_interval[1]


def test_the_default_target_is_the_pools_own():
    given = own_target(BENT.pool)
    same(
        sampler_shift(BENT.pool, HELD, BENT.policy, beta=1.0),
        sampler_shift(BENT.pool, HELD, BENT.policy, beta=1.0, target=given),
    )


def test_limits_of_the_gap_solve_their_equation():
    shift, covariance, metric = np.array([0.5, -0.2]), np.diag([0.02, 0.05]), np.array([[2.0, 0.5], [0.5, 1.0]])
    gap, limits = regret(shift, covariance, metric, 0.25)
    noisy = metric @ covariance
    kappa = shift @ noisy @ metric @ shift / (shift @ metric @ shift)
    assert 2 * gap * 0.25 == pytest.approx(shift @ metric @ shift - np.trace(noisy))
    for limit in np.array(limits) * 0.5:
        assert (0.5 * gap - limit) ** 2 == pytest.approx(
            1.96**2 * (4 * kappa * limit + 2 * np.trace(noisy @ noisy)), 1e-4
        )
    assert regret(0 * shift, covariance, metric, 0.25)[1][0] == 0 < regret(0 * shift, covariance, metric, 0.25)[1][1]


def test_ties_are_less_noisy_than_halves_of_wins():
    """Of nothing but ties nothing varies."""
    ties = labels_of(BENT.pairs, 0 * BENT.counts, 0 * BENT.counts, BENT.counts)
    found = sampler_shift(BENT.pool, ties, BENT.policy, beta=1.0)
    np.testing.assert_allclose(np.r_[found.plain, found.covariance.ravel()], 0, atol=1e-20)
    assert (found.statistic, found.p_value) == (0, 1)


# ---- what changes nothing


@pytest.mark.parametrize("kind", ["rotation", "units"])
def test_another_basis_with_the_target_moved_along(kind):
    basis = np.linalg.qr(RNG.standard_normal((3, 3)))[0] if kind == "rotation" else np.diag([1e-6, 1.0, 1e6])
    target = np.array([[2.0, 0.5, 0], [0.5, 1.0, 0], [0, 0, 0.3]])
    with jax.enable_x64(True):
        moved = CompletionPool(np.asarray(BENT.pool.features) @ basis)
    one = sampler_shift(BENT.pool, HELD, BENT.policy, beta=1.0, target=target)
    other = sampler_shift(moved, HELD, BENT.policy, beta=1.0, target=basis.T @ target @ basis)
    same(one, other)
    np.testing.assert_allclose(basis @ other.shift, one.shift, rtol=1e-8)


def test_order_annotators_and_skips_do_not_matter():
    order = RNG.permutation(len(HELD.choices))
    pairs = np.concatenate([HELD.pairs[order], HELD.pairs[:5]])
    choices = np.concatenate([HELD.choices[order], np.full(5, SKIP, np.int8)])
    turned = Labels(pairs, choices, np.arange(len(choices), dtype=np.int32) % 3)
    one, other = (sampler_shift(BENT.pool, labels, BENT.policy, beta=1.0) for labels in (HELD, turned))
    same(one, other, 0)


def test_a_feature_twice_and_one_that_never_differs():
    with jax.enable_x64(True):
        features = np.asarray(BENT.pool.features)
        more = CompletionPool(np.concatenate([features, 2 * features[..., :1], np.ones((4, 5, 1))], axis=-1))
    one, other = (sampler_shift(pool, HELD, BENT.policy, beta=1.0) for pool in (BENT.pool, more))
    same(one, other, 1e-5)
    np.testing.assert_allclose(other.plain[3:], [2 * other.plain[0], 0], atol=1e-9)  # the shortest of all w
    assert other.degrees == 3


def test_half_precision_features_are_differenced_in_float64():
    half = CompletionPool(np.asarray(BENT.pool.features, np.float16))
    with jax.enable_x64(True):
        full = CompletionPool(np.asarray(half.features, np.float64))
    one, other = (sampler_shift(pool, HELD, BENT.policy, beta=1.0, target=np.eye(3)) for pool in (half, full))
    same(one, other, 1e-12)


def test_what_the_law_says_of_missing_completions_does_not_count():
    features, policy = np.asarray(BENT.pool.features), BENT.policy
    mask = np.concatenate([np.ones((4, 5), bool), np.zeros((4, 1), bool)], axis=1)
    with jax.enable_x64(True):
        padded = CompletionPool(np.concatenate([features, np.full((4, 1, 3), np.nan)], axis=1), mask=mask)
    one = sampler_shift(BENT.pool, HELD, policy, beta=1.0)
    for filler in (5.0, np.nan):
        wide = np.concatenate([policy, np.full((4, 1), filler)], axis=1)
        same(one, sampler_shift(padded, HELD, wide, beta=1.0), 1e-6)
    chances = special.softmax(policy, axis=1)
    masses = np.full((4, 6, 6), 9.0)
    masses[:, :5, :5] = chances[:, :, None] * chances[:, None, :]
    same(one, sampler_shift(padded, HELD, masses, beta=1.0), 1e-6)


# ---- nothing to see


def test_equal_weights_move_nothing():
    """Also where rounding makes them unequal in the last digit."""
    for labels in (labels_of(all_pairs(1, 4), np.full(6, 3), np.full(6, 4)), labels_of(TREE, [7] * 3, [3] * 3)):
        for law in (EVEN, EVEN + 0.1):
            found = sampler_shift(TABULAR, labels, law, beta=1.0)
            np.testing.assert_allclose(np.r_[found.shift, found.covariance.ravel()], 0, atol=1e-14)
            assert (found.degrees, found.statistic, found.p_value) == (0, 0, 1)
            assert found.effective == pytest.approx(1) and found.largest_weight == pytest.approx(1)


@pytest.mark.slow
def test_as_many_parameters_as_pairs_leave_nothing_to_test():
    """A tree of pairs is fitted exactly with any weights, and so are fewer pairs than features."""
    tree = sampler_shift(TABULAR, labels_of(TREE, [5, 7, 3], [3, 4, 2]), np.log([[0.4, 0.3, 0.2, 0.1]]), beta=1.0)
    with jax.enable_x64(True):
        wide = CompletionPool(RNG.standard_normal((4, 5, 40)))
    stars = BENT.pairs[BENT.pairs[:, 1] == 0]
    few = sampler_shift(wide, labels_of(stars, [3] * 16, [4] * 16), BENT.policy, beta=1.0)
    two = sampler_shift(CompletionPool(np.eye(2, 1)[None]), labels_of([[0, 0, 1]], [3], [5]), EVEN[:, :2], beta=1.0)
    for found in (tree, few, two):
        assert (found.degrees, found.statistic, found.p_value, found.converged) == (0, 0, 1, True)
    np.testing.assert_allclose(two.plain, [np.log(3 / 5)], rtol=1e-12)


def test_uncovered_mass_is_that_of_pairs_without_labels():
    found = sampler_shift(TABULAR, labels_of(TREE, [5, 7, 3], [3, 4, 2]), EVEN, beta=1.0)
    assert found.uncovered == pytest.approx(0.5, rel=1e-12)
    law = np.array([[0, -300.0, 0, -np.inf]])
    drawn = sampler_shift(TABULAR, labels_of(TREE[:2], [5, 7], [3, 4]), EVEN, beta=1.0, drawn_law=law)
    assert drawn.uncovered == pytest.approx(0.5, rel=1e-12)  # three of the six could be drawn, though hardly


def test_directions_that_the_law_does_not_speak_of_do_not_count():
    """The law asks for answers 0 and 1 only: that of 2 and 3 is no shift, though their labels have a fit."""
    wins, losses = np.array([6, 7, 8, 3, 9, 5]), np.array([5, 3, 2, 4, 1, 6])
    law = np.array([[0.0, 0.0, -np.inf, -np.inf]])
    found = sampler_shift(TABULAR, labels_of(all_pairs(1, 4), wins, losses), law, beta=1.0)
    only = np.log(wins[0] / losses[0])
    assert found.degrees == 1 and found.converged
    assert found.shift @ [1, -1, 0] == pytest.approx(only - found.plain @ [1, -1, 0], rel=1e-9)
    assert found.weighted @ [1, -1, 0] == pytest.approx(only, rel=1e-9)


# ---- no fit


@pytest.mark.parametrize("many", [3, 1000, 20_000])
def test_separated_labels_have_no_number(many):
    """Answer 2 never wins: however many labels the others have, its score is not finite."""
    pairs = all_pairs(1, 4)[[0, 1, 2]]
    found = sampler_shift(TABULAR, labels_of(pairs, [many, 3, many], [many, 0, many]), EVEN, beta=1.0)
    assert not found.converged and found.degrees == 0
    for value in (
        found.plain,
        found.weighted,
        found.shift,
        found.covariance,
        found.statistic,
        found.p_value,
        found.gap,
    ):
        assert np.isnan(value).all()
    assert np.isnan(found.gap_interval).all() and found.effective > 0
    tied = sampler_shift(TABULAR, labels_of(pairs, [many, 3, many], [many, 0, many], [0, 1, 0]), EVEN, beta=1.0)
    assert tied.converged and tied.plain @ [-1, 0, 1] == pytest.approx(-np.log(7), rel=1e-9)


def test_a_law_without_mass_on_any_label_has_no_number():
    law = np.array([[-np.inf, -np.inf, 0.0, 0.0]])
    found = sampler_shift(TABULAR, labels_of(TREE[:2], [5, 7], [3, 4]), law, beta=1.0)
    assert (found.converged, found.effective, found.uncovered) == (False, 0, 1)
    assert np.isfinite(found.plain).all() and np.isnan(found.weighted).all() and np.isnan(found.largest_weight)


# ---- refusals


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"beta": 0.0}, ["beta", "price of KL"]),
        ({"temper": 2.0}, ["temper=2", "[0, 1]"]),
        ({"target": np.eye(2)}, ["target: shape (2, 2)", "(3, 3)"]),
        ({"target_law": np.zeros((2, 4))}, ["target_law: shape (2, 4)", "(1, 4)", "pool"]),
        ({"drawn_law": np.zeros((1, 5))}, ["drawn_law: shape (1, 5)", "(1, 4)"]),
        ({"target_law": np.zeros((1, 4, 5))}, ["target_law: shape (1, 4, 5)"]),
        ({"labels": Labels(TREE, np.full(3, SKIP), np.zeros(3, int))}, ["labels: none found", "skips"]),
        ({"labels": labels_of([[0, 1, 4]], [1], [1])}, ["labels.pairs:", "does not have"]),
        ({"pool": CompletionPool(np.ones((1, 4, 3)))}, ["labels.pairs:", "equal features"]),
        (
            {"pool": CompletionPool(np.eye(4, 3)[None], mask=np.array([[True, True, True, False]]))},
            ["labels.pairs:", "does not have"],
        ),
    ],
)
def test_refusals_name_the_argument(change, words):
    given = {"pool": TABULAR, "labels": labels_of(TREE, [5, 7, 3], [3, 4, 2]), "target_law": EVEN, "beta": 1.0} | change
    pool, labels, law = (given.pop(name) for name in ("pool", "labels", "target_law"))
    check_refusal(lambda: sampler_shift(pool, labels, law, **given), ValueError, words)


def test_traced_arguments_are_refused():
    def call(law):
        return sampler_shift(TABULAR, labels_of(TREE, [5, 7, 3], [3, 4, 2]), law, beta=1.0)

    check_refusal(lambda: jax.jit(call)(EVEN), TypeError, ["sampler_shift", "outside of jit"])


# ---- by simulation


def simulated(problem, runs, tie=0.0, seed=0):
    """Shifts of labels of fixed counts; a share of them are ties, whatever the pair."""
    rng, found = np.random.default_rng(seed), []
    target = own_target(problem.pool)
    for _ in range(runs):
        labels = problem.drawn(rng)
        choices = np.where(rng.random(len(labels.choices)) < tie, TIE, labels.choices).astype(np.int8)
        found.append(
            sampler_shift(problem.pool, labels._replace(choices=choices), problem.policy, beta=0.5, target=target)
        )
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("bend", "tie", "largest"), [(0.0, 0.0, 1.15), (0.0, 0.4, 1.15), (0.3, 0.0, 1.25)])
def test_the_covariance_is_that_of_fits(bend, tie, largest):
    """300 fits know a variance within 8%; where the model is wrong, misfits make the sandwich a little too large."""
    found = simulated(bent(bend), 300, tie)
    ratio = np.mean([shift.covariance for shift in found], axis=0).diagonal() / np.var([s.shift for s in found], axis=0)
    assert (ratio > 0.85).all() and (ratio < largest).all()


@pytest.mark.slow
def test_the_test_has_its_size_and_power():
    rejected = {bend: np.mean([s.p_value < 0.05 for s in simulated(bent(bend), 400)]) for bend in (0.0, 0.4)}
    assert 0.02 < rejected[0.0] < 0.09 and rejected[0.4] > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("bend", [0.1, 0.2, 0.5])
def test_limits_of_the_gap_cover_that_of_the_limits(bend):
    problem = bent(bend)
    apart = directly(problem.rows, problem.chances, problem.mass())
    apart = apart - directly(problem.rows, problem.chances, problem.counts / problem.counts.sum())
    truth = apart @ own_target(problem.pool) @ apart
    found = simulated(problem, 300)
    assert np.mean([low <= truth <= high for low, high in (shift.gap_interval for shift in found)]) > 0.91
    gaps = np.array([shift.gap for shift in found])
    assert abs(gaps.mean() - truth) < 4 * gaps.std() / np.sqrt(len(gaps)) + 0.1 * truth


@pytest.mark.thorough
def test_noise_of_a_single_fit_is_that_of_pairs_drawn_with_their_labels():
    """Pairs drawn from a law of which the weights know: the sandwich without anything left over."""
    problem, rng, fits, said = bent(0.6, labels=1500), np.random.default_rng(4), [], []
    law = problem.counts / problem.counts.sum()
    for _ in range(300):
        problem = problem._replace(counts=rng.multinomial(1500, law))
        data = as_pair_labels(problem.pool, problem.drawn(rng))
        at = [tuple(pair) for pair in data.pairs.tolist()]
        weights = np.array([m / q for pair, m, q in zip(problem.pairs.tolist(), problem.mass(), law, strict=True)
                            if tuple(pair) in at])  # fmt: skip
        fit = weighted_fit(data, weights)
        fits.append(data.basis @ fit.parameter)
        said.append(data.basis @ noise(data, (1.0, fit)) @ data.basis.T)
    ratio = np.mean(said, axis=0).diagonal() / np.var(fits, axis=0)
    assert (ratio > 0.82).all() and (ratio < 1.18).all()
