"""The end-to-end experiment of the transformer policy: its statistics, and that all of it runs."""

import json

import numpy as np
import pytest

from bench.experiments import language_model as experiment

pytestmark = pytest.mark.thorough

PROMOTION = "standard"  # optax promotes


def result_of(gains):
    """One seed's result from {arm: gain} at 10 labels."""
    return {"arms": [{"labels": 10, "arm": arm, "gain": gain} for arm, gain in gains.items()]}


def test_differences_are_paired_by_seed():
    """Random gains 0, 1, 2 and trace 0.5 more, give or take 0.1: the spread of seeds must not enter."""
    results = [result_of({"random": k, "trace": k + 0.5 + 0.1 * (k - 1)}) for k in range(3)]
    random, trace = experiment.summary(results)
    assert random == {"labels": 10, "arm": "random", "gain": 1.0, "seeds": 3, "standard_error": 1 / np.sqrt(3)}
    assert trace["gain"] == pytest.approx(1.5) and trace["difference"] == pytest.approx(0.5)
    half = 4.302653 * 0.1 / np.sqrt(3)  # Student's t with 2 degrees of freedom
    assert trace["interval"] == pytest.approx([0.5 - half, 0.5 + half], abs=1e-6)
    assert trace["better_in"] == 3


def test_repeated_completions_are_found():
    completions = np.array([[[1, 2], [1, 2], [3, 2], [1, 2]], [[1, 1], [2, 2], [2, 2], [1, 1]]])
    expected = [[True, False, True, False], [True, True, False, False]]
    assert experiment.first_of_its_kind(completions).tolist() == expected


@pytest.mark.slow
def test_the_short_setting_runs_and_repeats(tmp_path):
    arguments = ["--short", "--seeds", "1", "--labels", "20", "--arms", "random", "random_distinct", "trace"]
    first = experiment.main([*arguments, "--json", str(tmp_path / "a.json"), "--plot", str(tmp_path / "a.png")])
    again = experiment.main(arguments)
    saved = json.loads((tmp_path / "a.json").read_text())
    assert saved["summary"] == first["summary"] and (tmp_path / "a.png").stat().st_size > 1_000
    for one, other in zip(first["seeds"][0]["arms"], again["seeds"][0]["arms"], strict=True):
        assert one["gain"] == pytest.approx(other["gain"], abs=1e-5) and np.isfinite(one["gain"])
    assert first["seeds"][0]["facts"]["loss"] > first["seeds"][0]["facts"]["entropy"]
