"""Posterior means, draws and Condorcet probabilities; what is said where nothing is observed; refusals."""

import time
from importlib import import_module

import jax
import numpy as np
import pytest
from hypothesis import assume, given
from scipy.stats import beta

from jaxdesign.dynamics.cyclic_share import cyclic_share
from jaxdesign.dynamics.estimate_preferences import PreferenceEstimate, estimate_preferences
from jaxdesign.dynamics.misfit import additivity_misfit, bradley_terry_misfit
from jaxdesign.dynamics.tournaments import condorcet_winner, smith_set, transitivity_violations
from tests.support.preference_tables import labelled, sampled, tables
from tests.support.refusals import check_refusal

WINS, COUNTS = tables([4, 6, 0, 3, 5, 8], [3, 2, 0, 3, 1, 4], 4)


def several(prompts=3, size=5, seed=0):
    rng = np.random.default_rng(seed)
    n = np.triu(rng.integers(0, 7, (prompts, size, size)), 1)
    counts = (n + n.swapaxes(1, 2)).astype(float)
    return sampled(np.full((size, size), 0.6), counts, rng), counts


@pytest.mark.slow
@given(labelled())
def test_mean_is_that_of_beta_posteriors_and_pairs_sum_to_one(labels):
    wins, counts = labels
    assume(counts.any())  # nothing at all is refused
    found = estimate_preferences(wins, counts)
    for i, j in zip(*np.triu_indices(len(wins), 1), strict=True):
        assert found.mean[i, j] == pytest.approx(beta(wins[i, j] + 0.5, wins[j, i] + 0.5).mean(), rel=1e-14)
    np.testing.assert_array_equal(found.mean + found.mean.T, 1)
    np.testing.assert_array_equal(found.observed, counts > 0)
    assert (found.mean[~found.observed] == 0.5).all()
    assert found.draws is None and found.smith_probability is None


@pytest.mark.slow
def test_as_many_wins_either_way_are_a_tie_exactly():
    n = 2 * np.arange(1, 500.0)
    wins, counts = (np.stack(many) for many in zip(*(tables([k], [k / 2], 2) for k in n), strict=True))
    assert (estimate_preferences(wins, counts).mean == 0.5).all()


def test_draws_have_the_moments_of_beta_posteriors():
    found = estimate_preferences(WINS, COUNTS, draws=20_000, seed=1)
    assert found.draws.shape == (20_000, 4, 4)
    np.testing.assert_allclose(found.draws + found.draws.swapaxes(1, 2), 1, rtol=0, atol=1e-15)
    assert (np.diagonal(found.draws, axis1=1, axis2=2) == 0.5).all()
    for i, j in zip(*np.triu_indices(4, 1), strict=True):
        law = beta(WINS[i, j] + 0.5, WINS[j, i] + 0.5)
        assert found.draws[:, i, j].mean() == pytest.approx(law.mean(), abs=5 * law.std() / np.sqrt(20_000))
        assert found.draws[:, i, j].std() == pytest.approx(law.std(), rel=0.03)


def test_draws_of_different_pairs_are_independent():
    above = estimate_preferences(*several(2, 3), draws=10_000).draws[..., *np.triu_indices(3, 1)].reshape(10_000, -1)
    np.testing.assert_allclose(np.corrcoef(above.T), np.eye(6), atol=0.05)


@pytest.mark.slow
def test_seed_decides_and_first_draws_do_not_depend_on_how_many_there_are():
    first, more, other = (
        estimate_preferences(*several(), draws=n, seed=seed).draws for n, seed in ((3, 7), (9, 7), (3, 8))
    )
    np.testing.assert_array_equal(first, more[:3])
    assert (first != other)[..., 0, 1].all()


def test_condorcet_probability_is_the_share_of_draws_and_smith_probability_too():
    wins, counts = several()
    found = estimate_preferences(wins, counts, draws=20_000)
    exact = estimate_preferences(wins, counts).condorcet_probability
    np.testing.assert_array_equal(found.condorcet_probability, exact)
    np.testing.assert_allclose(condorcet_winner(found.draws).mean(axis=0), exact, atol=5 * 0.5 / np.sqrt(20_000))
    np.testing.assert_array_equal(found.smith_probability, smith_set(found.draws).mean(axis=0))
    assert (exact.sum(axis=-1) < 1).all() and (found.smith_probability >= condorcet_winner(found.draws).mean(0)).all()


