"""Where rounds end: known to ten digits, one alone, whatever way leads there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

from jaxdesign.dynamics import LoopPlan, Regime, fixed_point, iterate
from tests.support.rounds import centred, close, round_by_hand, softmax
from tests.support.tournaments import (
    CHAIN,
    M4,
    REFERENCE,
    TRAP,
    TRAP_REFERENCE,
    antisymmetric,
    bradley_terry,
    law_of,
    random_preferences,
)

GENERAL = LoopPlan(0.6, 3.0, 0.7, reference=REFERENCE)
KINDS = [(loss, mix) for loss in ("ipo", "dpo") for mix in ("answers", "pairs")]


def policy(preferences, plan):
    found = fixed_point(preferences, plan)
    assert np.all(found.converged) and np.all(found.residual >= 0)
    return np.exp(found.log_policy)


@pytest.mark.parametrize(
    ("preferences", "plan", "expected"),
    [
        pytest.param(
            0.5 + antisymmetric([0.1, -0.4, 0.2], 3),
            LoopPlan(0.5, 4.0),
            [0.1993539417, 0.4952811174, 0.3053649409],
            id="T7",
        ),
        pytest.param(M4, GENERAL, [0.1889600502, 0.3046324122, 0.2975644543, 0.2088430833], id="T11"),
        pytest.param(
            TRAP,
            LoopPlan(0.0, 20.0, reference=TRAP_REFERENCE),
            [0.0336185656, 0.0194461833, 0.01027133246, 0.7260934332, 0.2105704854],
            id="T13",
        ),
        pytest.param(
            M4,
            LoopPlan(0.5, 0.5, loss="dpo", reference=REFERENCE),
            [0.1413741375, 0.2897490267, 0.3196665872, 0.2492102486],
            id="T14 all own",
        ),
        pytest.param(
            M4,
            LoopPlan(0.5, 0.5, 0.5, loss="dpo", reference=REFERENCE),
            [0.1310042873, 0.263576356, 0.3281103428, 0.2773090138],
            id="T14 half",
        ),
        pytest.param(
            M4,
            LoopPlan(0.6, 3.0, 0.7, reference=REFERENCE, mix="pairs"),
            [0.182425598, 0.3066790384, 0.2991423827, 0.2117529808],
            id="T15",
        ),
    ],
)
def test_known_limits(preferences, plan, expected):
    close(policy(preferences, plan), expected)


@pytest.mark.parametrize(
    ("alpha", "share", "expected", "entropy"),
    [
        (0.5, 1.0, [0.3258261829, 0.2706557944, 0.2240692576, 0.1794487651], 1.362532347),
        (0.9, 1.0, [0.6331201646, 0.2395341567, 0.09388659459, 0.03345908408], 0.9674840341),
        (0.99, 1.0, [0.9999482305, 5.176388887e-05, 5.616606432e-09, 3.857166743e-13], 0.0005627232652),
        (0.99, 0.0, [0.9998870678, 0.0001129231025, 9.076190357e-09, 1.094141176e-13], 0.001139429761),
    ],
)
def test_limits_of_a_chain(alpha, share, expected, entropy):
    """T9: entries below 1e-12 are upper bounds."""
    found = fixed_point(CHAIN, LoopPlan(alpha, 1.0, share))
    close(np.exp(found.log_policy), expected)
    close(found.entropy, entropy)
    first = np.exp(found.log_policy[0])
    assert found.least[0] <= first * (1 + 1e-14) and first <= found.most[0] * (1 + 1e-14)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "mix"), KINDS)
def test_a_round_leaves_it_as_it_is(loss, mix):
    rng = np.random.default_rng(1)
    base = law_of(rng.uniform(0.1, 1, 6), 4) if mix == "pairs" else rng.normal(size=4)
    for share, temper in ((1.0, 1.0), (0.6, 0.5), (0.0, 1.0)):
        preferences = random_preferences(rng, 4, largest=0.45)
        plan = LoopPlan(0.5, 2.0, share, loss=loss, base=base, reference=rng.normal(size=4), mix=mix, temper=temper)
        found = fixed_point(preferences, plan)
        assert found.converged
        x = centred(found.log_policy)
        np.testing.assert_allclose(round_by_hand(x, preferences, plan), x, atol=1e-9)
        np.testing.assert_allclose(np.exp(found.log_policy).sum(), 1, rtol=1e-14)
        np.testing.assert_allclose(found.entropy, -np.sum(np.exp(found.log_policy) * found.log_policy), rtol=1e-12)


@given(seed=st.integers(0, 2**32 - 1))
def test_there_is_no_other(seed):
    """Damped rounds from far starts end there, and the field x - x_ref - kappa A mu(x) is monotone along pi."""
    rng = np.random.default_rng(seed)
    preferences, reference, base = random_preferences(rng, 5), 2 * rng.normal(size=5), rng.normal(size=5)
    plan = LoopPlan(rng.uniform(0, 0.9), rng.uniform(0.1, 2), rng.uniform(), base=base, reference=reference)
    kappa = plan.strength / (1 - plan.alpha)

    def mu(x):
        return plan.share * softmax(x) + (1 - plan.share) * softmax(base)

    def field(x):
        return x - reference - kappa * mu(x) @ (preferences - 0.5).T

    x = centred(8 * rng.normal(size=(6, 5)))
    first, second = x[:3], x[3:]
    inner = np.sum((field(first) - field(second)) * (softmax(first) - softmax(second)), axis=1)
    assert (inner > 0).all()
    step = 1 / (1 + (kappa * plan.share) ** 2 / 4)
    for _ in range(int(60 / step)):
        x = centred(x - step * field(x))
    np.testing.assert_allclose(softmax(x), np.broadcast_to(policy(preferences, plan), x.shape), atol=1e-9)


@given(seed=st.integers(0, 2**32 - 1), alpha=st.floats(0, 0.999))
def test_it_depends_on_alpha_and_strength_through_kappa_alone(seed, alpha):
    rng = np.random.default_rng(seed)
    preferences, reference = random_preferences(rng, 5), rng.normal(size=5)
    kappa, share = rng.uniform(0.1, 20), rng.uniform()
    first = fixed_point(preferences, LoopPlan(alpha, kappa * (1 - alpha), share, reference=reference))
    second = fixed_point(preferences, LoopPlan(0.0, kappa, share, reference=reference))
    np.testing.assert_allclose(first.log_policy, second.log_policy, atol=1e-10)
    third = fixed_point(preferences, LoopPlan(0.0, kappa, share, reference=reference + 50))
    np.testing.assert_allclose(third.log_policy, second.log_policy, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("size", [5, pytest.param(64, marks=pytest.mark.thorough)])
def test_newton_finds_it_where_the_pull_is_a_hundred_thousand_times_a_weak_one(size):
    rng = np.random.default_rng(size)
    preferences = np.concatenate(
        [
            random_preferences(rng, size, 3),
            0.5 + 0.5 * np.sign(random_preferences(rng, size, 3) - 0.5),
            bradley_terry(5 * rng.normal(size=size))[None],
        ]
    )
    for kappa in (0.1, 10.0, 1e3, 1e4):
        found = fixed_point(preferences, LoopPlan(0.0, kappa, reference=rng.normal(size=size)))
        assert np.all(found.converged), kappa
        assert np.all(found.least <= np.exp(found.log_policy) * (1 + 1e-9) + 1e-300)
        assert np.all(np.exp(found.log_policy) <= found.most * (1 + 1e-9) + 1e-300)


@given(seed=st.integers(0, 2**32 - 1))
def test_bounds_hold_and_a_dominating_answer_is_near_one(seed):
    rng = np.random.default_rng(seed)
    plan = LoopPlan(0.0, 40.0, rng.uniform(), base=rng.normal(size=5), reference=rng.normal(size=5))
    preferences = bradley_terry(np.sort(rng.normal(size=5))[::-1] * 3)
    found = fixed_point(preferences, plan)
    pi = np.exp(found.log_policy)
    assert np.all(found.least <= pi * (1 + 1e-9)) and np.all(pi <= found.most * (1 + 1e-9))
    rows = preferences[0][None] - preferences
    gains = plan.share * rows.min(1) + (1 - plan.share) * rows @ softmax(plan.base)
    rest = np.exp(plan.reference - plan.reference[0] - 40 * gains)[1:].sum()
    np.testing.assert_allclose(found.least[0], 1 / (1 + rest), rtol=1e-10)


@pytest.mark.slow
def test_other_losses_and_mixes_have_no_bounds_to_give():
    for loss, mix in KINDS[1:]:
        found = fixed_point(M4, LoopPlan(0.5, 0.5, loss=loss, mix=mix))
        np.testing.assert_array_equal([found.least, found.most], [np.zeros(4), np.ones(4)])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS[1:])
def test_policies_that_are_nearly_pure_lose_no_scores(kind):
    """Shares of 1e-300 and less: of Bradley-Terry scores DPO's limit is exactly kappa times them."""
    loss, mix = kind
    found = fixed_point(CHAIN, LoopPlan(0.5, 500.0, loss=loss, mix=mix))
    assert found.converged
    if loss == "dpo":
        np.testing.assert_allclose(found.log_policy, [0, -400, -800, -1300], rtol=1e-12)
    else:  # all rivals are the best answer
        np.testing.assert_allclose(found.log_policy, 1000 * (CHAIN[:, 0] - 0.5), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["ipo", "dpo"])
