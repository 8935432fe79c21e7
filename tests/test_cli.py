"""The command line: the main job on the packaged pool and on files, and one line for every mistake."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

import jaxdesign
from jaxdesign import cli

LABELS = ["--labels", "24"]


@pytest.fixture
def features(tmp_path):
    """A small pool on disk, of the shape that the command's own tests share."""
    rng = np.random.default_rng(0)
    array = rng.standard_normal((10, 4, 3)).astype(np.float32)
    np.save(tmp_path / "features.npy", array)
    mask = np.ones((10, 4), bool)
    mask[2, 1:] = False
    ids = np.array([f"prompt {k}" for k in range(10)])
    np.savez(tmp_path / "pool.npz", features=array, mask=mask, ids=ids, scores=rng.standard_normal((10, 4)))
    return tmp_path


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_packaged_pool_needs_nothing_but_a_number_of_labels(tmp_path, capsys):
    assert run("select", "--labels", 100, "--output", tmp_path / "pairs.jsonl") == 0
    rows, report = rows_of(tmp_path / "pairs.jsonl"), json.loads((tmp_path / "pairs.json").read_text())
    assert sum(row["labels"] for row in rows) == 100 == len(rows)
    assert len({(row["prompt"], row["i"], row["j"]) for row in rows}) == 100
    pool = jaxdesign.io.read_completions(jaxdesign.io.demo_pool_path())
    for row in rows:
        texts = pool.completions[row["prompt"]]
        assert (row["response_i"], row["response_j"]) == (texts[row["i"]], texts[row["j"]])
        assert row["response_i"] != row["response_j"] and row["prompt_id"] == pool.ids[row["prompt"]]
    assert 0.9 < report["certificate"]["efficiency"] <= 1
    assert report["random_pairs"]["efficiency"] < report["certificate"]["efficiency"]
    assert report["versions"]["jaxdesign"] == jaxdesign.__version__ and report["backend"] == "cpu"
    assert report["seed"] == 0 and report["settings"]["labels"] == 100 and report["skipped_prompts"] == 0
    out, err = capsys.readouterr()
    assert out.startswith("100 labels on 100 pairs of ") and "certified efficiency 0.9" in out and "at random" in out
    assert all(line.startswith("pass ") for line in err.splitlines()) and err.endswith(" s\n")


def test_features_to_csv_with_caps(features, capsys):
    out = features / "pairs.csv"
    assert run("select", features / "pool.npz", *LABELS, "--per-prompt", 4, "--per-pair", "none", "--output", out) == 0
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["labels"]) for row in rows) == 24
    spent = np.bincount([int(row["prompt"]) for row in rows], weights=[int(row["labels"]) for row in rows])
    assert spent.max() <= 4 and spent[2] == 0
    assert rows[0]["prompt_id"] == f"prompt {rows[0]['prompt']}" and "prompt_text" not in rows[0]
    assert json.loads((features / "pairs.json").read_text())["skipped_prompts"] == 1
    assert "1 prompts have fewer than two completions" in capsys.readouterr().out


def test_trace_and_features_that_do_not_span_their_space(features, capsys):
    array = np.load(features / "features.npy")
    np.save(features / "flat.npy", np.concatenate([array, np.zeros_like(array[..., :1])], axis=-1))
    out = features / "pairs.jsonl"
    assert run("select", features / "flat.npy", *LABELS, "--criterion", "trace", "--output", out) == 0
    assert "rank 3 of 4" in capsys.readouterr().out
    report = json.loads((features / "pairs.json").read_text())
    assert report["pool"]["rank"] == 3 and "best_set" in report["selection"]["candidates"]
    assert report["certificate"]["lower_bound"] <= report["certificate"]["value"]


def test_few_labels_are_said_to_be_few(features, capsys):
    assert run("select", features / "features.npy", "--labels", 4, "--output", features / "pairs.jsonl") == 0
    assert "The bound counts" in capsys.readouterr().out


@pytest.mark.parametrize("existing", ["pairs.jsonl", "pairs.json"])
def test_existing_files_are_refused_before_any_work(features, capsys, monkeypatch, existing):
    (features / existing).write_text("precious")
    monkeypatch.setattr(cli, "read_pool", lambda path: pytest.fail("worked before it looked"))
    assert run("select", features / "features.npy", *LABELS, "--output", features / "pairs.jsonl") == 2
    out, err = capsys.readouterr()
    assert out == "" and "exists already" in err and err.startswith("jaxdesign: error: ") and err.count("\n") == 1
    assert (features / existing).read_text() == "precious"


