"""The experiment on real pools, on small synthetic ones: same labels for all, exact gaps, all arms run."""

import argparse
import json

import numpy as np
import pytest

import jaxdesign as jd
from bench.experiments import arms, pool_arms, pool_truth, real_pools
from bench.experiments.files import plain, settings, write_json
from bench.experiments.pool_arms import ARMS, belief_of, labels_of, proxy_arm, proxy_parameter
from bench.experiments.pool_truth import Data
from jaxdesign import preference as pref
from jaxdesign._arrays import float64
from jaxdesign.exact.random_pairs import random_pairs
from jaxdesign.preference.labels.labels import FIRST, SECOND, TIE

pytestmark = pytest.mark.thorough

RNG = np.random.default_rng(0)
FEATURES = RNG.standard_normal((24, 5, 10)) * np.linspace(3, 0.5, 10)
FEATURES[3, 4] = FEATURES[3, 1]
THETA = RNG.standard_normal(10)
LINEAR = FEATURES @ THETA
DATA = {
    "well_specified": Data(FEATURES, None, THETA),
    "judge_1": Data(FEATURES, LINEAR + 2 * RNG.standard_normal(LINEAR.shape), None),
    "human": Data(FEATURES, np.round(LINEAR), None),
}


def truth_of(case, seed=0, components=4):
    split = pool_truth.make_split(DATA[case].features, components, seed)
    return pool_truth.make_truth(case, DATA[case], split, beta=1.0, seed=seed)


def pairs_of(truth, number):
    return random_pairs(truth.problem.pool, jd.Budget(number, per_pair=1), 0).pairs


def test_prompts_are_split_without_overlap_and_the_truth_is_linear_in_what_is_kept():
    truth = truth_of("well_specified")
    seen, unseen = np.asarray(truth.whole.features), np.asarray(truth.problem.deployment.features)
    assert len(seen) + len(unseen) == 24 and seen.shape[2] == 4 and len(truth.split.held_back) == len(unseen)
    np.testing.assert_allclose(seen @ truth.parameter, truth.rewards, atol=1e-4)
    assert np.abs(truth.gaps(truth.parameter, (1.0,))).max() < 1e-9 and truth.residual == 0


def test_gaps_are_those_of_the_policies_prompt_by_prompt():
    """Against `policy_gap` of the library, prompts averaged; a multiple is one of the parameter."""
    truth, beta = truth_of("judge_1"), 0.7
    truth = truth._replace(problem=truth.problem._replace(beta=beta))
    parameter = RNG.standard_normal(4)
    with float64():
        best = pref.optimal_policy(np.asarray(truth.unseen), beta, truth.problem.deployment.mask)
        found = pref.log_policy(truth.problem.deployment, np.asarray(2 * parameter / beta))
        expected = float(pref.policy_gap(found, best, beta))
    gaps = truth.gaps(parameter, (0.5, 2.0))
    assert gaps.shape == (2, len(truth.split.held_back)) and gaps[1].mean() == pytest.approx(expected, rel=1e-5)


def test_equal_completions_are_candidates_once_and_the_policy_is_judged_on_all():
    seed = next(seed for seed in range(9) if 3 not in truth_of("well_specified", seed).split.held_back)
    truth = truth_of("well_specified", seed)
    masks = np.asarray(truth.problem.pool.mask), np.asarray(truth.whole.mask)
    assert masks[0].sum() == masks[1].sum() - 1 and masks[1].all()
    assert np.asarray(truth.problem.deployment.mask).all()


def test_labels_repeat_follow_the_reward_and_are_drawn_again_for_a_second_time():
    truth = truth_of("well_specified")
    pairs = pairs_of(truth, 100)
    choices = truth.ask(pairs)
    assert (truth.ask(pairs[::-1]) == choices[::-1]).all() and (truth.ask(pairs, 1) != choices).any()
    p, i, j = pairs.T
    ahead = truth.rewards[p, i] > truth.rewards[p, j]
    for time in (0, 1):
        assert np.mean((truth.ask(pairs, time) == FIRST) == ahead) > 0.6


