"""Goodness of fit against optimisers, hand-computed tables and linear programs that know when a fit exists."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from scipy.special import expit
from scipy.stats import chi2

from jaxdesign.dynamics.misfit import additivity_misfit, bradley_terry_misfit
from tests.support.preference_tables import completed, labelled, tables

M4 = completed([0.8, 0.6, 0.3, 0.75, 0.65, 0.85], 4)
EVERY = 1 - np.eye(4)
TESTS = [bradley_terry_misfit, additivity_misfit]


def pairs_of(wins, counts):
    rows, columns = np.nonzero(np.triu(counts, 1))
    return rows, columns, wins[rows, columns], counts[rows, columns]


def components(counts):
    """Answers that are compared, directly or not, by merging names until nothing changes."""
    names = np.arange(len(counts))
    for _ in names:
        for i, j in zip(*np.nonzero(counts), strict=True):
            names[i] = names[j] = min(names[i], names[j])
    return names


@pytest.mark.slow
def test_bradley_terry_figures_given():
    found = bradley_terry_misfit(50 * M4 * EVERY, 50 * EVERY)
    expected = [0.2028480633, 0.1013711381, 0.0003920618915, -0.3046112633]
    np.testing.assert_allclose(found.scores, expected, rtol=0, atol=5e-11)
    assert found.chi_square == pytest.approx(64.08083453, abs=5e-9) and found.dof == 3
    assert found.p_value == pytest.approx(7.887748625e-14, rel=5e-10) and found.fitted


@pytest.mark.slow
@settings(max_examples=60)
@given(labelled())
def test_bradley_terry_scores_exist_exactly_where_no_direction_separates_the_labels(labels):
    """A direction d with d_i >= d_j wherever i won a label of j, and > somewhere, never lowers the likelihood."""
    wins, counts = labels
    winner, loser = np.nonzero(wins)
    differences = np.eye(len(wins))[winner] - np.eye(len(wins))[loser]
    if len(winner):
        objective = -differences.sum(axis=0)
        best = linprog(objective, A_ub=-differences, b_ub=np.zeros(len(winner)), bounds=[(-1, 1)] * len(wins))
        separated = -best.fun > 1e-7
    else:
        separated = False
    found = bradley_terry_misfit(wins, counts)
    assert bool(found.fitted) is not separated
    assert np.isnan(found.chi_square) == np.isnan(found.scores).all() == separated


def fitted_by_bfgs(wins, counts, log_chance):
    """Scores that minimise the negative log likelihood written out pair by pair."""
    rows, columns, won, n = pairs_of(wins, counts)

    def loss(scores):
        margins = scores[rows] - scores[columns]
        return -(won @ log_chance(margins) + (n - won) @ log_chance(-margins))

    return minimize(loss, np.zeros(len(wins)), method="BFGS", options={"gtol": 1e-9, "xrtol": 1e-12}).x


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("test", TESTS)
def test_scores_and_statistic_are_those_of_another_optimiser(test, seed):
    rng = np.random.default_rng(seed)
    size, pairs = 5, 10
    n = np.where(rng.random(pairs) < 0.2, 0, rng.integers(15, 60, pairs))
    wins, counts = tables(n, np.clip(rng.binomial(n, rng.uniform(0.3, 0.7, pairs)), 1 * (n > 0), n - (n > 0)), size)
    bradley_terry = test is bradley_terry_misfit
    chance_of = expit if bradley_terry else (lambda margin: 0.5 + margin)
    scores = fitted_by_bfgs(wins, counts, lambda margin: np.log(np.clip(chance_of(margin), 1e-9, 1)))
    found = test(wins, counts)
    assert found.fitted
    rows, columns, won, labels = pairs_of(wins, counts)
    margins = found.scores[rows] - found.scores[columns]
    np.testing.assert_allclose(margins, scores[rows] - scores[columns], atol=2e-5)
    chance = chance_of(margins)
    chi_square = (labels * (won / labels - chance) ** 2 / (chance * (1 - chance))).sum()
    dof = len(rows) - size + len(set(components(counts)))
    assert found.chi_square == pytest.approx(chi_square, rel=1e-12)
    assert found.dof == dof and found.p_value == pytest.approx(chi2.sf(chi_square, dof), rel=1e-10)
    assert found.least_expected == pytest.approx((labels * np.minimum(chance, 1 - chance)).min(), rel=1e-12)


@settings(max_examples=60)
@given(labelled(), st.integers(1, 50))
def test_additive_scores_always_exist_and_balance_what_is_won(labels, times):
    """sum_j n (p - m) / (c (1 - c)) = 0 with m brought half a label inside of (0, 1) as c; mean 0 by component."""
    wins, counts = (times * a for a in labels)
    found = additivity_misfit(wins, counts)
    assert found.fitted
    m = 0.5 + found.scores[:, None] - found.scores[None]
    end = 0.5 / (counts + 1)
    c = np.minimum(np.maximum(m, end), 1 - end)
    residual = wins - counts * m
    np.testing.assert_allclose((residual / (c * (1 - c))).sum(axis=1), 0, atol=1e-7 * (1 + counts.max()))
    statistic = np.where(counts > 0, residual**2 / (c * (1 - c)) / np.maximum(counts, 1), 0).sum() / 2
    assert found.chi_square == pytest.approx(statistic, rel=1e-9, abs=1e-9)
    names = components(counts)
    for name in set(names):
        assert found.scores[names == name].mean() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("a", [0.05, 0.1, 0.2, 0.4])
def test_a_three_cycle_has_twelve_a_squared_labels(a):
    n = np.full(3, 100)
    found = additivity_misfit(*tables(n, n * (0.5 + np.array([a, -a, a])), 3))
    assert found.chi_square == pytest.approx(12 * a**2 * 100, rel=1e-10) and found.dof == 1
    np.testing.assert_allclose(found.scores, 0, atol=1e-12)


@pytest.mark.parametrize("test", TESTS)
def test_labels_that_a_model_explains_have_no_misfit_by_it_and_have_by_the_other(test):
    scores = np.array([1.2, 0.3, -0.2, -1.3])
    differences = scores[:, None] - scores[None]
    logistic = expit(differences)
    additive = 0.5 + 0.19 * differences
    own, other = (logistic, additive) if test is bradley_terry_misfit else (additive, logistic)
    counts = 1e4 * EVERY
    found = test(counts * own, counts)
    assert found.chi_square == pytest.approx(0, abs=1e-12) and found.p_value == pytest.approx(1)
    factor = 1 if test is bradley_terry_misfit else 0.19
    np.testing.assert_allclose(found.scores, factor * scores, atol=1e-9)
    assert test(counts * other, counts).p_value < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("test", TESTS)
def test_components_are_fitted_each_by_itself(test):
    three, two = tables([9, 7, 8], [6, 2, 3], 3), tables([10], [4], 2)
    wins, counts = np.zeros((6, 6)), np.zeros((6, 6))  # answer 5 is compared with none
    for whole, parts in ((wins, (three[0], two[0])), (counts, (three[1], two[1]))):
        whole[:3, :3], whole[3:5, 3:5] = parts
    found, first, second = test(wins, counts), test(*three), test(*two)
    np.testing.assert_allclose(found.scores, np.concatenate([first.scores, second.scores, [0]]), atol=1e-12)
    assert found.dof == first.dof + second.dof == 1
    assert found.chi_square == pytest.approx(first.chi_square + second.chi_square, abs=1e-12)
    assert found.least_expected == min(first.least_expected, second.least_expected)


@pytest.mark.slow
@pytest.mark.parametrize("test", TESTS)
def test_what_any_scores_explain_is_not_judged(test):
    for wins, counts in (tables([9], [3], 2), tables([5, 0, 4], [2, 0, 1], 3), tables([0, 0, 0], [0, 0, 0], 3)):
        found = test(wins, counts)
        assert found.fitted and found.dof == 0 and np.isnan(found.p_value)
        assert found.chi_square == pytest.approx(0, abs=1e-10)
    assert np.isinf(found.least_expected)


@pytest.mark.slow
def test_an_answer_that_won_all_its_labels_has_no_bradley_terry_fit_and_other_prompts_keep_theirs():
    separated, regular = tables([9, 9, 9], [9, 9, 4], 3), tables([9, 9, 9], [8, 7, 4], 3)
    both = bradley_terry_misfit(*(np.stack(pair) for pair in zip(separated, regular, strict=True)))
    alone = bradley_terry_misfit(*regular)
    assert both.fitted.tolist() == [False, True]
    for value, expected in zip(both, alone, strict=True):
        np.testing.assert_allclose(value[1], expected, rtol=1e-12)
    for value in (both.chi_square, both.p_value, both.scores, both.least_expected):
        assert np.isnan(value[0]).all()


@pytest.mark.slow
@pytest.mark.parametrize("test", TESTS)
def test_renaming_answers_renames_scores_and_nothing_else(test):
    rng = np.random.default_rng(0)
    order = rng.permutation(6)
    n = rng.integers(5, 20, 15)
    wins, counts = tables(n, np.clip(rng.binomial(n, 0.6), 1, n - 1), 6)
    found, renamed = test(wins, counts), test(wins[order][:, order], counts[order][:, order])
    np.testing.assert_allclose(renamed.scores, found.scores[order], atol=1e-12)
    assert renamed.chi_square == pytest.approx(found.chi_square, rel=1e-11) and renamed.dof == found.dof


@pytest.mark.slow
@pytest.mark.parametrize("labels", [1e3, 1e6])
def test_rare_wins_are_fitted(labels):
    """A chain in which each answer wins one label of many: scores as far apart as labels can put them."""
    rows, columns = np.triu_indices(8, 1)
    n = np.where(columns == rows + 1, labels, 0)
    found = bradley_terry_misfit(*tables(n, np.where(n > 0, n - 1, 0), 8))
    np.testing.assert_allclose(-np.diff(found.scores), np.log(labels - 1), rtol=1e-9)
    assert found.fitted and found.least_expected == pytest.approx(1, rel=1e-3)


def extreme_tables(number, size=5):
    """Up to 10^5 labels of a pair beside none or one, unanimous ones among them."""
    rng = np.random.default_rng(0)
    pairs = size * (size - 1) // 2
    n = np.where(rng.random((number, pairs)) < 0.4, 0, np.round(10 ** rng.uniform(0, 5, (number, pairs))))
    won = np.round(n * rng.choice([0, 0.001, 0.5, 0.999, 1], n.shape))
    return (np.stack(many) for many in zip(*(tables(*row, size) for row in zip(n, won, strict=True)), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("test", TESTS)
def test_extreme_tables_are_fitted_whatever_stands_beside_them(test):
    """Full Newton steps alone do not find the scores of every tenth of them."""
    wins, counts = extreme_tables(400)
    found = test(wins, counts)
    additive = test is additivity_misfit
    assert found.fitted.all() == additive and 0.2 < found.fitted.mean()
    margins = found.scores[..., :, None] - found.scores[..., None, :]
    if additive:
        end = 0.5 / (counts + 1)
        chance, inside = 0.5 + margins, np.clip(0.5 + margins, end, 1 - end)
        balance = (wins - counts * chance) / (inside * (1 - inside))
        scale = counts / (inside * (1 - inside))
    else:
        balance, scale = wins - counts * expit(margins), counts
    balance, scale = balance.sum(axis=-1)[found.fitted], scale.sum(axis=-1)[found.fitted]
    assert (np.abs(balance) <= 1e-6 * np.sqrt(1 + scale)).all()  # of the score's standard deviation
    for k in range(0, 400, 4):
        np.testing.assert_allclose(found.scores[k], test(wins[k], counts[k]).scores, rtol=1e-13 if additive else 1e-9)
