"""`importance_weights` gives the optimum of the target law, in either form of it; the truth table's third case."""

import jax
import numpy as np
import pytest

from jaxdesign import CompletionPool
from jaxdesign.dynamics import importance_weights, round_optimum, sampler_shift
from jaxdesign.dynamics.importance_weights import target_masses
from tests.support.bent_rewards import all_pairs, labels_of
from tests.support.refusals import check_refusal
from tests.support.tournaments import DESIGN, M4, MU, law_of

RNG = np.random.default_rng(0)
PAIRS = all_pairs(1, 4)
POLICY = np.log(MU)[None]


def weighted_law(pairs, labels, weights, size):
    law = np.zeros((size, size))
    for (_, i, j), n, w in zip(pairs, labels, weights, strict=True):
        law[i, j] = law[j, i] = n * w
    return law


@pytest.mark.slow
def test_weights_of_a_design_have_the_optimum_of_the_target_law():
    target = round_optimum(M4, np.outer(MU, MU), None, loss="dpo", strength=1.0)
    weights = importance_weights(PAIRS, DESIGN, POLICY)
    found = round_optimum(M4, weighted_law(PAIRS, DESIGN, weights, 4), None, loss="dpo", strength=1.0)
    np.testing.assert_allclose(found.scores, target.scores, atol=1e-14)
    np.testing.assert_allclose(found.scores, [0.4544463065, -0.1442575047, -0.2484805921, -0.06170820971], atol=6e-11)


@pytest.mark.slow
def test_effective_share_of_labels():
    mass, design = np.outer(MU, MU), law_of(DESIGN, 4)
    np.fill_diagonal(mass, 0)
    ordered = 1 / np.sum((mass / mass.sum()) ** 2 / np.where(design > 0, design / design.sum(), 1))
    weights = importance_weights(PAIRS, DESIGN, POLICY)
    share = np.dot(DESIGN, weights) ** 2 / (np.sum(DESIGN) * np.dot(DESIGN, weights**2))
    assert (ordered, share) == pytest.approx((0.5041152263,) * 2, abs=6e-11)
    pool = CompletionPool(np.eye(4, 3)[None])
    labels = labels_of(PAIRS, 10 * np.array(DESIGN) - 5, np.full(6, 5))
    shift = sampler_shift(pool, labels, POLICY, beta=1.0)
    assert shift.effective == pytest.approx(0.5041152263, abs=6e-11) and shift.uncovered < 1e-15
    assert shift.largest_weight == pytest.approx(weights.max() * np.sum(DESIGN) / np.dot(DESIGN, weights))


def test_policies_are_the_law_of_two_answers_drawn_from_them():
    policies = RNG.standard_normal((5, 6))
    chances = np.exp(policies) / np.exp(policies).sum(1, keepdims=True)
    masses = chances[:, :, None] * chances[:, None, :]
    pairs = all_pairs(5, 6)
    labels = RNG.integers(1, 5, len(pairs))
    shifted = policies + 700 * np.arange(-2, 3)[:, None]  # a constant per prompt
    found = importance_weights(pairs, labels, shifted)
    np.testing.assert_allclose(found, importance_weights(pairs, labels, 3e5 * masses), rtol=1e-12)
    p, i, j = pairs.T
    by_hand = masses[p, i, j] / masses[p, i, j].sum() * labels.sum() / labels
    np.testing.assert_allclose(found, by_hand, rtol=1e-12)


def test_the_diagonal_does_not_count():
    masses = law_of(DESIGN, 4)[None]
    full = masses + np.diag([1e30, np.nan, np.inf, -1])
    np.testing.assert_array_equal(target_masses(full, PAIRS), target_masses(masses, PAIRS))


def test_nearly_certain_policies_keep_their_digits():
    """1 - sum mu^2 of (1 - 1e-20, 1e-20) is 2e-20, and 0 where it is computed as written."""
    policies = np.array([[0, np.log(1e-20)], [0, np.log(3e-20)]])
    np.testing.assert_allclose(target_masses(policies, np.array([[0, 0, 1], [1, 0, 1]])), [0.25, 0.75], rtol=1e-12)


def test_missing_answers_and_prompts_of_one_answer():
    policies = np.array([[0.0, 0.0, -np.inf], [3.0, -np.inf, -np.inf], [-np.inf] * 3])
    pairs = np.array([[0, 0, 1], [0, 0, 2], [1, 0, 1], [2, 0, 1]])
    np.testing.assert_array_equal(importance_weights(pairs, [1, 1, 1, 1], policies), [4, 0, 0, 0])


def test_repeated_pairs_have_their_labels_added_up():
    once = importance_weights([[0, 0, 1], [0, 1, 2]], [5, 2], POLICY)
    turned = importance_weights([[0, 0, 1], [0, 1, 2], [0, 1, 0]], [4, 2, 1], POLICY)
    np.testing.assert_allclose(turned, once[[0, 1, 0]], rtol=1e-15)


