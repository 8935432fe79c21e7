"""`boundary_score` against the truth table, against policies whose share of wins is known, and against itself."""

import numpy as np
import pytest
from scipy import optimize

from jaxdesign.dynamics.boundary_score import boundary_score
from jaxdesign.dynamics.proportions import wilson_interval
from tests.support.bradley_terry import divergence, share_won, softmax, votes_between

REWARDS = np.array([2.0, 1, 0, -1, -2])
OFF = softmax(0.3 * REWARDS)


def single(wins, votes):
    """One vote a prompt."""
    return np.arange(votes) < wins, np.ones(votes)


def policy(t):
    """The path of T18: from a sharp policy on bad answers to one on good answers."""
    return softmax((t - 0.5) * REWARDS)


# ---- the truth table


@pytest.mark.parametrize(
    ("wins", "low", "high"),
    [
        (1000, 0.4781079508, 0.5218920492),
        (800, 0.378741108, 0.4216423014),
        (1044, 0.5000869368, 0.5438287131),
    ],
)
def test_intervals_of_single_votes(wins, low, high):
    found = boundary_score(*single(wins, 2000))
    assert (found.score, found.low, found.high) == pytest.approx((wins / 2000, low, high), abs=6e-11)
    assert (found.design_effect, found.effective_votes, found.votes, found.prompts) == (1, 2000, 2000, 2000)


def test_evidence_and_posterior_of_single_votes():
    assert np.exp(boundary_score(*single(1100, 2000)).log_e_value) == pytest.approx(399.5605302, rel=2e-10)
    found = boundary_score(*single(1044, 2000))
    assert np.exp(found.log_e_value) == pytest.approx(0.1237189798, rel=2e-10)
    assert found.posterior == pytest.approx(0.9754645669, abs=6e-11)


@pytest.mark.parametrize(("t", "score"), [(0, 0.2727395534), (0.5, 0.4093067532), (1, 0.5526397569), (2, 0.6873294201)])
def test_along_a_path_of_better_policies_the_score_rises(t, score):
    """Expected votes of 1,000 for the score's own arithmetic; then real ones."""
    won = share_won(policy(t), OFF, REWARDS)
    assert boundary_score([1000 * won], [1000]).score == pytest.approx(score, abs=6e-11)
    found = boundary_score(votes_between(policy(t), OFF, REWARDS, 4000, 5, seed=1), np.full(4000, 5))
    assert found.low < score < found.high
    assert (found.decided, found.evidence) == (np.sign(score - 0.5), "e-value")


def test_the_path_crosses_one_half_once_where_policies_are_the_same():
    def lead(t):
        return boundary_score([1000 * share_won(policy(t), OFF, REWARDS)], [1000]).score - 0.5

    assert optimize.brentq(lead, 0, 2, xtol=1e-14) == pytest.approx(0.8, abs=1e-12)
    assert np.array_equal(np.sign([lead(t) for t in np.linspace(0, 2, 20)]), np.repeat([-1, 1], [8, 12]))
    found = boundary_score(votes_between(policy(0.8), OFF, REWARDS, 4000, 5, seed=2), np.full(4000, 5))
    assert found.decided == 0 and found.evidence == "none"


def test_winning_more_than_half_is_not_being_closer_to_the_ideal_policy():
    rewards = np.array([2.0, 0, -2])
    ideal, on, off = softmax(rewards), np.array([0.97, 0.02, 0.01]), np.array([0.8, 0.15, 0.05])
    assert ideal == pytest.approx([0.8668133322, 0.1173104278, 0.01587623998], abs=6e-11)
    assert boundary_score([1000 * share_won(on, off, rewards)], [1000]).score == pytest.approx(0.5686443816, abs=6e-11)
    assert (divergence(ideal, on), divergence(ideal, off)) == pytest.approx((0.1173788825, 0.02247928276), abs=6e-11)
    found = boundary_score(votes_between(on, off, rewards, 2000, 4, seed=0), np.full(2000, 4))
    assert found.decided == 1 and found.low < 0.5686443816 < found.high
    assert divergence(ideal, on) > 5 * divergence(ideal, off)
    assert "not closeness" in boundary_score.__doc__


# ---- decisions