def test_pairs_of_next_to_no_mass_that_alone_join_answers_are_not_claimed(loss):
    """What 2 and 3 are to 0 and 1 is a difference of masses that are this much larger than the link's own."""
    preferences = 0.5 + antisymmetric([0.2, 0, 0, 0.3, 0, 0.1], 4)

    def joined_by(mass):
        law = np.zeros((4, 4))
        law[0, 1], law[2, 3], law[1, 2] = 0.25, 0.25 - mass, mass
        plan = LoopPlan(0.5, 1.0, 1e-3 * mass, loss=loss, mix="pairs", base=law + law.T)
        ended = iterate(preferences, plan, None, steps=60)
        return fixed_point(preferences, plan).converged, ended.regime != Regime.UNKNOWN

    assert joined_by(1e-8) == (True, True) and joined_by(1e-13) == (False, False)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["ipo", "dpo"])
def test_a_solver_of_equations_finds_it_for_many_answers(loss):
    size = 150
    preferences = random_preferences(np.random.default_rng(3), size)
    law = (1 - np.eye(size)) / (size * (size - 1))
    plan = LoopPlan(0.5, 3.0, 0.5, loss=loss, mix="pairs", base=law)

    def moved(policy):
        return policy - round_by_hand(policy, preferences, plan)

    found = scipy.optimize.root(moved, np.zeros(size), method="krylov", options={"fatol": 1e-11})
    assert found.success
    np.testing.assert_allclose(centred(fixed_point(preferences, plan).log_policy), found.x, atol=1e-9)