def test_verdicts_are_the_better_score_and_ties_are_ties():
    truth = truth_of("human")
    pairs = pairs_of(truth, 100)
    p, i, j = pairs.T
    sign = np.sign(truth.rewards[p, i] - truth.rewards[p, j])
    np.testing.assert_array_equal(truth.ask(pairs), np.select([sign > 0, sign < 0], [FIRST, SECOND], TIE))
    assert (sign == 0).any()


def test_the_best_linear_parameter_beats_the_reference_policy():
    truth = truth_of("human", components=10)
    assert truth.gaps(truth.parameter, (1.0,)).mean() < truth.gaps(np.zeros(10), (1.0,)).mean()


def test_the_residual_is_what_was_added_to_a_linear_reward():
    """Rewards with residuals of variance v l / 2 a completion, which is white noise where H is: here about it is."""
    white = RNG.standard_normal((60, 6, 8))
    noise = 1.5 * RNG.standard_normal((60, 6))
    data = Data(white, white @ RNG.standard_normal(8) + noise, None)
    truth = pool_truth.make_truth("judge_1", data, pool_truth.make_split(white, 8, 0), 1.0, 0)
    assert truth.residual == pytest.approx(2 * 1.5**2, rel=0.25)  # of a pair of about the median length


@pytest.mark.parametrize("correlation", [0.8, 0.0])
def test_proxies_have_the_correlation_they_are_named_after(correlation):
    truth = truth_of("well_specified")
    H = np.asarray(jd.policy_target(truth.problem.pool), np.float64)
    own, proxy = truth.parameter, proxy_parameter(truth, correlation, 0)
    assert proxy @ H @ proxy == pytest.approx(1)
    assert own @ H @ proxy == pytest.approx(correlation * np.sqrt(own @ H @ own), abs=1e-9)
    belief = belief_of(ARMS[proxy_arm("trace", correlation)], truth, 5.0, 0)
    expected = np.eye(4) / 5 + pool_arms.TAU**2 * np.outer(proxy, proxy)
    np.testing.assert_allclose(belief.covariance, expected, atol=1e-5)


def test_a_smooth_belief_has_the_mean_variance_of_its_ridge():
    truth = truth_of("well_specified")
    H = np.asarray(jd.policy_target(truth.problem.pool), np.float64)
    belief = belief_of(ARMS["trace_smooth"], truth, 5.0, 0)
    np.testing.assert_allclose(belief.covariance, H / np.mean(np.diag(H)) / 5, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm != "two_rounds_known"])
def test_every_arm_spends_its_labels(arm):
    truth = truth_of("well_specified")
    labels = labels_of(arm, truth, 0.5, 32, 0)
    _, counts = np.unique(labels.pairs, axis=0, return_counts=True)
    assert len(labels.pairs) == 32
    assert counts.max() == (2 if arm == "two_rounds_pilot" else 1)
    if arm != "two_rounds_pilot":
        np.testing.assert_array_equal(labels.choices, truth.ask(labels.pairs))


