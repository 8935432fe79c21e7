"""EM of reliability: its steps by hand, the likelihood it climbs, the truth it recovers, what it feeds back."""

from itertools import pairwise

import jax
import numpy as np
import pytest
from scipy.integrate import fixed_quad
from scipy.optimize import minimize
from scipy.special import xlogy

from jaxdesign import Budget, CompletionPool, LogDet, label_information, select_pairs
from jaxdesign.preference.fit import reliability
from jaxdesign.preference.fit.bradley_terry import fit_bradley_terry
from jaxdesign.preference.fit.reliability import estimate_reliability, flip_of, reliable_annotators, with_estimated_flip
from jaxdesign.preference.labels.labels import FIRST, SECOND, SKIP, TIE, Labels, as_labels, concatenated, counted
from jaxdesign.preference.simulation.annotators import make_annotators, simulate_labels

ETA = np.array([0.98, 0.9, 0.75, 0.6])


def a_pool(seed=0, prompts=30, completions=4, dim=4):
    return CompletionPool(np.random.default_rng(seed).standard_normal((prompts, completions, dim)))


def a_truth(pool, seed=0, size=2.0):
    w = np.random.default_rng(seed + 100).standard_normal(pool.dim)
    return size * w / np.linalg.norm(w) * np.sqrt(pool.dim) / 2


def judged(pool, truth, eta, repeats, seed=0, **options):
    """Every pair labelled `repeats` times by every annotator."""
    i, j = np.triu_indices(pool.completions, 1)
    pairs = np.array([(p, a, b) for p in range(pool.num_prompts) for a, b in zip(i, j, strict=True)], np.int32)
    rows = np.tile(np.repeat(pairs, len(eta), axis=0), (repeats, 1))
    who = np.tile(np.arange(len(eta)), len(pairs) * repeats)
    rewards = np.asarray(pool.features) @ truth
    crew = make_annotators(flip=1 - np.asarray(eta), **options)
    return simulate_labels(jax.random.key(seed), rewards, rows, crew, who=who)


def differences(pool, pairs):
    features, (p, i, j) = np.asarray(pool.features, np.float64), np.asarray(pairs).T
    return features[p, i] - features[p, j]


def log_likelihood(pool, labels, w, eta):
    """Written out label by label; a tie is half a clean label each way."""
    u = differences(pool, labels.pairs) @ w
    p = 1 / (1 + np.exp(-u))
    q = eta[labels.annotators] * p + (1 - eta[labels.annotators]) * (1 - p)
    each = {FIRST: np.log(q), SECOND: np.log(1 - q), TIE: (np.log(p) + np.log(1 - p)) / 2, SKIP: 0 * p}
    return sum(each[code][labels.choices == code].sum() for code in each)


@pytest.fixture(scope="module")
def crowd():
    pool = a_pool()
    truth = a_truth(pool)
    labels = judged(pool, truth, ETA, 4)
    return pool, truth, labels, estimate_reliability(pool, labels)


def test_true_reliabilities_are_recovered(crowd):
    pool, truth, labels, found = crowd
    assert found.converged and found.iterations < 200
    assert (np.abs(found.eta - ETA) < 4 * found.standard_error).all()
    assert (np.abs(found.eta - ETA) < 0.06).all() and (found.standard_error < 0.04).all()
    error = found.parameter - truth
    assert error @ found.information @ error < 20  # chi-square of 4 degrees of freedom
    # who is weighed as reliable gives a better reward than everybody alike
    plain = fit_bradley_terry(differences(pool, counted(labels)[0]), *counted(labels)[1:]).parameter
    assert np.linalg.norm(error) < 0.5 * np.linalg.norm(np.asarray(plain) - truth)


@pytest.mark.slow
def test_errors_are_as_large_as_stated():
    """Standardised errors of 12 crowds x 4 annotators, 1,800 labels each: mean square 1 +- 0.2."""
    pool, eta = a_pool(1), [0.9, 0.8, 0.7, 0.6]
    found = [estimate_reliability(pool, judged(pool, a_truth(pool, 1), eta, 10, seed=seed)) for seed in range(12)]
    squares = [((one.eta - eta) / one.standard_error) ** 2 for one in found]
    assert abs(np.mean(squares) - 1) < 3 * 0.2


