"""The measurements for a GPU run on tiny sizes anywhere: all of them tell, none outruns the time given."""

import json
import math
from functools import partial

import jax
import numpy as np
import pytest

import jaxdesign as jd
from bench import gpu
from bench.accelerator.arrays import factor, heavy_tailed
from bench.accelerator.cases import Case, run
from bench.accelerator.passes import NEVER, computing_at
from bench.accelerator.phases import FUNCTIONS, Phases
from jaxdesign import analysis, door
from jaxdesign.pricing.memory import memory_source
from jaxdesign.pricing.passes import price

pytestmark = pytest.mark.thorough

SLOW = {"restricted", "optimize", "select_pairs"}  # compile for a minute


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """Runs the command on the small cases of some sections; its exit code, lines, file and errors."""

    def call(*arguments, sections):
        chosen = [case for case in gpu.cases(small=True) if case.section in sections]
        monkeypatch.setattr(gpu, "cases", lambda small: chosen)
        file = tmp_path / "gpu.json"
        code = gpu.main(["--small", "--output", str(file), *arguments])
        out, err = capsys.readouterr()
        assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]  # no part of it is left beside it
        return code, [json.loads(line) for line in out.splitlines()], json.loads(file.read_text()), err, chosen

    return call


def numbers(value, path=""):
    """All numbers of a row with their paths."""
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in numbers(item, f"{path}/{key}")]
    if isinstance(value, list):
        return [found for k, item in enumerate(value) for found in numbers(item, f"{path}/{k}")]
    return [(path, value)] if not isinstance(value, str | bool) else []


def check_rows(code, lines, results, err, cases):
    assert code == 0 and "skipped" not in err and "failed" not in err
    assert results["rows"] == lines[1:] and results["machine"] == lines[0]["machine"]
    assert [(row["section"], row["name"]) for row in lines[1:]] == [(case.section, case.name) for case in cases]
    for row in lines[1:]:
        assert row["status"] == "measured"
        for path, number in numbers(row):
            assert number is not None and math.isfinite(number) and number >= 0, (row["name"], path)
            if path.rsplit("/", 1)[-1] in ("median", "min", "max", "first", "tflops", "pairs_per_second", "total"):
                assert number > 0, (row["name"], path)


@pytest.mark.slow
def test_every_measurement_tells_finite_numbers(command):
    every = {case.section for case in gpu.cases(small=True)}
    assert every == {case.section for case in gpu.cases(small=False)}
    found = command("--seconds", "1000", sections=every - SLOW)
    check_rows(*found)
    rows = {row["section"]: row for row in found[1][1:]}
    assert rows["pass"]["float32_even_information_off"] < 1e-6
    assert rows["precision"]["error_over_bound"] <= 1  # a CPU has one precision only


@pytest.mark.slow
def test_whole_problems_tell_finite_numbers(command):
    found = command("--seconds", "1000", sections=SLOW)
    check_rows(*found)
    whole = next(row for row in found[1] if row.get("section") == "optimize")
    phases = whole["phases"]
    assert whole["ended"] == "CERTIFIED" and {"hot start", "price", "gradients"} <= set(phases)
    assert phases["source"]["calls"] == phases["hot start"]["calls"] == phases["rank"]["calls"] == 1
    assert 1 <= phases["price"]["calls"] <= whole["passes"]
    sums = sum(phase["seconds"] for phase in phases.values()) + whole["everything_else"]
    assert sums == pytest.approx(whole["total"]) and whole["everything_else"] > 0


@pytest.mark.parametrize("small", [True, False])
def test_names_of_measurements_are_unique(small):
    names = [(case.section, case.name) for case in gpu.cases(small)]
    assert len(set(names)) == len(names)


def test_without_time_all_is_skipped_and_named(command):
    code, lines, results, err, cases = command("--seconds", "0", sections={"matmul", "host"})
    assert code == 0 and results["rows"] == lines[1:]
    assert {row["status"] for row in lines[1:]} == {"skipped"}
    for case, row in zip(cases, lines[1:], strict=True):
        assert row["name"] == case.name and row["left"] < row["needed"]
        assert f"{case.section}: {case.name}" in err


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf"])
def test_time_that_is_no_time_is_refused(seconds, capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--seconds", seconds])
    assert "must be at least 0 and finite" in capsys.readouterr().err


def test_what_no_longer_fits_is_skipped_and_a_failure_stops_nothing(capsys):
    now = [100.0]

    def take(seconds):
        now[0] += seconds
        if seconds == 7:
            raise MemoryError("too large")
        return {"value": seconds}

    rows = []
    plan = [(10, 4), (10, 7), (15, 1), (5, 5), (5, 2)]  # seconds needed, seconds taken
    run([Case("s", str(k), needs, partial(take, took)) for k, (needs, took) in enumerate(plan)], 21, rows.append,
        clock=lambda: now[0])  # fmt: skip
    assert [row["status"] for row in rows] == ["measured", "failed", "skipped", "measured", "measured"]
    assert [row["began"] for row in rows] == [0, 4, 11, 11, 16]
    assert rows[0]["took"] == rows[0]["value"] == 4 and rows[1]["took"] == 7
    assert rows[1]["error"] == "MemoryError: too large" and rows[2]["left"] == 10
    capsys.readouterr()


def test_a_failed_measurement_is_the_exit_code(monkeypatch, capsys):
    def fail():
        raise ValueError("no")

    monkeypatch.setattr(gpu, "cases", lambda small: [Case("s", "name", 0, fail)])
    assert gpu.main(["--small"]) == 1
    assert "failed: s: name" in capsys.readouterr().err


def test_each_row_is_on_disk_before_the_next_measurement(monkeypatch, tmp_path, capsys):
    file = tmp_path / "gpu.json"
    seen = []

    def look():
        seen.append(len(json.loads(file.read_text())["rows"]))
        return {"value": np.float32(1)}

    monkeypatch.setattr(gpu, "cases", lambda small: [Case("s", str(k), 0, look) for k in range(3)])
    assert gpu.main(["--small", "--output", str(file)]) == 0
    assert seen == [0, 1, 2]


def test_lower_precision_reaches_the_programs():
    source, F = memory_source(heavy_tailed(64, 8, 16)), factor(16)

    def program():
        return str(jax.make_jaxpr(lambda: price(source, F, NEVER))())

    usual = program()
    with computing_at("default"):
        assert "HIGHEST" not in program()
    assert "HIGHEST" in usual and "HIGHEST" in program()


def test_phases_count_own_seconds_and_put_functions_back():
    pool = heavy_tailed(64, 8, 16)
    before = {name: getattr(module, attribute) for name, (module, attribute) in FUNCTIONS.items()}
    with Phases() as phases:
        made = door.make_problem(pool, jd.LogDet(), jd.Budget(5000))
        analysis.check_rank(made)
    assert {name: getattr(module, attribute) for name, (module, attribute) in FUNCTIONS.items()} == before
    row = phases.row()
    assert {name: phase["calls"] for name, phase in row["phases"].items()} == {
        "source": 1, "rank": 1, "even information": 1,
    }  # fmt: skip
    own = [phase["seconds"] for phase in row["phases"].values()]
    assert min(own) > 0 and row["everything_else"] > 0
    assert sum(own) + row["everything_else"] == pytest.approx(row["total"])