def test_an_answer_that_never_loses_has_no_dpo_limit():
    preferences = M4.copy()
    preferences[0, 1:], preferences[1:, 0] = 1, 0
    for share in (0.0, 1.0):
        assert not fixed_point(preferences, LoopPlan(0.5, 0.5, share, loss="dpo")).converged
    assert fixed_point(preferences, LoopPlan(0.5, 0.5)).converged


@pytest.mark.slow
def test_without_a_pull_back_there_is_none():
    for one in (1, 1.0, jnp.asarray(1.0)):
        with pytest.raises(ValueError, match=r"plan.alpha=1: without a pull .* `iterate`"):
            fixed_point(M4, LoopPlan(one, 1.0))
    alphas = jnp.array([0.5, 1.0, 0.9])
    found = jax.vmap(lambda alpha: fixed_point(jnp.asarray(M4, jnp.float32), LoopPlan(alpha, 1.0)))(alphas)
    np.testing.assert_array_equal(found.converged, [True, False, True])
    np.testing.assert_array_equal(np.isnan(found.log_policy).all(1), [False, True, False])
    np.testing.assert_array_equal(np.isnan(found.entropy), [False, True, False])
    endless = jax.vmap(lambda one: fixed_point(jnp.asarray(M4, jnp.float32), LoopPlan(0.5, one)))(
        jnp.array([1.0, jnp.inf, 0.0])
    )
    np.testing.assert_array_equal(endless.converged, [True, False, False])
    alone = fixed_point(M4, LoopPlan(0.9, 1.0))
    np.testing.assert_allclose(found.log_policy[2], alone.log_policy, atol=1e-5)


@pytest.mark.slow
def test_draws_single_precision_and_jit_agree():
    rng = np.random.default_rng(5)
    draws = random_preferences(rng, 4, 2, 3)
    for plan in (GENERAL, LoopPlan(0.5, 0.5, loss="dpo")):
        whole = fixed_point(draws, plan)
        assert whole.log_policy.shape == (2, 3, 4) and whole.entropy.shape == (2, 3)
        assert isinstance(whole.log_policy, np.ndarray) and whole.log_policy.dtype == np.float64
        np.testing.assert_allclose(whole.log_policy[1, 2], fixed_point(draws[1, 2], plan).log_policy, atol=1e-12)
        short = fixed_point(draws.astype(np.float32), plan)
        assert short.log_policy.dtype == np.float32 and np.all(short.converged)
        np.testing.assert_allclose(short.log_policy, whole.log_policy, atol=1e-4)
        traced = jax.jit(lambda P, plan=plan: fixed_point(P, plan).log_policy)(jnp.asarray(draws, jnp.float32))
        np.testing.assert_allclose(traced, whole.log_policy, atol=1e-4)


@pytest.mark.parametrize(
    ("preferences", "message"),
    [
        (M4[:3], r"preferences: shape \(3, 4\)"),
        (M4[:1, :1], r"preferences: shape \(1, 1\) .* at least two answers"),
        (M4 + 0.6, "preferences: .* must be probabilities"),
        (np.where(np.eye(4), 0.5, np.nan), "preferences: nan"),
        (np.tril(M4), r"preferences\[i, j\] \+ preferences\[j, i\]: .* P_ji = 1 - P_ij"),
    ],
)
def test_refusals(preferences, message):
    with pytest.raises(ValueError, match=message):
        fixed_point(preferences, GENERAL)