def test_the_likelihood_never_falls(crowd):
    *_, found = crowd
    steps = np.diff(found.log_likelihood)
    assert (steps > -1e-9).all() and steps[0] > 1 and len(steps) == found.iterations


def test_the_likelihood_is_that_of_the_labels_and_its_maximum():
    pool = a_pool(2, prompts=6, dim=3)
    labels = judged(pool, a_truth(pool, 2), [0.95, 0.7], 4, tie=0.3, skip=0.1)
    assert set(labels.choices.tolist()) == {FIRST, SECOND, TIE, SKIP}
    found = estimate_reliability(pool, labels, tol=1e-9, max_iterations=5000)
    np.testing.assert_allclose(found.log_likelihood[-1], log_likelihood(pool, labels, found.parameter, found.eta))

    def loss(x):
        return -log_likelihood(pool, labels, x[:3], 1 / (1 + np.exp(-x[3:])))

    best = minimize(loss, np.array([*found.parameter, 1.0, 1.0]) + 0.1, tol=1e-10)
    np.testing.assert_allclose(best.fun, -found.log_likelihood[-1], rtol=1e-7)
    np.testing.assert_allclose(1 / (1 + np.exp(-best.x[3:])), found.eta, atol=1e-3)


def test_one_step_by_hand():
    """One pair, z = 1: five say first, two say second, by two annotators; eta starts at 0.8 and 0.6."""
    pool = CompletionPool(np.array([[[1.0], [0.0]]]))
    labels = as_labels([(0, 0, 1)] * 7, [FIRST] * 4 + [SECOND] + [FIRST, SECOND], [0] * 5 + [1] * 2)
    found = estimate_reliability(pool, labels, start=[0.8, 0.6], max_iterations=1)
    p = 5 / 7  # the first fit of w takes the labels as they are
    right = {
        (e, c): (q := p if c == FIRST else 1 - p) * e / (q * e + (1 - q) * (1 - e)) for e in (0.8, 0.6) for c in (0, 1)
    }
    np.testing.assert_allclose(found.eta[0], (4 * right[0.8, FIRST] + right[0.8, SECOND]) / 5)
    np.testing.assert_allclose(found.eta[1], (right[0.6, FIRST] + right[0.6, SECOND]) / 2)
    wins = 4 * right[0.8, FIRST] + 1 - right[0.8, SECOND] + right[0.6, FIRST] + 1 - right[0.6, SECOND]
    np.testing.assert_allclose(found.parameter, np.log(wins / (7 - wins)), rtol=1e-6)
    assert found.iterations == 1 and not found.converged


def test_an_average_over_steps_leads_to_the_same_place_slowly(crowd):
    pool, _, labels, plain = crowd
    found = estimate_reliability(pool, labels, ema=0.3, max_iterations=2000)
    assert found.converged and found.iterations > plain.iterations
    np.testing.assert_allclose(found.eta, plain.eta, atol=2e-4)


def test_perfect_annotators_are_found_perfect():
    pool = a_pool(3)
    labels = judged(pool, a_truth(pool, 3, size=4.0), [1.0] * 4, 5)
    found = estimate_reliability(pool, labels)
    assert (found.eta > 0.985).all()
    assert np.nanmin(found.responsibilities) > 0.2 and np.nanmean(found.responsibilities) > 0.985


def test_taken_as_perfect_the_fit_is_bradley_terry():
    pool = a_pool(4)
    labels = judged(pool, a_truth(pool, 4), [0.9, 0.8, 0.8, 0.8], 2, tie=0.4)
    found = estimate_reliability(pool, labels, pseudo_labels=(1e12, 0.0), prior=0.3)
    pairs, wins, counts = counted(labels)
    plain = fit_bradley_terry(differences(pool, pairs), wins, counts, prior=0.3)
    np.testing.assert_allclose(found.parameter, plain.parameter, atol=1e-6)
    np.testing.assert_allclose(found.information, plain.information, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.eta, 1, atol=1e-9)
    np.testing.assert_allclose(found.responsibilities[labels.choices < TIE], 1, atol=1e-6)


def test_the_mirror_image_is_as_likely_and_the_start_chooses(crowd):
    pool, _, labels, found = crowd
    mirrored = Labels(labels.pairs, 1 - labels.choices, labels.annotators)
    other = estimate_reliability(pool, mirrored)
    np.testing.assert_allclose(other.parameter, -found.parameter, atol=1e-5)
    np.testing.assert_allclose(other.eta, found.eta, atol=1e-5)
    same = log_likelihood(pool, labels, -found.parameter, 1 - found.eta)
    np.testing.assert_allclose(same, log_likelihood(pool, labels, found.parameter, found.eta))