def test_two_thousand_single_votes_decide_a_lead_of_22_or_of_42_in_a_thousand():
    decided = {wins: boundary_score(*single(wins, 2000)) for wins in (1043, 1044, 1083, 1084, 956)}
    assert [(found.decided, found.evidence) for found in decided.values()] == [
        (0, "none"),
        (1, "interval"),
        (1, "interval"),
        (1, "e-value"),
        (-1, "interval"),
    ]


@pytest.mark.parametrize("wins", [1010, 1040])
def test_votes_still_needed_are_the_least_that_decide(wins):
    found = boundary_score(*single(wins, 2000))
    total = 2000 + found.more_votes
    lead = wins / 2000
    assert wilson_interval(lead, total, 1.959963984540054)[0] > 0.5
    assert wilson_interval(lead, total - 1, 1.959963984540054)[0] <= 0.5
    assert found.more_votes_any_time > found.more_votes > 0
    # 25 times as many at the same score decide, or do not, as was said
    more = boundary_score(*single(25 * wins, 50_000))
    assert (more.more_votes == 0) == (total <= 50_000)
    assert (more.more_votes_any_time == 0) == (2000 + found.more_votes_any_time <= 50_000)


def test_votes_still_needed_count_clusters():
    """The same prompts again and again, as many times as it takes."""
    rng = np.random.default_rng(5)
    wins = rng.binomial(8, rng.beta(2, 1.9, 60)).astype(float)
    found = boundary_score(wins, np.full(60, 8))
    assert found.design_effect > 1.5 and found.decided == 0 and found.effective_votes == 480 / found.design_effect
    times = int(np.ceil((480 + found.more_votes) / 480))
    assert times > 2
    assert boundary_score(np.tile(wins, times), np.full(60 * times, 8)).decided == 1
    assert boundary_score(np.tile(wins, times - 2), np.full(60 * (times - 2), 8)).decided == 0


def test_votes_still_needed_at_any_time_count_clusters():
    """What is said after 60 prompts holds for the same prompts again and again."""
    rng = np.random.default_rng(7)
    wins = rng.binomial(8, rng.beta(2, 1.7, 60)).astype(float)
    found, times = boundary_score(wins, np.full(60, 8)), 1
    while boundary_score(np.tile(wins, times), np.full(60 * times, 8)).evidence != "e-value":
        times += 1
    assert found.design_effect > 1.5 and times > 5
    assert np.ceil((480 + found.more_votes_any_time) / 480) == times


def test_evidence_is_on_the_share_of_votes_whatever_their_numbers():
    """Ten prompts of eight votes that are mostly lost, sixty of one vote that are won: one half of all votes."""
    wins, votes = np.repeat([1, 1], [10, 60]), np.repeat([8, 1], [10, 60])
    found = boundary_score(wins, votes)
    assert found.score == 0.5 and found.log_e_value < 0 and found.decided == 0
    assert boundary_score(np.append(wins, np.ones(60)), np.append(votes, np.ones(60))).decided == 1


def test_at_one_half_no_number_of_votes_is_enough():
    found = boundary_score([4, 1, 7], [8, 8, 8])
    assert (found.more_votes, found.more_votes_any_time, found.decided) == (np.inf, np.inf, 0)
    assert found.posterior == pytest.approx(0.5, abs=1e-15) and found.log_e_value < 0


def test_few_prompts_do_not_decide_however_many_votes_they_have():
    assert boundary_score([900, 700], [1000, 1000]).evidence == "none"
    assert boundary_score([1000], [1000]).effective_votes == 1
    unanimous = boundary_score(np.full(12, 8), np.full(12, 8))
    assert unanimous.effective_votes == 12 and unanimous.decided == 1 and unanimous.high == 1


# ---- flips of the scorer


def test_flips_are_taken_off_score_and_interval():
    wins, votes = votes_between(policy(1.2), OFF, REWARDS, 300, 5, seed=3), np.full(300, 5)
    plain, found = boundary_score(wins, votes), boundary_score(wins, votes, flip=0.2)
    for name in ("score", "low", "high"):
        assert getattr(found, name) - 0.5 == pytest.approx((getattr(plain, name) - 0.5) / 0.6, rel=1e-12)
    same = ("decided", "evidence", "log_e_value", "posterior", "more_votes", "more_votes_any_time", "design_effect")
    assert all(getattr(found, name) == getattr(plain, name) for name in same)
    assert boundary_score([9, 8, 9], [9, 9, 9], flip=0.3).score == 1  # no share is above 1


