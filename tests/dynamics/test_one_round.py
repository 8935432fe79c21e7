"""One round: the map against NumPy, its derivative against differences, for every loss and mix."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign.dynamics import LoopPlan
from jaxdesign.dynamics.one_round import feedback, has_scores, jacobian, next_policy, pair_law, sampler, taught
from tests.support.rounds import centred, law_by_hand, round_by_hand, softmax, used
from tests.support.tournaments import M4, bradley_terry, law_of, random_preferences

pytestmark = pytest.mark.usefixtures("float64_scope")
KINDS = [(loss, mix) for loss in ("ipo", "dpo") for mix in ("answers", "pairs")]
CASES = 5


@jax.jit
def after(x, preferences, plan):
    return next_policy(x, taught(x, preferences, plan), plan)


derivative, change = jax.jit(jacobian), jax.jit(feedback)


def random_cases(loss, mix, size=4, number=CASES, largest=0.45):
    rng = np.random.default_rng(size)
    for k in range(number):
        base = law_of(rng.uniform(0.1, 1, size * (size - 1) // 2), size) if mix == "pairs" else rng.normal(size=size)
        plan = LoopPlan(
            rng.uniform(),
            rng.uniform(0.2, 4),
            [1.0, 0.0, *rng.uniform(0.1, 0.9, number)][k],
            loss=loss,
            base=base,
            reference=rng.normal(size=size),
            mix=mix,
            temper=[1.0, *rng.uniform(0.3, 2, number)][k],
        )
        yield rng.normal(size=size), random_preferences(rng, size, largest=largest), plan


@pytest.mark.parametrize(("loss", "mix"), KINDS)
def test_the_round_is_the_one_written_out(loss, mix):
    for x, preferences, plan in random_cases(loss, mix):
        parts = used(plan, 4)
        by_hand = law_by_hand(x, plan)
        found = pair_law(x, parts)
        np.testing.assert_allclose(found / found.sum(), by_hand / by_hand.sum(), atol=1e-14)
        np.testing.assert_allclose(after(x, preferences, parts), round_by_hand(x, preferences, plan), atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "mix"), KINDS)
def test_the_jacobian_is_the_slope_of_the_round(loss, mix):
    """Central differences along directions of sum 0; the direction of ones changes nothing but by alpha."""
    for x, preferences, plan in random_cases(loss, mix):
        parts = used(plan, 4)
        found = derivative(x, preferences, parts)
        for direction in centred(np.eye(4)):
            step = 1e-5 * direction
            slope = (after(x + step, preferences, parts) - after(x - step, preferences, parts)) / 2e-5
            np.testing.assert_allclose(centred(found @ direction), slope, atol=3e-8)
        np.testing.assert_allclose(found @ np.ones(4), np.full(4, plan.alpha), atol=1e-12)
        np.testing.assert_allclose(
            found, plan.alpha * np.eye(4) + plan.strength * plan.share * change(x, preferences, parts), atol=1e-14
        )


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["ipo", "dpo"])
def test_mixes_are_one_where_all_answers_are_the_policy_s_own(loss):
    x, preferences, _ = next(random_cases(loss, "answers"))
    first, second = (used(LoopPlan(0.3, 1.5, 1.0, loss=loss, mix=mix, temper=0.7), 4) for mix in ("answers", "pairs"))
    np.testing.assert_allclose(after(x, preferences, first), after(x, preferences, second), atol=1e-12)
    np.testing.assert_allclose(derivative(x, preferences, first), derivative(x, preferences, second), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "mix"), KINDS)
def test_without_own_answers_a_round_only_forgets(loss, mix):
    for x, preferences, plan in random_cases(loss, mix, number=2):
        parts = used(LoopPlan(plan.alpha, plan.strength, 0.0, loss=loss, base=plan.base, mix=mix), 4)
        moved = after(x + centred(np.arange(4.0)), preferences, parts) - after(x, preferences, parts)
        np.testing.assert_allclose(moved, plan.alpha * centred(np.arange(4.0)), atol=1e-12)
        np.testing.assert_allclose(derivative(x, preferences, parts), plan.alpha * np.eye(4), atol=1e-12)


def test_tempered_ipo_turns_by_temper_times_the_plain_matrix():
    x = np.array([0.3, -1, 2, 0])
    pi = softmax(0.4 * x)
    expected = 0.4 * (M4 - 0.5) @ (np.diag(pi) - np.outer(pi, pi))
    found = change(x, M4, used(LoopPlan(0.5, 2.0, temper=0.4), 4))
    np.testing.assert_allclose(found, expected - expected.mean(0), atol=1e-14)
    np.testing.assert_allclose(sampler(x, used(LoopPlan(0.5, 2.0, temper=0.4), 4)), pi, atol=1e-15)


@pytest.mark.slow
def test_bradley_terry_teaches_dpo_the_same_from_anywhere():
    scores = np.array([1, 0.6, 0.2, -0.3])
    for x, _, plan in random_cases("dpo", "answers"):
        parts = used(plan, 4)
        np.testing.assert_allclose(taught(x, bradley_terry(scores), parts), centred(scores), atol=1e-10)
        np.testing.assert_allclose(change(x, bradley_terry(scores), parts), np.zeros((4, 4)), atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "mix"), [("dpo", "answers"), ("ipo", "pairs"), ("dpo", "pairs")])
def test_answers_hardly_ever_drawn_are_taught_by_the_pairs_they_have(loss, mix):
    """Their share underflows; what is left of three answers decides, and the fourth learns from pairs with them."""
    x = np.array([0.5, 0, -0.5, -1e4])
    preferences = random_preferences(np.random.default_rng(2), 4, largest=0.4)
    parts = used(LoopPlan(0.0, 1.0, loss=loss, mix=mix), 4)
    found = taught(x, preferences, parts)
    inner = taught(x[:3], preferences[:3, :3], used(LoopPlan(0.0, 1.0, loss=loss, mix=mix), 3))
    np.testing.assert_allclose(found[:3] - np.mean(found[:3]), inner, atol=1e-12)
    gaps = found[3] - found[:3]
    mean = 0.5 + gaps if loss == "ipo" else 1 / (1 + np.exp(-gaps))
    assert abs(softmax(x[:3]) @ (preferences[3, :3] - mean)) < 1e-12
    step = 1e-5 * np.array([1, -1, 0, 0.0])
    slope = (taught(x + step, preferences, parts) - taught(x - step, preferences, parts)) / 2e-5
    along = change(x, preferences, parts) @ (step / 1e-5)
    np.testing.assert_allclose(centred(along), centred(np.asarray(slope)), atol=1e-7)


@pytest.mark.parametrize("loss", ["ipo", "dpo"])
def test_scores_exist_unless_dpo_meets_an_answer_that_never_loses(loss):
    preferences = M4.copy()
    preferences[0, 1:], preferences[1:, 0] = 1, 0
    parts = used(LoopPlan(0.5, 1.0, loss=loss), 4)
    assert has_scores(M4, parts)
    assert has_scores(preferences, parts) == (loss == "ipo")


@pytest.mark.slow
def test_rounds_are_batched_and_single_precision_is_close():
    x, preferences, plan = next(random_cases("dpo", "pairs"))
    parts = used(plan, 4)
    both = jax.vmap(partial(after, plan=parts))(jnp.stack([x, 2 * x]), jnp.stack([preferences, preferences.T]))
    np.testing.assert_allclose(both[1], after(2 * x, preferences.T, parts), atol=1e-13)
    short = jax.tree.map(lambda leaf: leaf.astype(np.float32), (x, preferences, parts))
    np.testing.assert_allclose(after(*short), both[0], atol=1e-5)
