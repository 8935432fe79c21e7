"""The experiment on real pools, on small synthetic ones: same labels for all, exact gaps, all arms run."""

import json
from argparse import Namespace

import numpy as np
import pytest

import jaxdesign as jd
from bench.experiments import arms, human_votes, real_pools
from bench.experiments.files import settings, write_json
from jaxdesign.preference.labels.labels import FIRST, SECOND, TIE

pytestmark = pytest.mark.thorough

RNG = np.random.default_rng(0)
FEATURES = RNG.standard_normal((24, 5, 10)) * np.linspace(3, 0.5, 10)
THETA = RNG.standard_normal(10)
DATA = {"well_specified": (FEATURES, THETA, None), "human": (FEATURES, None, np.round(FEATURES @ THETA))}


def truth_of(case, seed=0, components=4):
    return real_pools.make_truth(case, DATA[case], components, beta=1.0, ridge=0.1, seed=seed)


def test_prompts_are_split_without_overlap_and_the_truth_is_linear_in_what_is_kept():
    truth = truth_of("well_specified")
    seen, unseen = np.asarray(truth.problem.pool.features), np.asarray(truth.problem.deployment.features)
    assert len(seen) + len(unseen) == 24 and seen.shape[2] == 4
    np.testing.assert_allclose(seen @ truth.parameter, truth.rewards, atol=1e-4)
    assert truth.gap(truth.parameter) == pytest.approx(0, abs=1e-9)
    assert truth.gap(np.zeros(4)) > 0 and truth.accuracy(truth.parameter) == 1


def test_labels_repeat_and_follow_the_reward():
    truth = truth_of("well_specified")
    pairs = jd.baselines.random(truth.problem.pool, jd.LogDet(), jd.Budget(100, per_pair=1), prior=1.0).pairs
    choices = truth.ask(pairs)
    assert (truth.ask(pairs[::-1]) == choices[::-1]).all()
    p, i, j = pairs.T
    ahead = truth.rewards[p, i] > truth.rewards[p, j]
    assert np.mean((choices == FIRST) == ahead) > 0.6


def test_verdicts_are_the_better_score_and_ties_are_ties():
    truth = truth_of("human")
    pairs = jd.baselines.random(truth.problem.pool, jd.LogDet(), jd.Budget(100, per_pair=1), prior=1.0).pairs
    p, i, j = pairs.T
    sign = np.sign(truth.rewards[p, i] - truth.rewards[p, j])
    np.testing.assert_array_equal(truth.ask(pairs), np.select([sign > 0, sign < 0], [FIRST, SECOND], TIE))
    assert (sign == 0).any()


def test_the_best_linear_parameter_beats_the_reference_policy():
    truth = truth_of("human", components=10)
    assert truth.gap(truth.parameter) < truth.gap(np.zeros(10))


@pytest.mark.slow
def test_two_rounds_spend_the_budget_on_different_pairs():
    truth = truth_of("well_specified")
    labels = real_pools.labels_of("trace_two_rounds", truth, 40, 0, {})
    assert len(labels.pairs) == 40 == len(np.unique(labels.pairs, axis=0))
    np.testing.assert_array_equal(labels.choices, truth.ask(labels.pairs))


@pytest.mark.parametrize(
    "arm", ("trace_floor", pytest.param("trace_oracle", marks=pytest.mark.slow), "closest_call", "t_pilaf")
)
def test_arms_choose_as_many_pairs_as_asked(arm):
    pairs = arms.choose(arm, truth_of("well_specified").problem, jd.Budget(30, per_pair=1), seed=1)
    assert len(np.unique(pairs, axis=0)) == 30


@pytest.mark.slow
def test_a_seed_gives_the_same_rows_again_and_the_summary_pairs_them(tmp_path):
    given = Namespace(components=4, beta=1.0, labels=[10, 20], arms=["random", "trace"])
    seeds = [real_pools.one_seed("well_specified", DATA["well_specified"], given, 0.1, s, {}) for s in (0, 1)]
    assert seeds[0] == real_pools.one_seed("well_specified", DATA["well_specified"], given, 0.1, 0, {})
    found = real_pools.summary(seeds)
    own, other = (
        [row["gap"] for one in seeds for row in one["rows"] if row["labels"] == 10 and row["arm"] == arm]
        for arm in ("trace", "random")
    )
    assert found["arms"]["trace"]["ratio"][10][0] == pytest.approx(np.mean(np.divide(own, other)))
    again = json.loads(json.dumps({"well_specified": found}))  # as read from a file of results
    real_pools.plot_gaps(again, str(tmp_path / "gaps.png"))
    assert (tmp_path / "gaps.png").stat().st_size > 5_000


