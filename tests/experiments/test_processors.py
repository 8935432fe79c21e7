"""Two runs of one experiment, case by case."""

import json

import pytest

from bench.experiments import processors


def line(arm, seed, *gains):
    head = {"seed": seed, "variant": "raw", "K": 4, "reward": "x", "labels": 9}
    return head | {"arm": arm, "gains": list(gains)}


def test_arms_are_compared_where_both_runs_have_them(tmp_path):
    one = [line("trace", 0, 1.0, 3.0), line("trace", 1, 2.0), line("trace", 2, 9.0), line("random", 0, 1.0)]
    other = [{"settled": {}}, line("trace", 1, 2.5), line("trace", 0, 2.0, 2.0), line("random", 0, 1.0)]
    for name, lines in (("one", one), ("other", other)):
        (tmp_path / name).write_text("".join(json.dumps(x) + "\n" for x in lines))
    given = ["--lines", str(tmp_path / "one"), "--other", str(tmp_path / "other"), "--json", str(tmp_path / "r.json")]
    found = {row["arm"]: row for row in processors.main(given)["rows"]}
    trace = {"cases": 2, "differ": 0.5, "gain": 2.125, "of a case": 0.25, "of the mean": 0.25}
    assert found["trace"] == pytest.approx({"arm": "trace"} | trace)
    assert found["random"]["differ"] == 0 and found["random"]["cases"] == 1
    assert json.loads((tmp_path / "r.json").read_text())["rows"] == list(found.values())
