"""What finite rounds do: a known floor, the Lyapunov equation, and rounds of binomial labels simulated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdesign.dynamics import LoopPlan, fixed_point, round_noise, stability
from jaxdesign.dynamics.one_round import jacobian
from tests.support.rounds import centred, close, divergence_from, law_by_hand, scores_by_hand, softmax, used
from tests.support.tournaments import M4, REFERENCE, cycle, law_of, random_preferences

GENERAL = LoopPlan(0.6, 2.0, 0.7, reference=REFERENCE)
KINDS = [(loss, mix) for loss in ("ipo", "dpo") for mix in ("answers", "pairs")]


def sandwich(preferences, plan):
    """Covariance of log pi that one label a round adds, from the pairs one by one, and the Jacobian."""
    x = centred(fixed_point(preferences, plan).log_policy)
    law = law_by_hand(x, plan)
    gaps = np.subtract.outer(*[scores_by_hand(preferences, law, plan.loss)] * 2)
    mean = 0.5 + gaps if plan.loss == "ipo" else 1 / (1 + np.exp(-gaps))
    slope = np.ones_like(gaps) if plan.loss == "ipo" else mean * (1 - mean)
    hessian, middle = np.zeros_like(law), np.zeros_like(law)
    for i, j in zip(*np.triu_indices(len(law), 1), strict=True):
        z = np.eye(len(law))[i] - np.eye(len(law))[j]
        hessian += 2 * law[i, j] * slope[i, j] * np.outer(z, z)
        spread = preferences[i, j] * (1 - preferences[i, j]) + (preferences[i, j] - mean[i, j]) ** 2
        middle += 2 * law[i, j] * spread * np.outer(z, z)
    inverse = np.linalg.pinv(hessian)
    with jax.enable_x64(True):
        J = np.asarray(jacobian(x, preferences, used(plan, len(x))))
    return plan.strength**2 * inverse @ middle @ inverse, J


def test_known_floor():
    """T16; near ties, and so here, strength^2 / (16 n) sum_k 1 / (1 - alpha^2 - (strength omega_k)^2)."""
    found = round_noise(cycle(0.3), LoopPlan(0.5, 2.0), 300)
    close(found.kl, 0.002645502646)
    formula = 4 / (16 * 300) * 2 / (1 - 0.25 - (2 * 0.3 / np.sqrt(3)) ** 2)
    np.testing.assert_allclose(found.kl, formula, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "mix"), KINDS)
def test_the_covariance_is_what_rounds_leave_as_it_is(loss, mix):
    """V = J V J^T + Sigma / n with Sigma from pairs one by one; KL = tr(S V) / 2."""
    rng = np.random.default_rng(1)
    base = law_of(rng.uniform(0.1, 1, 6), 4) if mix == "pairs" else rng.normal(size=4)
    for share, temper in ((1.0, 1.0), (0.6, 0.7), (0.0, 1.0)):
        preferences = random_preferences(rng, 4, largest=0.4)
        plan = LoopPlan(0.5, 0.8, share, loss=loss, mix=mix, base=base, reference=rng.normal(size=4), temper=temper)
        found = round_noise(preferences, plan, 50)
        sigma, J = sandwich(preferences, plan)
        V = found.covariance
        np.testing.assert_allclose(V, J @ V @ J.T + sigma / 50, atol=1e-9 * np.abs(V).max())
        np.testing.assert_allclose(V.sum(0), 0, atol=1e-12)
        pi = np.exp(fixed_point(preferences, plan).log_policy)
        np.testing.assert_allclose(found.kl, np.trace((np.diag(pi) - np.outer(pi, pi)) @ V) / 2, rtol=1e-9)


def simulated(preferences, plan, labels, runs, rounds, rng):
    """Mean KL(pi* || pi_t) over rounds of binomial labels in NumPy, after a fifth of them."""
    best = fixed_point(preferences, plan).log_policy
    upper = np.triu_indices(len(best), 1)
    x, seen = np.tile(centred(best), (runs, 1)), []
    for t in range(rounds):
        for run in range(runs):
            law = law_by_hand(x[run], plan)
            chances = np.append(2 * law[upper], max(0, 1 - law.sum()))  # the last: an answer with itself
            counts = rng.multinomial(labels, chances / chances.sum())[:-1]
            wins = rng.binomial(counts, preferences[upper])
            weights, shares = np.zeros_like(law), np.full_like(law, 0.5)
            weights[upper] = counts
            shares[upper] = np.divide(wins, counts, out=np.full(len(counts), 0.5), where=counts > 0)
            shares.T[upper] = 1 - shares[upper]
            taught = scores_by_hand(shares, weights + weights.T, plan.loss)
            reference = np.zeros(len(best)) if plan.reference is None else plan.reference
            x[run] = centred(plan.alpha * x[run] + (1 - plan.alpha) * reference + plan.strength * taught)
        if t >= rounds // 5:
            seen.append(divergence_from(best, np.log(softmax(x))).mean())
    return np.mean(seen)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preferences", "plan", "labels", "tolerance"),
    [
        pytest.param(cycle(0.3), LoopPlan(0.5, 2.0), 300, 0.12, id="T16"),
        pytest.param(M4, GENERAL, 2000, 0.12, id="ipo"),
        pytest.param(M4, LoopPlan(0.6, 2.0, 0.5, mix="pairs"), 2000, 0.12, id="ipo, pairs mixed"),
        pytest.param(M4, LoopPlan(0.5, 0.5, 0.8, loss="dpo"), 2000, 0.12, id="dpo"),
    ],
)
def test_simulated_rounds_wander_as_far(preferences, plan, labels, tolerance):
    found = simulated(preferences, plan, labels, 8, 400, np.random.default_rng(7))
    np.testing.assert_allclose(found, round_noise(preferences, plan, labels).kl, rtol=tolerance)


def test_noise_has_no_bound_at_the_threshold_and_beyond():
    threshold = np.sqrt(1 - 0.5**2) / (0.4 / np.sqrt(3))
    floors = [
        float(round_noise(cycle(0.4), LoopPlan(0.5, factor * threshold), 300).kl) for factor in (0.9, 0.99, 0.9999)
    ]
    assert floors[0] < floors[1] / 5 < floors[2] / 50 < np.inf
    for factor in (1.0, 1.0001, 1.5, 30):
        found = round_noise(cycle(0.4), LoopPlan(0.5, factor * threshold), 300)
        assert found.kl == np.inf and np.all(found.covariance == np.inf)
        assert found.labels_for(0.01) == np.inf


@pytest.mark.slow
@given(seed=st.integers(0, 2**32 - 1), labels=st.floats(1, 1e6), wanted=st.floats(1e-6, 1))
def test_labels_for_a_wanted_divergence_give_it(seed, labels, wanted):
    preferences = random_preferences(np.random.default_rng(seed), 4)
    found = round_noise(preferences, GENERAL, labels)
    if found.kl < np.inf:
        np.testing.assert_allclose(round_noise(preferences, GENERAL, found.labels_for(wanted)).kl, wanted, rtol=1e-9)
    assert (found.kl < np.inf) == (stability(preferences, GENERAL).rho < 1 - 1e-9)


@pytest.mark.slow
def test_draws_single_precision_and_vmap_agree():
    draws = random_preferences(np.random.default_rng(2), 4, 3, 2)
    whole = round_noise(draws, GENERAL, 300)
    assert whole.kl.shape == (3, 2) and whole.covariance.shape == (3, 2, 4, 4) and whole.kl.dtype == np.float64
    np.testing.assert_allclose(whole.kl[2, 1], round_noise(draws[2, 1], GENERAL, 300).kl, rtol=1e-9)
    np.testing.assert_allclose(whole.labels_for(1e-3), whole.kl * 3e5)
    short = round_noise(draws.astype(np.float32), GENERAL, 300)
    assert short.kl.dtype == np.float32
    np.testing.assert_allclose(short.kl, whole.kl, rtol=1e-3)
    traced = jax.vmap(lambda n: round_noise(jnp.asarray(draws[0, 0], jnp.float32), GENERAL, n).kl)(
        jnp.array([300.0, 600])
    )
    np.testing.assert_allclose(traced, whole.kl[0, 0] * np.array([1, 0.5]), rtol=1e-3)


@pytest.mark.slow
def test_where_there_is_no_fixed_point_nothing_is_said():
    preferences = M4.copy()
    preferences[0, 1:], preferences[1:, 0] = 1, 0
    found = round_noise(np.stack([preferences, M4]), LoopPlan(0.5, 0.5, loss="dpo"), 100)
    np.testing.assert_array_equal(np.isnan(found.kl), [True, False])


@pytest.mark.parametrize(
    ("plan", "labels", "message"),
    [
        (LoopPlan(1.0, 1.0), 100, "plan.alpha=1: .* alpha below 1"),
        (LoopPlan(np.array([0.5, 0.6]), 1.0), 100, r"alpha: shape \(2,\)"),
        (GENERAL, 0, "labels_per_round=0: must be positive"),
        (GENERAL, np.inf, "labels_per_round=inf"),
    ],
)
def test_refusals(plan, labels, message):
    with pytest.raises(ValueError, match=message):
        round_noise(M4, plan, labels)


def test_no_divergence_at_all_needs_more_labels_than_there_are():
    with pytest.raises(ValueError, match="kl=0: must be positive and finite"):
        round_noise(M4, GENERAL, 100).labels_for(0)


def test_noise_of_a_policy_that_is_nearly_pure():
    """Additive, near ties: strength^2 / (16 n) (K - 1) / (1 - alpha^2), whatever the shares of the answers."""
    s = np.array([0, -0.001, -0.002])
    found = round_noise(0.5 + np.subtract.outer(s, s), LoopPlan(0.5, 5e4), 100)
    np.testing.assert_allclose(found.kl, 5e4**2 / 1600 * 2 / 0.75, rtol=1e-4)


@pytest.mark.slow
def test_noise_beyond_the_threshold_is_infinite_where_powers_overflow():
    P = random_preferences(np.random.default_rng(0), 8, 64)
    plan = LoopPlan(0.5, 100.0)
    beyond = stability(P, plan).rho > 1
    assert beyond.any()
    np.testing.assert_array_equal(np.isinf(round_noise(P, plan, 100).kl), beyond)