def test_an_adversarial_annotator_is_noticed_and_kept_out_of_designs():
    pool = a_pool(5)
    truth = a_truth(pool, 5)
    labels = judged(pool, truth, [0.95, 0.9, 0.9, 0.9], 3)
    turned = (labels.annotators == 2) & (labels.choices <= SECOND)
    labels = labels._replace(choices=np.where(turned, 1 - labels.choices, labels.choices).astype(np.int8))
    found = estimate_reliability(pool, labels)
    assert abs(found.eta[2] - 0.1) < 0.06 and abs(found.eta[0] - 0.95) < 0.06
    assert flip_of(found.eta)[2] == 0.49 and abs(flip_of(found.eta)[0] - (1 - found.eta[0])) < 1e-12


def test_ties_and_skips_say_nothing_about_reliability(crowd):
    pool, _, labels, found = crowd
    pairs = labels.pairs[:6]
    skips = as_labels(pairs, [SKIP] * 6, [0] * 6)
    again = estimate_reliability(pool, concatenated(labels, skips))
    np.testing.assert_allclose(again.eta, found.eta, atol=1e-7)
    assert np.isnan(again.responsibilities[-6:]).all() and np.isfinite(again.responsibilities[:-6]).all()
    silent = estimate_reliability(pool, concatenated(labels, as_labels(pairs, [TIE] * 6, [5] * 6)), annotators=7)
    assert np.isnan(silent.eta[4:]).all() and silent.annotators.tolist() == list(range(7))
    np.testing.assert_allclose(silent.standard_error[4:], 1 / np.sqrt(12))  # the flat prior's
    np.testing.assert_allclose(silent.posterior_mean[4:], 0.5)
    assert (flip_of(silent.eta)[4:] == 0.49).all()
    np.testing.assert_allclose(silent.eta[:4], found.eta, atol=0.01)


def test_nothing_is_known_about_eta_where_margins_are_zero():
    """Labels that cancel: w = 0, and any eta is as good."""
    pool = CompletionPool(np.array([[[1.0], [0.0]]]))
    found = estimate_reliability(pool, as_labels([(0, 0, 1)] * 4, [FIRST, SECOND] * 2))
    assert abs(found.parameter[0]) < 1e-9
    assert found.standard_error[0] == pytest.approx(1 / np.sqrt(12)) and found.posterior_mean[0] == pytest.approx(0.5)


def test_pseudo_labels_keep_the_few_from_the_ends():
    pool = a_pool(6)
    labels = judged(pool, a_truth(pool, 6, size=4.0), [1.0, 0.8], 2)
    few = as_labels(labels.pairs[:1], [labels.choices[0]], [2])
    held = estimate_reliability(pool, concatenated(labels, few), pseudo_labels=(9.0, 1.0))
    assert 0.85 < held.eta[2] < 0.95 and (np.diff(held.log_likelihood) > -1e-9).all()
    assert abs(held.eta[1] - 0.8) < 0.07


def test_responsibilities_tell_reversed_labels_from_straight_ones():
    pool = a_pool(7)
    truth = a_truth(pool, 7, size=6.0)
    labels = judged(pool, truth, [0.8] * 4, 1)
    found = estimate_reliability(pool, labels)
    u = differences(pool, labels.pairs) @ truth
    clear = np.abs(u) > 4
    straight = (labels.choices == FIRST) == (u > 0)
    assert (
        found.responsibilities[clear & straight].min() > 0.9 and found.responsibilities[clear & ~straight].max() < 0.3
    )


# ---- how well eta is known


def plain_pool(prompts=30):
    """Pairs (p, 0, 1) that all differ by 1."""
    rows = np.zeros((prompts, 2, 1), np.float32)
    rows[:, 0] = 1
    return CompletionPool(rows)