MISTAKES = {
    "no such file": (["nowhere.npy", *LABELS], "does not exist"),
    "a file of unknown kind": (["features.txt", *LABELS], "suffix '.txt' is not known"),
    "a total of zero": (["features.npy", "--labels", 0], "budget.total=0: must be positive"),
    "a total that is not whole": (["features.npy", "--labels", 12.5], "budget.total=12.5: whole labels"),
    "more labels than pairs": (["features.npy", "--labels", 61], "the caps allow at most 60 labels"),
    "a cap below one": (["features.npy", *LABELS, "--per-pair", 0], "budget.per_pair=0: must be at least 1"),
    "a cap that is no number": (["features.npy", *LABELS, "--per-pair", "some"], "expected a number or 'none'"),
    "a negative ridge": (["features.npy", *LABELS, "--ridge", -1], "ridge=-1: must be finite and at least 0"),
    "a tolerance out of range": (["features.npy", *LABELS, "--tol", 2], "tol=2: must be"),
    "too few labels and no ridge": (["features.npy", "--labels", 2, "--ridge", 0], "at least 3 are needed"),
    "NaN": (["broken.npy", *LABELS], "features: nan at prompt 3, completion 1, dimension 2"),
    "not an array": (["empty.npy", *LABELS], "is no NumPy file"),
    "no directory": (["features.npy", *LABELS, "--output", "nowhere/pairs.jsonl"], "does not exist; create it first"),
    "an output of unknown kind": (["features.npy", *LABELS, "--output", "pairs.txt"], "pairs are written to .jsonl or"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_in_one_line(features, capsys, monkeypatch, name):
    monkeypatch.chdir(features)
    broken = np.load("features.npy")
    broken[3, 1, 2] = np.nan
    np.save("broken.npy", broken)
    (features / "empty.npy").write_bytes(b"")
    before = sorted(features.iterdir())
    arguments, text = MISTAKES[name]
    output = [] if "--output" in arguments else ["--output", "pairs.jsonl"]
    assert run("select", *arguments, *output) == 2
    err = capsys.readouterr().err
    assert err.startswith("jaxdesign: error: ") and text in err and err.count("\n") == 1
    assert sorted(features.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["select", "--output", "pairs.jsonl"], "the following arguments are required: --labels"),
        (["select", "--labels", "many", "--output", "pairs.jsonl"], "argument --labels: invalid float value: 'many'"),
        (["select", *LABELS, "--criterion", "best", "--output", "x.csv"], "argument --criterion: invalid choice"),
        ([], "the following arguments are required: command"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(capsys, arguments, text):
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    err = capsys.readouterr().err
    assert stopped.value.code == 2
    assert err.startswith("jaxdesign: error: ") and text in err and err.count("\n") == 1


def test_traceback_shows_where_an_error_arose(features):
    with pytest.raises(FileNotFoundError):
        run("select", features / "nowhere.npy", *LABELS, "--output", features / "pairs.jsonl", "--traceback")


def test_an_interruption_writes_nothing(features, capsys, monkeypatch):
    monkeypatch.setattr(cli, "read_pool", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run("select", *LABELS, "--output", features / "pairs.jsonl") == 130
    assert capsys.readouterr().err == "jaxdesign: interrupted\n"
    assert not (features / "pairs.jsonl").exists()


def test_progress_overwrites_itself_on_a_terminal_only(capsys, monkeypatch):
    row = jaxdesign.design.TraceRow(3, 1.0, 0.5, 0.5, 2.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    meter = cli._Meter()
    meter.show(row)
    meter.show(row)
    meter.close()
    err = capsys.readouterr().err
    assert err.count("\r") == 2 and err.endswith("\n") and err.count("\n") == 1
    meter = cli._Meter()
    meter.close()
    assert capsys.readouterr().err == ""  # nothing to finish before the first pass


def test_the_module_runs_as_a_program():
    found = subprocess.run(
        [sys.executable, "-m", "jaxdesign", "--version"], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, f"jaxdesign {jaxdesign.__version__}\n", "")