def test_the_mean_weight_is_the_mass_that_is_covered():
    pairs, labels = PAIRS[:4], np.array([3.0, 1, 7, 2])
    mass = 2 * MU[pairs[:, 1]] * MU[pairs[:, 2]] / (1 - np.sum(MU**2))
    mean = labels @ importance_weights(pairs, labels, POLICY) / labels.sum()
    assert mean == pytest.approx(mass.sum(), rel=1e-14) and mean < 1


@pytest.mark.parametrize("temper", [0.0, 0.5, 1.0])
def test_tempering_is_a_power(temper):
    full = importance_weights(PAIRS, DESIGN, POLICY)
    np.testing.assert_allclose(importance_weights(PAIRS, DESIGN, POLICY, temper=temper), full**temper, rtol=1e-14)


def test_the_largest_weight_is_a_limit():
    full = importance_weights(PAIRS, DESIGN, POLICY)
    cut = importance_weights(PAIRS, DESIGN, POLICY, largest=1.0)
    assert full.max() > 1 > full.min()
    np.testing.assert_array_equal(cut, np.minimum(full, 1.0))


def test_a_law_that_pairs_were_drawn_from():
    """With it the number of labels a pair happens to have does not matter."""
    drawn = law_of(DESIGN, 4)[None]
    few = importance_weights(PAIRS[[0, 2, 2]], [1, 1, 3], POLICY, drawn_law=17 * drawn)
    np.testing.assert_allclose(few, importance_weights(PAIRS, DESIGN, POLICY)[[0, 2, 2]], rtol=1e-14)
    same = importance_weights(PAIRS, [9, 1, 1, 1, 1, 1], POLICY, drawn_law=POLICY + 5)
    np.testing.assert_allclose(same, 1, rtol=1e-14)


def test_no_pairs_have_no_weights():
    assert importance_weights(np.zeros((0, 3), int), [], POLICY).shape == (0,)


# ---- refusals


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pairs": [[0, 0]]}, ["pairs:", "(1, 2)", "(p, i, j)"]),
        ({"pairs": np.array([[0.0, 0, 1]])}, ["pairs:", "float64", "integer"]),
        ({"pairs": [[0, 0, 4]]}, ["pairs:", "target_law has 1 prompts of 4"]),
        ({"pairs": [[0, -1, 2]]}, ["pairs:", "target_law has"]),
        ({"pairs": [[0, 2, 2]]}, ["pairs: [0 2 2]", "itself"]),
        ({"labels": [1, 2]}, ["labels:", "(2,)", "(1,)"]),
        ({"labels": [0]}, ["labels: 0 found", "above 0"]),
        ({"labels": [np.inf]}, ["labels: inf found", "finite"]),
        ({"labels": [np.nan]}, ["labels: nan found"]),
        ({"temper": 1.5}, ["temper=1.5", "[0, 1]"]),
        ({"temper": np.nan}, ["temper=nan"]),
        ({"largest": 0}, ["largest"]),
        ({"target_law": np.zeros(4)}, ["target_law:", "(4,)", "(P, K)"]),
        ({"target_law": np.zeros((1, 4, 3))}, ["target_law:", "(1, 4, 3)"]),
        ({"target_law": np.arange(16.0).reshape(1, 4, 4)}, ["target_law:", "symmetric"]),
        ({"target_law": -np.ones((1, 4, 4))}, ["target_law:", "at least 0"]),
        ({"target_law": np.eye(4)[None]}, ["target_law:", "no pair"]),
        ({"target_law": np.array([[0.0, -np.inf, -np.inf, -np.inf]])}, ["target_law:", "two answers"]),
        ({"target_law": np.array([[0.0, np.nan, 0, 0]])}, ["target_law:", "NaN"]),
        ({"drawn_law": np.eye(4)[None]}, ["drawn_law:", "no pair"]),
        ({"drawn_law": np.array([[0.0, -np.inf, 0, 0]])}, ["drawn_law:", "[0 0 1]", "law it was from"]),
    ],
)
def test_refusals_name_the_argument(change, words):
    given = {"pairs": [[0, 0, 1]], "labels": [1], "target_law": POLICY} | change
    pairs, labels, law = (given.pop(name) for name in ("pairs", "labels", "target_law"))
    check_refusal(lambda: importance_weights(pairs, labels, law, **given), ValueError, words)


def test_traced_arguments_are_refused():
    def call(labels):
        return importance_weights(PAIRS, labels, POLICY)

    check_refusal(lambda: jax.jit(call)(np.ones(6)), TypeError, ["importance_weights", "outside of jit"])