def sure(labels_of, pseudo=(0.0, 0.0)):
    """Annotators 2, 3 ... beside two who have settled that the first is better: p = sigma(w) close to 1."""
    pairs = [(p, 0, 1) for p in range(30)]
    extra = [
        (pairs[k], choice, 2 + a)
        for a, (right, wrong) in enumerate(labels_of)
        for k, choice in enumerate([FIRST] * right + [SECOND] * wrong)
    ]
    rows = pairs * 20 + [pair for pair, *_ in extra]
    choices = [FIRST] * 600 + [choice for _, choice, _ in extra]
    who = np.r_[np.repeat([0, 1], 300), [a for *_, a in extra]].astype(int)
    return estimate_reliability(plain_pool(), as_labels(rows, choices, who), prior=1e-6, pseudo_labels=pseudo)


def test_few_labels_leave_what_a_beta_prior_leaves():
    """At p = 1 the posterior is Beta(1 + a + right, 1 + b + wrong). A curvature at eta = 1 said 0.035 for one label."""
    few = [(1, 0), (3, 0), (4, 1), (2, 6), (0, 1)]
    for pseudo in ((0.0, 0.0), (4.0, 0.5)):
        found = sure(few, pseudo)
        for k, (right, wrong) in enumerate(few):
            a, b = 1 + pseudo[0] + right, 1 + pseudo[1] + wrong
            assert found.posterior_mean[2 + k] == pytest.approx(a / (a + b), abs=1e-3)
            assert found.standard_error[2 + k] == pytest.approx(np.sqrt(a * b / (a + b) ** 2 / (a + b + 1)), rel=0.06)
    assert sure([(1, 0)]).standard_error[2] == pytest.approx(0.2357, abs=5e-3)


def of_piece(log_density, low, high, top, middle, power):
    def density(etas):
        return np.array([np.exp(log_density(eta) - top) * (eta - middle) ** power for eta in etas])

    return fixed_quad(density, low, high, n=4)[0]


def test_the_posterior_of_eta_is_its_integral():
    """Against SciPy's quadrature in 360 pieces, label by label, with margins and numbers of labels of any size."""
    rng = np.random.default_rng(0)
    sizes = [1, 3, 40, 3000]
    who = np.repeat(np.arange(4), sizes)
    margins = 3 * rng.standard_normal(len(who))
    seen = rng.integers(0, 3, (len(who), 2)).astype(float)
    seen[who == 3, 1] = 0  # mode at an end
    margins[who == 3] = np.abs(margins[who == 3]) + 5
    for pseudo in (np.zeros(2), np.array([2.5, 0.3])):
        mean, variance = reliability._eta_posterior(margins, seen, who, pseudo, 4)
        for k in range(4):
            p = 1 / (1 + np.exp(-margins[who == k]))

            def log_density(eta, p=p, k=k, pseudo=pseudo):
                q = eta * p + (1 - eta) * (1 - p)
                data = (seen[who == k] * np.log(np.stack([q, 1 - q], axis=1))).sum()
                return data + xlogy(pseudo[0], eta) + xlogy(pseudo[1], 1 - eta)

            grid = np.r_[np.linspace(1e-9, 1 - 1e-9, 301), 1 - np.logspace(-2.2, -8, 60)]
            top = max(log_density(eta) for eta in grid)
            nodes = np.sort(np.r_[0, grid, 1])
            pieces = list(pairwise(nodes))
            values = [np.array([of_piece(log_density, *piece, top, mean[k], n) for piece in pieces]) for n in range(3)]
            total, first, second = (v.sum() for v in values)
            assert abs(first / total) < 1e-4 * np.sqrt(variance[k])
            assert variance[k] == pytest.approx(second / total, rel=1e-4)


def test_the_error_is_the_joint_one_where_w_is_uncertain_and_never_beyond_the_prior():
    """Large numbers: the inverse of the joint information of (w, eta), by differences of the likelihood."""
    pool = a_pool(1, prompts=6, dim=3)
    labels = judged(pool, a_truth(pool, 2), [0.9, 0.7], 400)
    found = estimate_reliability(pool, labels, tol=1e-9, max_iterations=5000)
    x, step = np.r_[found.parameter, found.eta], 1e-4
    joint = np.empty((5, 5))
    for a, b in np.ndindex(5, 5):
        ea, eb = step * np.eye(5)[a], step * np.eye(5)[b]
        f = [log_likelihood(pool, labels, y[:3], y[3:]) for y in (x + ea + eb, x + ea - eb, x - ea + eb, x - ea - eb)]
        joint[a, b] = -(f[0] - f[1] - f[2] + f[3]) / (4 * step**2)
    np.testing.assert_allclose(found.standard_error, np.sqrt(np.diagonal(np.linalg.inv(joint))[3:]), rtol=0.1)
    alone = 1 / np.sqrt(np.diagonal(joint)[3:])
    assert (found.standard_error > 1.1 * alone).all()
    # one pair, one annotator: w and eta cannot be told apart
    one = estimate_reliability(plain_pool(1), as_labels([(0, 0, 1)] * 50, [FIRST] * 40 + [SECOND] * 10), prior=1e-3)
    assert one.standard_error[0] == pytest.approx(1 / np.sqrt(12), rel=1e-6)


