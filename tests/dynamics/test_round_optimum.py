"""One round: truths to ten digits, the sampled loss minimised directly, and when the pairs' law does not matter."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize as direct

from jaxdesign.dynamics import round_optimum
from tests.support.tournaments import DESIGN, M4, MU, REFERENCE, additive, bradley_terry, law_of, random_preferences

Q = law_of(DESIGN, 4)
PRODUCT = np.outer(MU, MU)


def scores(preferences, law, loss, strength=1.0):
    found = round_optimum(preferences, law, None, loss=loss, strength=strength)
    assert np.all(found.converged)
    return found.scores


def close(found, expected, digits=10):
    np.testing.assert_allclose(found, expected, rtol=0.6 * 10.0**-digits * 10, atol=0.6 * 10.0**-digits)


@pytest.mark.slow
def test_ipo_under_a_product_law():
    found = round_optimum(M4, PRODUCT, REFERENCE, loss="ipo", strength=2.0)
    close(np.exp(found.log_policy), [0.1290815383, 0.1931740247, 0.2756292245, 0.4021152124])
    closed = 2 * (M4 - 0.5) @ MU
    np.testing.assert_allclose(2 * found.scores, closed - closed.mean(), atol=1e-14)


def test_ipo_under_any_law():
    target, design = 2 * scores(M4, PRODUCT, "ipo"), 2 * scores(M4, Q, "ipo")
    close(design, [-0.095, 0.125, -0.075, 0.045])
    close(target, [0.22, -0.07, -0.12, -0.03])
    close(design - target, [-0.315, 0.195, 0.045, 0.075])


def test_ipo_shift_is_the_residual_of_the_target_under_the_design():
    target = round_optimum(M4, PRODUCT, None, loss="ipo", strength=1.0)
    laplacian = np.diag(Q.sum(1)) - Q
    shift = np.linalg.pinv(laplacian) @ (Q * target.residual).sum(1)
    np.testing.assert_allclose(scores(M4, Q, "ipo") - target.scores, shift, atol=1e-14)


def test_dpo_under_any_law():
    target = round_optimum(M4, PRODUCT, None, loss="dpo", strength=1.0)
    design = scores(M4, Q, "dpo")
    close(target.scores, [0.4544463065, -0.1442575047, -0.2484805921, -0.06170820971])
    close(design, [-0.1919463055, 0.253346055, -0.1517448618, 0.09034511235])
    close(design - target.scores, [-0.646392612, 0.3976035597, 0.0967357303, 0.1520533221])
    chances = 1 / (1 + np.exp(target.scores[None] - target.scores[:, None]))
    weights = Q * chances * (1 - chances)
    step = np.linalg.pinv(np.diag(weights.sum(1)) - weights) @ (Q * target.residual).sum(1)
    close(step, [-0.685844525, 0.4130050742, 0.1144175027, 0.1584219481])
    weighted = scores(M4, Q * np.divide(PRODUCT, Q, out=np.zeros_like(Q), where=Q > 0), "dpo")
    close(weighted, target.scores)


def test_bradley_terry_is_safe_for_dpo_alone():
    preferences = bradley_terry([1, 0, -0.5])
    laws = [np.outer(mu, mu) for mu in ([0.6, 0.3, 0.1], [0.1, 0.3, 0.6])]
    first, second = (scores(preferences, law, "ipo") for law in laws)
    close(first[0] - first[1:], [0.2274642353, 0.3283575063])
    close(second[0] - second[1:], [0.2094925184, 0.3283575063])
    for law in laws:
        close(scores(preferences, law, "dpo"), [0.8333333333, -0.1666666667, -0.6666666667])


def test_additive_is_safe_for_ipo_alone():
    preferences = additive([0.2, 0.05, -0.1, -0.15])
    for law in (PRODUCT, Q):
        close(2 * scores(preferences, law, "ipo"), [0.4, 0.1, -0.2, -0.3])
    close(scores(preferences, PRODUCT, "dpo"), [0.901476524, 0.2347455381, -0.4427935476, -0.6934285146])
    close(scores(preferences, Q, "dpo"), [0.9568913303, 0.204908827, -0.4459737033, -0.715826454])


@pytest.mark.slow
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([2, 3, 6]))
def test_the_law_does_not_matter_exactly_where_scores_explain_all(seed, size):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=size)
    laws = [law_of(rng.uniform(0.1, 1, size * (size - 1) // 2), size) for _ in range(2)]
    safe = {"dpo": bradley_terry(values), "ipo": additive(values / np.ptp(values) * 0.4)}
    for loss, preferences in safe.items():
        found = [round_optimum(preferences, law, None, loss=loss, strength=1.0) for law in laws]
        np.testing.assert_allclose(found[0].scores, found[1].scores, atol=1e-9)
        assert np.abs(found[0].residual).max() < 1e-9
    if size > 2:  # any residual is brought out by some law: put all weight on the pairs of one cycle, in other shares
        crooked = random_preferences(rng, size)
        for loss in safe:
            first, second = (scores(crooked, law, loss) for law in laws)
            residual = round_optimum(crooked, laws[0], None, loss=loss, strength=1.0).residual
            if np.abs((laws[1] * residual).sum(1)).max() > 1e-3:
                assert np.abs(first - second).max() > 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["ipo", "dpo"])
@pytest.mark.parametrize("size", [3, 5])
def test_against_direct_minimisation_of_the_loss(loss, size):
    rng = np.random.default_rng(size)
    preferences, law = random_preferences(rng, size), law_of(rng.uniform(0, 1, size * (size - 1) // 2), size)
    reference = rng.normal(size=size)
    strength = 0.7

    def expected_loss(x):
        gaps = (x - reference)[:, None] - (x - reference)[None, :]
        if loss == "ipo":  # E (h - s tau^-1 / 2)^2 over labels s = +-1, tau = 1 / strength
            each = preferences * (gaps - strength / 2) ** 2 + (1 - preferences) * (gaps + strength / 2) ** 2
        else:
            margins = gaps / strength
            each = preferences * np.logaddexp(0, -margins) + (1 - preferences) * np.logaddexp(0, margins)
        return np.sum(np.triu(law, 1) * each)

    best = direct.minimize(expected_loss, np.zeros(size), method="BFGS", options={"gtol": 1e-9}).x
    found = round_optimum(preferences, law, reference, loss=loss, strength=strength)
    np.testing.assert_allclose(found.log_policy - found.log_policy.mean(), best - best.mean(), atol=2e-6)


@pytest.mark.parametrize("loss", ["ipo", "dpo"])
def test_features_of_single_answers_are_the_tabular_case(loss):
    rng = np.random.default_rng(3)
    preferences, law = random_preferences(rng, 4), law_of(rng.uniform(0.1, 1, 6), 4)
    rows = np.eye(4)
    free = round_optimum(preferences, law, REFERENCE, loss=loss, strength=1.0)
    found = round_optimum(
        preferences, law, REFERENCE, loss=loss, strength=1.0, differences=rows[:, None] - rows[None, :]
    )
    np.testing.assert_allclose(found.scores, free.scores, atol=1e-9)
    np.testing.assert_allclose(found.log_policy, free.log_policy, atol=1e-9)
    np.testing.assert_allclose(found.parameter.mean(), 0, atol=1e-12)  # the direction no pair differs in


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["ipo", "dpo"])
def test_prompts_share_the_parameter_of_features(loss):
    rng = np.random.default_rng(4)
    phi = rng.normal(size=(5, 4, 2))
    z = phi[:, :, None] - phi[:, None, :]
    preferences = random_preferences(rng, 4, 5)
    law = np.stack([law_of(rng.uniform(0.1, 1, 6), 4) for _ in range(5)])
    found = round_optimum(preferences, law, None, loss=loss, strength=1.0, differences=z)
    gaps = z @ found.parameter
    mean = 0.5 + gaps if loss == "ipo" else 1 / (1 + np.exp(-gaps))
    np.testing.assert_allclose(np.einsum("pij,pij,pijd->d", law, preferences - mean, z), 0, atol=1e-10)
    np.testing.assert_allclose(found.scores[:, :, None] - found.scores[:, None, :], gaps, atol=1e-12)


def test_answers_that_no_pairs_join_are_named():
    law = law_of((1, 0, 0, 0, 0, 1), 4)  # pairs 01 and 23
    for loss in ("ipo", "dpo"):
        with pytest.raises(ValueError, match=r"pair_law: no chain .* joins the answers \(0, 1\) \| \(2, 3\); scores"):
            round_optimum(M4, law, None, loss=loss, strength=1.0)
    joined = law_of((1, 1, 1, 1, 1, 1), 4)
    alone = law_of((1, 1, 0, 1, 0, 0), 4)  # nobody meets answer 3
    with pytest.raises(ValueError, match=r"pair_law: .* \(0, 1, 2\) \| \(3\) at \(1,\) \(1 such law"):
        round_optimum(np.stack([M4, M4]), np.stack([joined, alone]), None, loss="ipo", strength=1.0)
    with pytest.raises(ValueError, match="pair_law: no chain"):  # masses that float32 does not hold are none
        round_optimum(M4.astype(np.float32), law_of((1, 1e-60, 0, 0, 0, 1), 4), None, loss="ipo", strength=1.0)


def test_features_compare_answers_that_no_pairs_join():
    law = law_of((1, 0, 0, 0, 0, 1), 4)
    phi = np.array([[0.0], [1.0], [1.0], [3.0]])
    found = round_optimum(M4, law, None, loss="ipo", strength=1.0, differences=phi[:, None] - phi[None, :])
    z = np.array([-1, -2])
    np.testing.assert_allclose(found.parameter, [(z @ [M4[0, 1] - 0.5, M4[2, 3] - 0.5]) / (z @ z)])
    assert not found.connected and found.converged


def test_components_of_traced_laws_are_told_and_solved_one_by_one(float64_scope):
    law = jnp.asarray(law_of((1, 0, 0, 0, 0, 1), 4))
    for loss in ("ipo", "dpo"):
        found = jax.jit(lambda law, loss=loss: round_optimum(M4, law, None, loss=loss, strength=1.0))(law)
        assert not found.connected and found.converged
        scores = np.asarray(found.scores)
        mean = scores[[0, 2]] - scores[[1, 3]]
        np.testing.assert_allclose(mean if loss == "ipo" else 1 / (1 + np.exp(-mean)) - 0.5, [0.3, 0.35], atol=1e-12)
        np.testing.assert_allclose([scores[:2].sum(), scores[2:].sum()], 0, atol=1e-12)


@pytest.mark.parametrize("traced", [False, True])
def test_arguments_of_other_draws_are_named(traced):
    def of(preferences, law, reference):
        return round_optimum(preferences, law, reference, loss="ipo", strength=1.0)

    call = jax.jit(of) if traced else of
    three = np.stack([M4] * 3)
    with pytest.raises(ValueError, match=r"pair_law: leading axes \(2,\) of shape \(2, 4, 4\) found; .*\(3,\)"):
        call(three, np.stack([Q] * 2), None)
    with pytest.raises(ValueError, match=r"pair_law: leading axes \(3,\)"):  # one P with three laws
        call(M4, np.stack([Q] * 3), None)
    with pytest.raises(ValueError, match=r"log_reference: leading axes \(2,\)"):
        call(three, Q, np.zeros((2, 4)))
    assert call(three, np.stack([Q] * 3), np.zeros((1, 4))).scores.shape == (3, 4)


def test_an_answer_that_never_loses_has_no_dpo_optimum():
    preferences = M4.copy()
    preferences[0, 1:], preferences[1:, 0] = 1, 0
    assert not round_optimum(preferences, Q, None, loss="dpo", strength=1.0).converged
    assert round_optimum(preferences, Q, None, loss="ipo", strength=1.0).converged


def test_masses_far_apart_cost_no_digits():
    """An answer that is drawn once in 1e60 has the score that its own pairs ask for."""
    mu = np.array([1, 1e-20, 1e-60])
    preferences = random_preferences(np.random.default_rng(8), 3)
    found = scores(preferences, np.outer(mu, mu), "ipo")
    expected = (preferences - 0.5)[:, 0]  # all rivals are answer 0
    np.testing.assert_allclose(found, expected - expected.mean(), atol=1e-12)


@pytest.mark.slow
def test_draws_jit_vmap_and_single_precision_agree():
    rng = np.random.default_rng(5)
    preferences = random_preferences(rng, 4, 3, 2)
    for loss in ("ipo", "dpo"):
        whole = round_optimum(preferences, Q, REFERENCE, loss=loss, strength=1.5)
        assert whole.log_policy.shape == (3, 2, 4) and whole.log_policy.dtype == np.float64
        one = round_optimum(preferences[1, 1], Q, REFERENCE, loss=loss, strength=1.5)
        np.testing.assert_allclose(whole.log_policy[1, 1], one.log_policy, atol=1e-13)
        short = round_optimum(preferences.astype(np.float32), Q, REFERENCE, loss=loss, strength=1.5)
        assert short.log_policy.dtype == np.float32
        np.testing.assert_allclose(short.log_policy, whole.log_policy, atol=2e-5)
        own = partial(round_optimum, pair_law=Q, log_reference=REFERENCE, loss=loss, strength=1.5)
        traced = jax.jit(jax.vmap(own))(jnp.asarray(preferences[:, 0], jnp.float32))
        np.testing.assert_allclose(traced.log_policy, whole.log_policy[:, 0], atol=2e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preferences": M4[:3]}, r"preferences: shape \(3, 4\)"),
        ({"preferences": M4 + 0.6}, r"preferences: .* must be probabilities"),
        ({"preferences": np.abs(M4 - 0.5)}, r"preferences\[i, j\] \+ preferences\[j, i\]"),
        ({"pair_law": Q[:3, :3]}, r"pair_law: shape \(3, 3\)"),
        ({"pair_law": -Q}, "pair_law: .* at least 0"),
        ({"pair_law": np.triu(Q)}, "mirror image"),
        ({"pair_law": np.eye(4)}, "no pair of different answers"),
        ({"log_reference": np.zeros(3)}, r"log_reference: shape \(3,\)"),
        ({"log_reference": np.array([0, 0, 0, -np.inf])}, "log_reference: .* finite"),
        ({"loss": "kto"}, "loss='kto'"),
        ({"strength": 0.0}, "strength=0"),
        ({"differences": np.zeros((4, 4))}, "differences"),
    ],
)
def test_refusals(change, message):
    given = {"preferences": M4, "pair_law": Q, "log_reference": None, "loss": "ipo", "strength": 1.0} | change
    positional = [given.pop(name) for name in ("preferences", "pair_law", "log_reference")]
    with pytest.raises(ValueError, match=message):
        round_optimum(*positional, **given)


@pytest.mark.slow
@pytest.mark.parametrize("rare", [1e-15, 1e-17, 1e-20])
def test_scores_of_chances_below_rounding_are_odd(rare):
    P = np.array([[0.5, rare], [1 - rare, 0.5]])
    for given_as, sign in ((P, -1), (P.T, 1)):
        found = scores(given_as, np.ones((2, 2)), "dpo")
        np.testing.assert_allclose(found[0] - found[1], sign * (np.log1p(-rare) - np.log(rare)), rtol=1e-9)


@pytest.mark.parametrize("loss", ["ipo", "dpo"])
def test_a_link_too_weak_for_its_scores_to_be_known(loss):
    """Pairs (0, 1) and (2, 3) joined by one of mass 1e-15: rounding of theirs is as large as all that it says."""
    law = law_of([1, 0, 0, 1e-15, 0, 0.7], 4)
    assert not round_optimum(M4, law, None, loss=loss, strength=1.0).converged
    law = law_of([1, 0, 0, 1e-6, 0, 0.7], 4)
    assert round_optimum(M4, law, None, loss=loss, strength=1.0).converged


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_masses_of_any_scale_in_float32(scale):
    found = round_optimum(M4.astype(np.float32), Q * scale, None, loss="ipo", strength=1.0)
    assert found.connected
    np.testing.assert_allclose(found.scores, scores(M4, Q, "ipo"), atol=1e-6)


def test_no_draws_give_no_scores():
    assert round_optimum(np.ones((0, 4, 4)), np.ones((0, 4, 4)), None, loss="ipo", strength=1.0).scores.shape == (0, 4)
