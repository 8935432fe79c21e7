"""What clustered votes say of a share, against closed forms, exact search, and simulation with known truth."""

import numpy as np
import pytest
from scipy import integrate, special, stats

from jaxdesign.dynamics.proportions import (
    above_half,
    clustering,
    log_e_value,
    quantile,
    votes_for_e_value,
    votes_for_interval,
    wilson_interval,
)

Z = quantile(0.05)


def leads(wins, losses):
    return np.repeat([1.0, -1.0], [wins, losses])


def closed_form(wins, votes):
    """log of 2^n B(1/2 + V, 1/2 + n - V) / B(1/2, 1/2)."""
    return special.betaln(0.5 + wins, 0.5 + votes - wins) - np.log(np.pi) + votes * np.log(2)


# ---- Wilson's interval


@pytest.mark.parametrize(
    ("wins", "low", "high"),
    [
        (1000, 0.4781079508, 0.5218920492),
        (800, 0.378741108, 0.4216423014),
        (1044, 0.5000869368, 0.5438287131),
    ],
)
def test_wilson_interval_of_the_truth_table(wins, low, high):
    assert wilson_interval(wins / 2000, 2000, Z) == pytest.approx((low, high), abs=6e-11)


@pytest.mark.parametrize(("share", "votes"), [(0.0, 7.0), (0.3, 12.5), (1.0, 40.0)])
def test_wilson_interval_ends_where_the_score_test_rejects(share, votes):
    for end in wilson_interval(share, votes, Z):
        if 0 < end < 1:
            assert votes * (share - end) ** 2 == pytest.approx(Z**2 * end * (1 - end), rel=1e-9)


def test_quantiles():
    assert pytest.approx(1.959963984540054, abs=1e-14) == Z
    assert quantile(0.1, 7) == pytest.approx(stats.t.ppf(0.95, 7), rel=1e-12)


# ---- clustering


def test_one_vote_a_prompt_is_no_clustering():
    assert clustering(np.array([1.0, 0, 1, 1]), np.ones(4)) == (1.0, np.inf)
    assert clustering(np.array([1.0]), np.ones(1)) == (1.0, np.inf)


def test_with_equal_votes_the_effect_is_the_variance_of_prompt_means_over_that_of_votes():
    wins, votes = np.array([0.0, 5, 4, 1, 5, 0, 2.5]), np.full(7, 5.0)
    share = wins.sum() / 35
    expected = np.var(wins / 5, ddof=1) / 7 / (share * (1 - share) / 34)
    assert expected > 1
    assert clustering(wins, votes) == (pytest.approx(expected, rel=1e-12), 6)


def test_every_vote_written_down_several_times_counts_once():
    """P prompts of k equal votes say as much as P prompts of one vote, but for the k P - 1 of the unbiased variance."""
    single = np.repeat([1.0, 0.0], [30, 20])
    effect, freedom = clustering(8 * single, np.full(50, 8.0))
    assert freedom == 49
    assert effect == pytest.approx(8 * (400 - 1) / 400 * 50 / 49, rel=1e-12)


def test_unequal_votes_use_the_variance_of_a_ratio_of_sums():
    """Two kinds of prompts with the same share: whatever their votes, nothing is clustered, and the effect is 1."""
    wins, votes = np.array([1.0, 2, 4, 8]), np.array([2.0, 4, 8, 16])
    assert clustering(wins, votes).effect == 1  # all prompts at exactly one half: below 1, and taken as 1
    apart = clustering(np.array([2.0, 0, 8, 0]), votes).effect
    share = 10 / 30
    spread = 4 / 3 * sum((x - share * n) ** 2 for x, n in ((2, 2), (0, 4), (8, 8), (0, 16))) / 900
    assert apart == pytest.approx(spread / (share * (1 - share) / 29), rel=1e-12)


@pytest.mark.parametrize(("wins", "votes"), [([8, 8, 4], [8, 8, 4]), ([0, 0, 0], [8, 8, 4]), ([3], [8])])
def test_where_nothing_can_be_estimated_prompts_count_as_one_vote_each(wins, votes):
    wins, votes = np.array(wins, float), np.array(votes, float)
    assert clustering(wins, votes) == ((votes**2).sum() / votes.sum(), np.inf)


# ---- evidence at any time


@pytest.mark.parametrize(("wins", "value"), [(1100, 399.5605302), (1044, 0.1237189798)])
def test_e_values_of_the_truth_table(wins, value):
    assert np.exp(log_e_value(leads(wins, 2000 - wins))) == pytest.approx(value, rel=2e-10)
    assert np.exp(closed_form(wins, 2000)) == pytest.approx(value, rel=2e-10)


@pytest.mark.parametrize(("wins", "losses"), [(0, 1), (3, 0), (7, 5), (200, 301), (100_000, 0)])
def test_e_value_of_single_votes_is_the_bayes_factor_of_jeffreys_prior(wins, losses):
    assert log_e_value(leads(wins, losses)) == pytest.approx(closed_form(wins, wins + losses), rel=1e-11, abs=1e-11)


def test_e_value_of_any_leads_is_the_integral_over_bets():
    y = np.random.default_rng(3).uniform(-0.6, 1, 25)
    expected = integrate.quad(lambda angle: np.prod(1 + np.cos(angle) * y), 0, np.pi, epsabs=0, epsrel=1e-12)[0] / np.pi
    assert log_e_value(y) == pytest.approx(np.log(expected), rel=1e-11)
    assert log_e_value(-y) == pytest.approx(log_e_value(y), rel=1e-12)