# ---- what used to be NaN, slow or a fixed point


def test_a_coin_among_the_good_is_found_from_any_start():
    """start = 1 was a fixed point: eta = (1, 1, 1) after one step, tens of nats below."""
    rng = np.random.default_rng(0)
    G = rng.normal(size=(100, 2, 3)).astype("f4") * 4
    u = (G[:, 0] - G[:, 1]) @ np.array([1.5, -1, 0.5])
    good = np.where(rng.random((2, 100)) < 1 / (1 + np.exp(-u)), 0, 1)
    pairs = [(p, 0, 1) for p in range(100)]
    coin = as_labels(pairs * 3, np.r_[good[0], good[1], rng.integers(0, 2, 100)], np.repeat([0, 1, 2], 100))
    found = [estimate_reliability(CompletionPool(G), coin, prior=1e-2, start=start) for start in (0.6, 0.9, 0.999)]
    for one in found:
        assert one.converged and abs(one.eta[2] - 0.5) < 0.15 and (one.eta[:2] > 0.9).all()
        np.testing.assert_allclose(one.log_likelihood[-1], found[0].log_likelihood[-1], atol=1e-3)


@pytest.mark.slow
def test_a_small_average_is_not_called_converged(crowd):
    pool, _, labels, _ = crowd
    assert not estimate_reliability(pool, labels, ema=1e-7, max_iterations=400).converged


@pytest.mark.parametrize("who", [[0, 0, 0, 0], pytest.param([0, 0, 1, 1], marks=pytest.mark.slow)])
@pytest.mark.parametrize("count", [1, 4])
def test_labels_that_can_be_separated_give_numbers_and_no_convergence_without_a_prior(count, who):
    labels = as_labels([(p, 0, 1) for p in range(count)], [FIRST] * count, who[:count])
    found = estimate_reliability(plain_pool(), labels)
    assert not found.converged
    for name in ("eta", "standard_error", "parameter", "information", "responsibilities", "log_likelihood"):
        assert np.isfinite(getattr(found, name)).all(), name
    assert (found.eta > 0.99).all() and found.parameter[0] > 10 and found.standard_error[0] > 0.1
    held = estimate_reliability(plain_pool(), labels, prior=1e-2)
    assert held.converged and np.isfinite(held.parameter).all()


def test_numbers_of_annotators_may_be_any(crowd):
    """Arrays are as long as there are annotators, not as their largest number."""
    pool, _, labels, plain = crowd
    numbers = np.array([3, 17, 900_000, 999_999])
    found = estimate_reliability(pool, labels._replace(annotators=numbers[labels.annotators]))
    assert found.annotators.tolist() == numbers.tolist() and plain.annotators.tolist() == [0, 1, 2, 3]
    for name in ("eta", "standard_error", "posterior_mean", "parameter", "responsibilities"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))
    spread = labels._replace(annotators=np.array([0, 2, 3, 5])[labels.annotators])
    found = estimate_reliability(pool, spread, annotators=7, start=[0.9, 0.1, 0.9, 0.9, 0.1, 0.9, 0.1])
    np.testing.assert_array_equal(found.eta[[0, 2, 3, 5]], plain.eta)
    assert np.isnan(found.eta[[1, 4, 6]]).all() and found.annotators.tolist() == list(range(7))


@pytest.mark.parametrize("units", [2.0**-60, 2.0**60, 2.0 ** np.array([-26, 0, 26, 9])])
def test_units_do_not_matter(crowd, units):
    pool, _, labels, _ = crowd
    prior = np.diag([1e-3, 1e-2, 1e-2, 0.1])
    plain = estimate_reliability(pool, labels, prior=prior)
    units = np.broadcast_to(units, 4)
    scaled = CompletionPool(np.asarray(pool.features) * units.astype(np.float32))
    found = estimate_reliability(scaled, labels, prior=prior * np.outer(units, units))
    np.testing.assert_allclose(found.parameter * units, plain.parameter, rtol=1e-9)
    for name in ("eta", "standard_error", "posterior_mean", "log_likelihood"):
        np.testing.assert_allclose(getattr(found, name), getattr(plain, name), rtol=1e-9)
    assert found.converged