def test_scores_of_a_scorer_that_flips_are_those_of_one_that_does_not():
    truth = share_won(policy(1), OFF, REWARDS)
    wins = votes_between(policy(1), OFF, REWARDS, 20_000, 4, seed=4, flip=0.25)
    found = boundary_score(wins, np.full(20_000, 4), flip=0.25)
    assert found.low < truth < found.high and found.high - found.low < 0.02
    assert not found.low < boundary_score(wins, np.full(20_000, 4)).score < found.high


def test_flips_cost_votes_by_the_square_of_what_they_leave():
    clean, noisy = (boundary_score(*single(wins, 10_000)) for wins in (5080, 5040))  # leads .008 and half of it
    assert (10_000 + noisy.more_votes) == pytest.approx(4 * (10_000 + clean.more_votes), rel=1e-3)
    assert boundary_score(*single(5040, 10_000), flip=0.25).score == pytest.approx(clean.score, abs=1e-12)


# ---- what changes nothing, and what turns round


def random_votes(seed=6):
    rng = np.random.default_rng(seed)
    votes = rng.integers(1, 9, 40)
    return rng.binomial(2 * votes, rng.beta(3, 2, 40)) / 2, votes  # halves: ties


def numbers(found):
    return np.array([value for value in found if not isinstance(value, str)])


def test_order_of_prompts_and_prompts_without_votes_change_nothing():
    wins, votes = random_votes()
    order = np.random.default_rng(0).permutation(40)
    found = boundary_score(wins, votes)
    assert numbers(boundary_score(wins[order], votes[order])) == pytest.approx(numbers(found), rel=1e-12)
    assert numbers(boundary_score([*wins, 0], [*votes, 0])) == pytest.approx(numbers(found), rel=1e-12)


def test_the_other_side_sees_the_mirror_image():
    wins, votes = random_votes()
    ours, theirs = boundary_score(wins, votes), boundary_score(votes - wins, votes)
    assert (theirs.score, theirs.low, theirs.high) == pytest.approx((1 - ours.score, 1 - ours.high, 1 - ours.low))
    assert ours.decided == -theirs.decided == 1
    assert ours.posterior == pytest.approx(1 - theirs.posterior, abs=1e-12)
    assert ours.log_e_value == pytest.approx(theirs.log_e_value, rel=1e-12)
    assert ours.design_effect == pytest.approx(theirs.design_effect, rel=1e-12)


# ---- refusals


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([1, 2], [2, -1]), {}, ValueError, r"votes: -1 at prompt 1; must be whole and at least 0"),
        (([1, 2], [2, 2.5]), {}, ValueError, r"votes: 2.5 at prompt 1; must be whole"),
        (([1, 3], [2, 2]), {}, ValueError, r"on_wins: 3 at prompt 1; must be from 0 to the prompt's votes"),
        (([1, np.nan], [2, 2]), {}, ValueError, r"on_wins: nan at prompt 1; must be finite"),
        (([1], [2, 2]), {}, ValueError, r"on_wins: shape \(1,\) found; expected \(2,\) as votes"),
        ((1100, 2000), {}, ValueError, r"votes: shape \(\) found; expected \(P,\), one number per prompt"),
        (([0, 0], [0, 0]), {}, ValueError, r"votes: none found"),
        (([], []), {}, ValueError, r"votes: none found"),
        ((["a"], [1]), {}, TypeError, r"on_wins: expected one number per prompt, found list"),
        (([1], [2]), {"level": 0.0}, ValueError, r"level=0: must be above 0 and below 1"),
        (([1], [2]), {"flip": 0.5}, ValueError, r"flip=0.5: must be at least 0 and below 1/2"),
        (([1], [2]), {"flip": "no"}, TypeError, r"flip='no': expected a number"),
    ],
)
def test_bad_input_is_named(arguments, options, error, message):
    with pytest.raises(error, match=message):
        boundary_score(*arguments, **options)