def test_votes_are_turned_with_their_pairs_and_judged():
    """Two prompts; the second's pair is of rows in another order. Scores that follow every vote lose less."""
    features = np.array([[[1.0], [0.0]], [[0.0], [2.0]]])
    choices = np.array([[FIRST, FIRST, TIE], [SECOND, SECOND, SECOND]], np.int8)
    votes = human_votes.Votes(features, np.ones((2, 2), bool), np.array([[0, 0, 1], [1, 0, 1]]), choices)
    assert human_votes.judged(np.zeros(1), votes)[0] == pytest.approx(np.log(2))
    loss, right = human_votes.judged(np.ones(1), votes)
    up = np.log1p(np.exp(-1.0))
    assert right == 1 and loss == pytest.approx((2 * up + (up + np.log1p(np.e)) / 2 + 3 * np.log1p(np.exp(-2.0))) / 6)
    part = human_votes.of_prompts(votes, np.array([1]))
    assert part.pairs.tolist() == [[0, 0, 1]] and (part.choices == SECOND).all()


def test_pairs_without_votes_are_closed():
    votes = human_votes.Votes(
        np.zeros((1, 3, 1)), np.ones((1, 3), bool), np.array([[0, 0, 2]]), np.zeros((1, 3), np.int8)
    )
    assert human_votes.without_votes(votes).tolist() == [[0, 0, 1], [0, 1, 2]]


def test_votes_on_human_pairs_are_read_the_right_way_round(tmp_path, monkeypatch):
    """Rows 3 and 1 are of one prompt: the pair (3, 1) is stored as (1, 3), and its votes change sides."""
    folder = tmp_path / "pandalm"
    folder.mkdir()
    np.save(folder / "features.npy", np.arange(4.0)[:, None].astype(np.float16))
    np.save(folder / "prompt_index.npy", np.array([7, 9, 7, 9]))
    np.save(folder / "pairs.npy", np.array([[0, 2], [3, 1]]))
    np.save(folder / "votes.npy", np.array([[1, 2, 0], [1, 1, 0]], np.int8))
    monkeypatch.setenv("JAXDESIGN_DATA", str(tmp_path))
    votes = human_votes.load()
    assert votes.features[..., 0].tolist() == [[0, 2], [1, 3]] and votes.pairs.tolist() == [[0, 0, 1], [1, 0, 1]]
    assert votes.choices.tolist() == [[FIRST, SECOND, TIE], [SECOND, SECOND, TIE]]


@pytest.mark.slow
def test_human_votes_of_chosen_pairs_are_fitted_and_judged():
    rng = np.random.default_rng(1)
    features = rng.standard_normal((20, 3, 4))
    pairs = np.array([(p, i, j) for p in range(20) for i, j in ((0, 1), (0, 2), (1, 2)) if (p + i + j) % 4])
    margin = features[pairs[:, 0], pairs[:, 1], 0] - features[pairs[:, 0], pairs[:, 2], 0]
    choices = np.repeat(np.where(margin > 0, FIRST, SECOND)[:, None], 3, axis=1)
    votes = human_votes.Votes(features, np.ones((20, 3), bool), pairs, choices)
    seeds = [human_votes.one_seed(votes, [12], 3, [0.3], ["random", "trace"], seed) for seed in (0, 1)]
    table = {line["arm"]: line for line in human_votes.summary(seeds)}
    assert set(table) == {"every_vote", "random", "trace"} and table["random"]["difference"] == (0, 0, 0)
    assert table["every_vote"]["loss"] < table["random"]["loss"] < np.log(2)  # votes follow one feature
    assert table["every_vote"]["labels"] == "all" and table["trace"]["labels"] == 12


def test_results_are_json_without_nan_and_without_paths(tmp_path):
    file = str(tmp_path / "results.json")
    write_json({"a": [1.0, float("nan")], "b": {"c": (float("inf"), "x")}}, file)
    assert json.loads((tmp_path / "results.json").read_text()) == {"a": [1.0, None], "b": {"c": [None, "x"]}}
    given = real_pools.parse(["--json", file, "--plot", file, "--seeds", "3"])
    assert settings(given)["seeds"] == 3 and file not in settings(given).values()
