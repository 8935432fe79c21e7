"""The log-linear experiment on stored completions: its labels, its splits, its statistics, and that it goes on."""

import json

import numpy as np
import pytest

import jaxdesign as jd
from bench.experiments import llama_cases
from bench.experiments import llama_log_linear as experiment
from bench.experiments.files import append_lines, read_lines
from bench.experiments.llama_summary import panels_of, summary

pytestmark = pytest.mark.thorough
PROMPTS, COMPLETIONS, DIM = 30, 6, 70


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two pools as `llama_pool` writes them: rewards linear in the features, all but the noise, and half of them."""
    folder = tmp_path_factory.mktemp("pools")
    for name, seed in (("tuning", 0), ("reported", 1)):
        rng = np.random.default_rng(seed)
        features = rng.normal(size=(PROMPTS, COMPLETIONS, DIM)).astype(np.float16)
        rewards = {name: features[..., k] + 0.3 * rng.normal(size=features.shape[:2]) for k, name in enumerate(
            llama_cases.REWARDS)}  # fmt: skip
        halves = {f"half_{name}": values + rng.normal(size=values.shape) for name, values in rewards.items()}
        texts = np.array([[f"{p} {k % 5}" for k in range(COMPLETIONS)] for p in range(PROMPTS)])  # the last is a repeat
        np.savez(folder / f"{name}.npz", mean=features, texts=texts, **rewards, **halves)
    return folder


def arguments_of(files, lines, *more):
    given = ["--tuning", str(files / "tuning.npz"), "--pool", str(files / "reported.npz"), "--lines", str(lines)]
    return [*given, "--labels", "24", "--completions", "4", "6", "--tuning-splits", "1", *more]


def loaded(files, name="reported"):
    path = str(files / f"{name}.npz")
    return llama_cases.load(path, llama_cases.temperatures_of(path))


def test_the_temperature_makes_labels_right_as_often_as_asked():
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(50, 8)) * 7
    rewards[:, 1] = rewards[:, 0]  # ties do not count
    T = llama_cases.temperature(rewards)
    i, j = np.triu_indices(8, 1)
    margin = np.abs(rewards[:, i] - rewards[:, j])
    assert np.mean(1 / (1 + np.exp(-margin[margin > 0] / T))) == pytest.approx(llama_cases.AGREEMENT, abs=1e-9)
    assert llama_cases.temperature(3 * rewards) == pytest.approx(3 * T)


def test_repeated_texts_are_no_candidates_but_count_in_the_deployment(files):
    case = llama_cases.make_case(loaded(files), "raw", COMPLETIONS, 0)
    assert not np.asarray(case.pool.mask)[:, -1].any() and np.asarray(case.pool.mask)[:, :-1].all()
    assert np.asarray(case.deployment.mask).all()


def test_splits_are_alike_for_variants_and_numbers_of_completions(files):
    pool = loaded(files)
    one, other = llama_cases.make_case(pool, "raw", 4, 3), llama_cases.make_case(pool, "clipped", COMPLETIONS, 3)
    assert (one.training == other.training).all() and (one.luck == other.luck[:, :4, :4]).all()
    assert not set(one.training) & set(one.held_back)
    assert len(one.held_back) + len(one.training) == PROMPTS
    raw, clipped = (
        np.linalg.norm(np.asarray(llama_cases.make_case(pool, variant, COMPLETIONS, 3).pool.features)[:, :-1], axis=-1)
        for variant in llama_cases.VARIANTS
    )
    assert clipped.max() < np.quantile(raw, 0.5) < raw.max()


def test_a_pair_has_the_same_label_in_all_arms(files):
    pool = loaded(files)
    case = llama_cases.make_case(pool, "raw", COMPLETIONS, 0)
    values = pool.rewards["sentiment"].values
    pairs = np.array([[0, 0, 1], [3, 1, 4], [5, 2, 3]])
    whole = np.asarray(llama_cases.ask(case, values, pairs).choices)
    assert (np.asarray(llama_cases.ask(case, values, pairs[::-1]).choices)[::-1] == whole).all()


def test_gains_are_exact(files):
    """J against a sum over completions, and the best parameter of a linear reward gains what the best policy does."""
    pool = loaded(files)
    case = llama_cases.make_case(pool, "raw", COMPLETIONS, 0)
    rng = np.random.default_rng(0)
    w, values = rng.normal(size=case.pool.dim), rng.normal(size=(PROMPTS, COMPLETIONS))
    found = llama_cases.gains(case, values, w, (0.0, 0.5))
    assert found[0] == pytest.approx(0, abs=1e-12)
    scores = 0.5 * np.asarray(case.deployment.features, np.float64) @ w
    law = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    own = values[case.held_back]
    expected = (law * (own - np.log(law * COMPLETIONS))).sum(axis=1) - own.mean(axis=1)
    assert found[1] == pytest.approx(expected)


def test_it_runs_goes_on_and_repeats(files, tmp_path):
    arms = ["--arms", "random_distinct", "trace", "trace_capped", "rounds_capped", "trace_proxy", "best_worst_proxy"]
    lines, plot = tmp_path / "lines.jsonl", tmp_path / "gains.png"
    more = [*arms, "--rewards", "word_length"]
    experiment.main(arguments_of(files, lines, *more, "--splits", "1"))
    first = read_lines(lines)
    result = experiment.main(
        arguments_of(files, lines, *more, "--splits", "2", "--json", str(tmp_path / "r.json"), "--plot", str(plot))
    )
    again = read_lines(lines)
    assert again[: len(first)] == first and {line.get("seed") for line in again} == {None, 0, 1}
    assert json.loads((tmp_path / "r.json").read_text())["rows"] == result["rows"] and plot.stat().st_size > 1_000
    by = {(r["variant"], r["K"], r["arm"]): r for r in result["rows"] if r["labels"] == 24}
    assert {variant for variant, _, _ in by} == {"raw", "clipped", "by_slope"}
    named = {(variant, arm) for variant, K, arm in by if K == 6}
    assert named == {(variant, arm) for variant, K, arm in by if K == 4}  # all arms at every number of completions
    assert {arm for variant, arm in named if variant == "by_slope"} == set(experiment.AT_SLOPE)
    assert by["raw", 6, "ceiling"]["gain"]["mean"] > by["raw", 6, "random_distinct"]["gain"]["mean"]
    fresh = tmp_path / "fresh.jsonl"
    experiment.main(arguments_of(files, fresh, *more, "--splits", "1"))
    assert read_lines(fresh) == first


def test_random_pairs_in_the_rows_that_the_slope_asks_for_are_those_of_these_rows(files):
    """The same pairs, ridge and multiple, whichever the pilot asks for; trace has a multiple of its own."""
    pool, arms = loaded(files), ["--arms", *experiment.AT_SLOPE, "--rewards", "sentiment", "--splits", "4"]
    own = {"ridge": 10.0, "multiples": {"random_distinct": 0.5, "trace": 2.0}}
    settled = {"raw/sentiment/24": own, "clipped/sentiment/24": own | {"ridge": 30.0}}
    given = experiment.parse(arguments_of(files, "-", *arms))
    heads = [head for seed in range(4) for head in experiment.heads_of(pool, given, seed)]
    lines = list(experiment.lines_of(pool, settled, heads))
    by = {experiment.place(line): line for line in lines}
    asked = [line for line in lines if line["variant"] == "by_slope"]
    assert {line["chosen"] for line in asked} == set(llama_cases.VARIANTS)
    for line in asked:
        plain = by[experiment.place(line | {"variant": line["chosen"]})]
        assert (plain["gains"] == line["gains"]) == (line["arm"] == "random_distinct")
        of_case = llama_cases.make_case(pool, line["chosen"], line["K"], line["seed"])
        assert line["prompts"] == of_case.held_back.tolist()
    fitted = [line for line in lines if line["arm"] != "ceiling"]
    assert all(line["gains"] != line["as_fitted"] for line in fitted)


def test_more_arms_and_rewards_are_added_to_what_there_is(files, tmp_path):
    """Run after run it is what one run gives, and nothing is made twice."""
    first, every = ["--arms", "random_distinct", "trace"], ["--arms", "random_distinct", "trace", "trace_smooth"]
    one, steps = tmp_path / "one.jsonl", tmp_path / "steps.jsonl"
    for more in ([*first, "--rewards", "word_length"], [*every, "--rewards", "word_length", "sentiment"]):
        experiment.main(arguments_of(files, steps, *more, "--splits", "1"))
    experiment.main(arguments_of(files, one, *more, "--splits", "1"))
    found, expected = read_lines(steps), read_lines(one)
    assert experiment.settled_of(found) == experiment.settled_of(expected)
    known = {experiment.place(line): line for line in found if "settled" not in line}
    assert known == {experiment.place(line): line for line in expected if "settled" not in line}
    assert len(known) == sum("settled" not in line for line in found)
    again = len(found)
    experiment.main(arguments_of(files, steps, *more, "--splits", "1"))
    assert len(read_lines(steps)) == again


def test_smooth_arms_believe_what_varies_most_and_have_a_ridge_of_their_own(files):
    case = llama_cases.make_case(loaded(files), "raw", COMPLETIONS, 0)
    way, reward = experiment.WAYS["trace_smooth"], loaded(files).rewards["word_length"]
    belief, H = experiment.belief_of(case, reward, way, 20.0), np.asarray(jd.policy_target(case.pool), np.float64)
    assert np.asarray(belief.covariance) == pytest.approx(H * case.pool.dim / np.trace(H) / 20, rel=1e-2, abs=1e-6)
    assert way.ridge != experiment.WAYS["trace"].ridge == experiment.WAYS["random_distinct"].ridge
    assert way.ridge == experiment.WAYS["random_distinct_smooth"].ridge


def test_differences_are_paired_by_prompt():
    """Prompts differ by much, arms by 0.5 on each: so do the limits."""
    rng = np.random.default_rng(0)
    lines = []
    for seed in range(4):
        prompts = rng.permutation(20)[:8]
        base = 10.0 * prompts
        head = {"seed": seed, "variant": "raw", "K": 4, "reward": "x", "prompts": prompts.tolist()}
        lines.append(head | {"arm": "ceiling", "labels": 0, "gains": (base + 2).tolist()})
        lines.append(head | {"arm": "random_distinct", "labels": 9, "gains": base.tolist()})
        lines.append(head | {"arm": "trace", "labels": 9, "gains": (base + 0.5).tolist()})
    rows = {row["arm"]: row for row in summary(lines)}
    assert rows["trace"]["difference"] == pytest.approx({"mean": 0.5, "low": 0.5, "high": 0.5})
    assert rows["ceiling"]["labels"] == 9 and rows["ceiling"]["difference"]["mean"] == pytest.approx(2)
    assert "difference" not in rows["random_distinct"]
    trace, ends = rows["trace"], (0.5, 0.5, 0.5)
    chosen = trace | {"variant": "by_slope"}
    shown = {"arm": "trace_by_slope", "labels": 9, "difference": ends}
    assert panels_of([*rows.values(), chosen, trace | {"K": 8}], 4) == {
        "x, raw": [
            {"arm": "ceiling", "labels": 9, "difference": (2, 2, 2)},
            {"arm": "trace", "labels": 9, "difference": ends},
            shown,
        ],
        "x, clipped": [shown],
    }


def test_what_the_slope_asked_for_is_counted_at_every_number_of_completions():
    line = {"variant": "by_slope", "reward": "x", "labels": 9, "arm": "trace"}
    lines = [line | {"K": K, "chosen": kind} for K, kind in ((4, "clipped"), (4, "raw"), (8, "clipped"))]
    lines += [line | {"K": 4, "arm": "random_distinct", "chosen": "raw"}, line | {"K": 4, "variant": "raw"}]
    assert experiment.clipped_by_slope(lines) == {"4/x/9": 0.5, "8/x/9": 1.0}


def test_lines_are_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "lines.jsonl"
    assert read_lines(path) == []
    append_lines(path, [{"a": np.float64(1)}, {"a": float("nan")}])
    append_lines(path, [{"a": 3}])
    assert read_lines(path) == [{"a": 1.0}, {"a": None}, {"a": 3}]
    assert [p.name for p in tmp_path.iterdir()] == ["lines.jsonl"]