def test_condorcet_probability_by_hand():
    law = beta(3.5, 1.5)  # 0 won three labels of four, and no other pair has labels
    found = estimate_preferences(*tables([4, 0, 0], [3, 0, 0], 3)).condorcet_probability
    np.testing.assert_allclose(found, [law.sf(0.5) / 2, law.cdf(0.5) / 2, 1 / 4], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("block", [1, 60, 2**18])
def test_prompts_are_judged_each_by_itself(block, monkeypatch):
    # the package's attribute of that name is the function
    monkeypatch.setattr(import_module("jaxdesign.dynamics.estimate_preferences"), "BLOCK", block)
    wins, counts = several()
    together = estimate_preferences(wins, counts)
    for prompt in range(len(wins)):
        alone = jax.tree.leaves(estimate_preferences(wins[prompt], counts[prompt]))
        for value, expected in zip(jax.tree.leaves(together), alone, strict=True):
            assert isinstance(value, np.ndarray) and isinstance(expected, np.ndarray)
            np.testing.assert_allclose(value[prompt], expected, rtol=1e-9, atol=1e-12)


def test_the_parts_are_those_of_the_functions_that_document_them():
    wins, counts = several()
    found = estimate_preferences(wins, counts)
    np.testing.assert_array_equal(found.smith_set, smith_set(found.mean))
    parts = (
        (found.violations, transitivity_violations(found.mean, counts > 0)),
        (found.cyclic, cyclic_share(wins, counts)),
        (found.bradley_terry, bradley_terry_misfit(wins, counts)),
        (found.additive, additivity_misfit(wins, counts)),
    )
    for part, expected in parts:
        for value, other in zip(part, expected, strict=True):
            np.testing.assert_array_equal(value, other)


def test_diagonals_are_ignored_and_any_numbers_are_read():
    full = np.eye(4) * 7
    plain = estimate_preferences(WINS, COUNTS)
    for wins, counts in (
        (WINS + full, COUNTS - full),
        (WINS.tolist(), COUNTS.tolist()),
        (WINS.astype(np.int8), COUNTS.astype(np.float32)),
        (jax.numpy.asarray(WINS, "float32"), COUNTS),
    ):
        found = estimate_preferences(wins, counts)
        assert isinstance(found, PreferenceEstimate) and found.mean.dtype == np.float64
        jax.tree.map(np.testing.assert_array_equal, found, plain)


def test_no_prompts_give_results_of_no_prompts():
    found = estimate_preferences(np.zeros((0, 3, 3)), np.zeros((0, 3, 3)), draws=2)
    assert found.draws.shape == (2, 0, 3, 3) and found.additive.scores.shape == (0, 3)


def test_a_prompt_without_labels_beside_others_keeps_the_prior():
    wins, counts = (np.stack([table[:3, :3], 0 * table[:3, :3]]) for table in (WINS, COUNTS))
    found = estimate_preferences(wins, counts, draws=1)
    assert (found.mean[1] == 0.5).all() and not found.observed[1].any() and found.smith_set[1].all()
    np.testing.assert_allclose(found.condorcet_probability[1], 1 / 4, rtol=1e-12)
    assert found.violations.judged[1] == 0 and np.isnan(found.cyclic.share[1]) and np.isnan(found.additive.p_value[1])


def with_entry(array, place, value):
    array = np.array(array, float)
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("arguments", "kind", "fragments"),
    [
        ((WINS[0], COUNTS), ValueError, ["wins: shape (4,)", "(prompts P, answers K, answers K)"]),
        ((WINS[:3], COUNTS[:3]), ValueError, ["wins: shape (3, 4)", "square"]),
        (([[0.0]], [[0.0]]), ValueError, ["wins: shape (1, 1)", "at least two answers"]),
        ((WINS, COUNTS[None]), ValueError, ["counts: shape (1, 4, 4)", "(4, 4)"]),
        ((with_entry(WINS, (0, 1), np.nan), COUNTS), ValueError, ["wins: nan at answers 0 and 1", "finite"]),
        ((with_entry(WINS, (2, 1), -1), COUNTS), ValueError, ["wins: -1 at answers 2 and 1", "at least 0"]),
        ((WINS, with_entry(COUNTS, (2, 1), np.inf)), ValueError, ["counts: inf at answers 2 and 1"]),
        ((WINS, with_entry(COUNTS, (0, 2), 9)), ValueError, ["counts: 9 at answers 0 and 2", "is 6", "half each"]),
        (
            (np.stack([WINS, WINS]), np.stack([COUNTS, COUNTS + EXTRA]) if (EXTRA := 1 - np.eye(4)) is not None else 0),
            ValueError,
            ["counts: 5 at prompt 1, answers 0 and 1 (12 such value(s) in all)"],
        ),
        ((np.zeros((3, 3)), np.zeros((3, 3))), ValueError, ["counts: 0 for every pair", "give at least one pair"]),
        ((np.zeros((2, 3, 3)), np.zeros((2, 3, 3))), ValueError, ["counts: 0 for every pair"]),
        ((WINS > 1, "many"), TypeError, ["counts: expected an array of numbers, found str"]),
        (({}, COUNTS), TypeError, ["wins: expected an array of numbers, found dict"]),
    ],
)
def test_bad_labels_are_refused(arguments, kind, fragments):
    check_refusal(lambda: estimate_preferences(*arguments), kind, fragments)


def test_draws_that_are_no_number_and_traced_labels_are_refused():
    check_refusal(lambda: estimate_preferences(WINS, COUNTS, draws=-1), ValueError, ["draws=-1", "at least 0"])
    check_refusal(lambda: estimate_preferences(WINS, COUNTS, draws="9"), TypeError, ["draws='9'"])
    traced = jax.jit(lambda wins: estimate_preferences(wins, COUNTS).mean)
    check_refusal(lambda: traced(WINS.astype("float32")), TypeError, ["wins, counts: are traced", "outside of jit"])


@pytest.mark.slow
def test_a_thousand_draws_of_eight_prompts_of_64_answers_take_seconds():
    wins, counts = several(8, 64)
    begin = time.process_time()
    found = estimate_preferences(wins, counts, draws=1_000)
    assert time.process_time() - begin < 30  # 3 s on an idle machine
    assert found.draws.shape == (1_000, 8, 64, 64) and found.smith_probability.shape == (8, 64)