@pytest.mark.parametrize("gain", [0.1, 0.5, 1.0])
def test_expected_wealth_stays_the_same_under_any_law_of_mean_zero(gain):
    """The next lead is `gain`, or -1/2 with the probability that makes the mean 0."""
    past = np.array([0.25, -1, 0.75, 0.75])
    up = 0.5 / (0.5 + gain)
    after = up * np.exp(log_e_value(np.append(past, gain))) + (1 - up) * np.exp(log_e_value(np.append(past, -0.5)))
    assert after == pytest.approx(np.exp(log_e_value(past)), rel=1e-12)


# ---- posterior and planning


def test_posterior_of_the_truth_table():
    assert above_half(1044, 956) == pytest.approx(0.9754645669, abs=6e-11)
    assert above_half(5, 3) == pytest.approx(stats.beta(5.5, 3.5).sf(0.5), rel=1e-12)


@pytest.mark.parametrize(("lead", "votes"), [(0.01, 9604), (0.02, 2401), (0.05, 385), (0.1, 97)])
def test_votes_for_an_interval_above_one_half(lead, votes):
    assert votes_for_interval(0.5 + lead, Z) == votes_for_interval(0.5 - lead, Z) == votes
    assert wilson_interval(0.5 + lead, votes, Z)[0] > 0.5 >= wilson_interval(0.5 + lead, votes - 1, Z)[0]


@pytest.mark.parametrize("lead", [0.01, 0.042, 0.1, 0.3, 0.45])
@pytest.mark.parametrize("level", [0.05, 0.001])
def test_votes_for_an_e_value_are_the_least_that_reach_it(lead, level):
    votes = np.arange(1, 200_000)
    least = votes[np.argmax(closed_form((0.5 + lead) * votes, votes) >= -np.log(level))]
    assert abs(votes_for_e_value(0.5 + lead, level) - least) <= 1.5


def test_without_a_lead_no_number_of_votes_is_enough():
    assert votes_for_interval(0.5, Z) == votes_for_e_value(0.5, 0.05) == np.inf
    # near one half 2 n d^2 grows like log n; nothing cancels
    votes, lead = votes_for_e_value(0.5 + 1e-7, 0.05), 1e-7
    assert 2 * votes * lead**2 == pytest.approx(np.log(20) + np.log(np.pi * votes / 2) / 2, rel=1e-6)
    assert 1 < votes_for_e_value(0.9, 0.999) < 2  # a level that any evidence reaches


# ---- simulation with known truth


def clustered(runs, prompts, share=0.5, alike=4.6, votes=8, seed=0):
    """Wins (runs, prompts) of `votes` each; probabilities of prompts from Beta(alike share, alike (1 - share))."""
    rng = np.random.default_rng(seed)
    return rng.binomial(votes, rng.beta(alike * share, alike * (1 - share), (runs, prompts))).astype(float)


def coverage(runs, share=0.5, votes=8):
    """Shares of runs whose interval holds the truth: of independent votes, and with the design effect."""
    held = np.zeros(2)
    for wins in runs:
        found, total = wins.sum() / (votes * len(wins)), votes * len(wins)
        effect, freedom = clustering(wins, np.full(len(wins), float(votes)))
        intervals = (found, total, Z), (found, total / effect, quantile(0.05, freedom))
        held += [low <= share <= high for low, high in (wilson_interval(*one) for one in intervals)]
    return held / len(runs)


def test_coverage_of_four_hundred_prompts_of_eight_votes():
    """Counting votes as independent covers .81; counting prompts covers what is asked, within simulation error."""
    naive, honest = coverage(clustered(4000, 400))
    assert naive == pytest.approx(0.81, abs=0.02)
    assert honest == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize("share", [0.5, 0.8])
@pytest.mark.parametrize("prompts", [5, 10, 20])
def test_coverage_of_few_prompts_is_not_too_small(prompts, share):
    naive, honest = coverage(clustered(4000, prompts, share), share)
    assert naive < 0.88 and honest > 0.94


def ever(runs, threshold, every=5):
    """Share of runs (runs, prompts) of leads whose e-value reaches the threshold at one of the looks."""
    looks = range(every, runs.shape[1] + 1, every)
    return np.mean([any(log_e_value(run[:stop]) >= np.log(threshold) for stop in looks) for run in runs])


@pytest.mark.slow
@pytest.mark.parametrize("level", [0.05, 0.2])
def test_looking_after_every_few_prompts_decides_wrongly_at_most_as_often_as_allowed(level):
    """Ville: with clustered votes too, while the closed form of votes counted as independent does not hold then."""
    wins = clustered(500, 200, alike=1.0, seed=1)
    error = 3 * (level * (1 - level) / len(wins)) ** 0.5
    found = ever(2 * wins / 8 - 1, 1 / level)
    assert 0.1 * level < found <= level + error
    totals, votes = np.cumsum(wins, axis=1), 8 * np.arange(1, wins.shape[1] + 1)
    assert (closed_form(totals, votes[None]) >= -np.log(level)).any(axis=1).mean() > 1.5 * level + error


def test_fixed_intervals_do_not_survive_looking():
    """Why there are two kinds of evidence."""
    wins = clustered(500, 200, seed=2)
    wrong = 0
    for run in wins:
        for stop in range(10, 201, 10):
            effect, freedom = clustering(run[:stop], np.full(stop, 8.0))
            low, high = wilson_interval(run[:stop].mean() / 8, 8 * stop / effect, quantile(0.05, freedom))
            if not low <= 0.5 <= high:
                wrong += 1
                break
    assert wrong / len(wins) > 0.12