@pytest.mark.slow
def test_two_labels_of_a_pilot_tell_a_large_residual_from_none():
    """Told v, the second round is that of v: not that of the cap, and where v is 0 not that of any residual."""
    found = {}
    for case in ("well_specified", "judge_1"):
        truth = truth_of(case)
        held = labels_of("two_rounds_pilot", truth, 0.1, 120, 0)
        pairs, wins, counts = pref.counted(held)
        twice = counts == 2
        assert twice.sum() == 15
        found[case] = pref.estimate_residual(
            truth.problem.pool, pairs[twice], wins[twice], counts[twice], prior=0.1
        ).variance
    assert found["judge_1"] > found["well_specified"]


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_and_gives_the_same_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(real_pools, "load", DATA.__getitem__)
    arguments = ["--cases", "well_specified", "human", "--arms", "random_distinct", "trace", "random_distinct_proxy_80"]
    arguments += ["--labels", "10", "20", "--tuning-seeds", "1", "--components", "4", "--seeds", "2"]
    whole = real_pools.main([*arguments, "--lines", str(tmp_path / "a.jsonl"), "--json", str(tmp_path / "a.json")])
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    (tmp_path / "b.jsonl").write_text("".join(line + "\n" for line in lines[: len(lines) // 2]))
    again = real_pools.main([*arguments, "--lines", str(tmp_path / "b.jsonl")])
    assert plain(again["cases"]) == plain(whole["cases"])
    monkeypatch.setattr(real_pools, "load", None)  # a report needs no data
    told = real_pools.main([*arguments, "--lines", str(tmp_path / "b.jsonl"), "--report"])
    assert plain(told["cases"]) == plain(whole["cases"])
    found = whole["cases"]["well_specified"]
    by_hand = [json.loads(line) for line in lines]
    for tuning in real_pools.TUNED:
        rows = found[tuning]
        gaps = {arm: row["gap"][20] for arm, row in rows.items()}
        assert found["seeds"] == [100, 101] and gaps["ceiling"] < gaps["random_distinct"] < gaps["reference"]
        assert rows["random_distinct"]["ratio"][10] == (1, 1, 1)
        assert "random_distinct_proxy_80" not in whole["cases"]["human"][tuning]
        means = {
            arm: np.mean([line[tuning]["gaps"] for line in by_hand if _is(line, arm, 10) and "given" in line])
            for arm in ("trace", "random_distinct")
        }
        assert rows["trace"]["ratio"][10][0] == pytest.approx(means["trace"] / means["random_distinct"])
    tried = np.array(next(line["mean_gaps"] for line in by_hand if _is(line, "trace", 10) and "mean_gaps" in line))
    free, given = (found[tuning]["trace"]["settings"][10] for tuning in ("free", "given"))
    ridge = found["ridges"]["random_distinct"]["10"]
    at = lambda setting: tried[real_pools.RIDGES.index(setting.ridge), real_pools.MULTIPLES.index(setting.multiple)]  # noqa: E731
    assert at(free) == tried.min() and given.ridge == ridge
    assert at(given) == tried[real_pools.RIDGES.index(ridge)].min()
    drawn = json.loads((tmp_path / "a.json").read_text())
    real_pools.plot_gaps(drawn["cases"], str(tmp_path / "gaps.png"))
    assert (tmp_path / "gaps.png").stat().st_size > 5_000


def _is(line, arm, number):
    return (line["case"], line.get("arm"), line.get("labels")) == ("well_specified", arm, number)


@pytest.mark.slow
def test_lines_tuned_on_other_seeds_are_not_mixed(tmp_path, monkeypatch):
    monkeypatch.setattr(real_pools, "load", DATA.__getitem__)
    arguments = ["--cases", "well_specified", "--arms", "random_distinct", "--labels", "10", "--components", "4"]
    file = tmp_path / "lines.jsonl"
    real_pools.main([*arguments, "--lines", str(file), "--tuning-seeds", "1", "--seeds", "2"])
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[-1]["given"]["multiple"] += 1
    with pytest.raises(SystemExit, match="tuned on have changed"):
        real_pools.summary(lines, real_pools.parse([*arguments, "--lines", str(file)]))


def test_results_are_json_without_nan_and_without_paths(tmp_path):
    file = str(tmp_path / "results.json")
    write_json({"a": [1.0, float("nan")], "b": {"c": (float("inf"), "x")}}, file)
    assert json.loads((tmp_path / "results.json").read_text()) == {"a": [1.0, None], "b": {"c": [None, "x"]}}
    given = real_pools.parse(["--json", file, "--plot", file, "--lines", file, "--seeds", "3"])
    assert settings(given)["seeds"] == 3 and file not in settings(given).values()
    kept = settings(argparse.Namespace(pool=file, labels=[1, 2], arm="trace"))
    assert kept == {"pool": "results.json", "labels": [1, 2], "arm": "trace"}


def test_seeds_that_were_tuned_on_are_not_reported(capsys):
    with pytest.raises(SystemExit):
        real_pools.parse(["--lines", "x", "--first-seed", "990"])
    assert "1000" in capsys.readouterr().err


def test_arms_of_both_kinds_have_names_and_colours():
    from bench.rules import in_order

    assert set(in_order(ARMS)) == set(ARMS) and arms.UNIT * np.pi / 8 == 1