# ---- back into designs


def test_the_next_crew_has_the_estimated_noise():
    crew = reliable_annotators([0.97, 0.6, np.nan, 0.2], names=["ann", "bob", "carl", "dan"], cost=[3, 1, 1, 1])
    np.testing.assert_allclose(crew.flip, [0.03, 0.4, 0.49, 0.49])
    assert crew.names == ("ann", "bob", "carl", "dan") and crew.cost.tolist() == [3, 1, 1, 1]


@pytest.mark.slow
def test_the_next_design_buys_from_the_reliable():
    pool = a_pool(8, prompts=20)
    crew = reliable_annotators([0.97, 0.6, np.nan], names=["ann", "bob", "carl"])
    np.testing.assert_allclose(crew.flip, [0.03, 0.4, 0.49])
    design = select_pairs(pool, LogDet(), Budget(40, per_pair=1), prior=0.1, annotators=crew)
    assert np.bincount(design.annotators, design.labels, 3).tolist() == [40, 0, 0]


def test_label_information_takes_the_estimated_noise():
    pool = with_estimated_flip(a_pool(9), [0.9, 0.7], shares=[3, 1])
    np.testing.assert_allclose(label_information(pool, np.array([[0, 0, 1]])), (1 - 2 * 0.15) ** 2 / 4, rtol=1e-6)
    np.testing.assert_allclose(with_estimated_flip(a_pool(9), [0.9, 0.7]).flip, 0.2, rtol=1e-6)


def test_information_is_that_of_the_noisy_labels(crowd):
    """Against the curvature of the likelihood in w at the estimate, which it is the mean of."""
    pool, _, labels, found = crowd
    step, dim = 1e-4, pool.dim
    curvature = np.empty((dim, dim))
    for a in range(dim):
        for b in range(dim):
            ea, eb = step * np.eye(dim)[a], step * np.eye(dim)[b]
            values = [
                log_likelihood(pool, labels, found.parameter + s * ea + t * eb, found.eta)
                for s, t in ((1, 1), (1, -1), (-1, 1), (-1, -1))
            ]
            curvature[a, b] = -(values[0] - values[1] - values[2] + values[3]) / (4 * step**2)
    np.testing.assert_allclose(curvature, found.information, atol=0.12 * np.abs(found.information).max())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start": 0.0}, r"start: 0 found; must be from 0.001 to 0.999"),
        ({"start": 1.0}, r"start: 1 found; must be from 0.001 to 0.999"),
        ({"start": [0.9, 1 - 1e-9]}, r"start: 1 found"),
        ({"start": np.nan}, r"start: nan found"),
        ({"ema": 0.0}, "ema=0"),
        ({"pseudo_labels": (1.0, -1.0)}, "pseudo_labels"),
        ({"annotators": 1}, "labels.annotators: 1"),
        ({"start": [0.9, 0.8, 0.7]}, "start: shape"),
        ({"prior": -1.0}, "prior"),
    ],
)
def test_bad_parameters_are_refused(options, words):
    labels = as_labels([(0, 0, 1), (0, 0, 2)], [FIRST, SECOND], [0, 1])
    with pytest.raises(ValueError, match=words):
        estimate_reliability(a_pool(), labels, **options)


def test_other_refusals():
    with pytest.raises(ValueError, match="no judgement found"):
        estimate_reliability(a_pool(), as_labels([(0, 0, 1)], [SKIP]))
    with pytest.raises(ValueError, match="the pool has 30 prompts"):
        estimate_reliability(a_pool(), as_labels([(30, 0, 1)], [FIRST]))
    with pytest.raises(ValueError, match=r"largest=0.5: must be in \[0, 1/2\)"):
        flip_of([0.9], 0.5)
    with pytest.raises(ValueError, match="shares"):
        with_estimated_flip(a_pool(), [0.9, 0.8], shares=[0, 0])
    with pytest.raises(ValueError, match=r"shares: .* must be finite"):
        with_estimated_flip(a_pool(), [0.9, 0.8], shares=[np.inf, 1])
