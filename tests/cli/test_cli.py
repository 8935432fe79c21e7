"""The command line: the main job on the packaged pool and on files, and one line in its own words for every mistake."""

import csv
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxdesign
from jaxdesign import cli
from jaxdesign.cli import selecting, words
from jaxdesign.preference.labels.tasks import make_tasks
from tests.support.command import finished, rows_of, run

LABELS = ["--labels", "24"]
PYTHON_WORDS = re.compile(
    r"budget[.=]|per_pair|per_prompt|max_passes|\bprior=|\bcrit\b|jaxdesign\.|overwrite=|\btol=|\bseed=|(?<!-)\btotal\b"
)


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


@pytest.mark.slow  # compiles for the size of that pool; CI runs the same command
def test_the_packaged_pool_needs_nothing_but_a_number_of_labels(tmp_path, capsys):
    assert run("select", "--labels", 100, "--output", tmp_path / "pairs.jsonl") == 0
    rows, report = rows_of(tmp_path / "pairs.jsonl"), json.loads((tmp_path / "pairs.json").read_text())
    assert len(rows) == 100 == len({(row["prompt"], row["i"], row["j"]) for row in rows})
    pool = jaxdesign.io.read_completions(jaxdesign.io.demo_pool_path())
    for row in rows:
        texts = pool.completions[row["prompt"]]
        assert (row["response_a"], row["response_b"]) == (texts[row["a"]], texts[row["b"]])
        assert row["response_a"] != row["response_b"] and row["prompt_id"] == pool.ids[row["prompt"]]
        assert row["i"] < row["j"] and {row["i"], row["j"]} == {row["a"], row["b"]} and row["repeat"] == 0
    assert 0.9 < report["certificate"]["efficiency"] <= 1
    assert report["random_pairs"]["efficiency"] < report["certificate"]["efficiency"]
    assert report["versions"]["jaxdesign"] == jaxdesign.__version__ and report["backend"] == "cpu"
    assert report["seed"] == 0 and report["settings"]["labels"] == 100 and report["skipped_prompts"] == 0
    assert report["settings"]["criterion"] == "trace"
    out, err = capsys.readouterr()
    assert out.startswith("100 labels on 100 pairs of ") and "certified efficiency 0.9" in out and "at random" in out
    assert "\nexpected policy gap in units of J, beta 1: random pairs leave " in out
    assert report["expected_gaps"]["matters"] is True
    assert "\nWith 100 labels choosing is expected to gain 0.1" in out
    assert "\nOutside of these figures: what training on the posterior (soft labels of all pairs) gains" in out
    pattern = "^(reading|preparing|optimising|rounding|choosing greedily|exchanging|comparing|writing)"
    assert all(re.match(pattern, line) for line in err.splitlines())


def test_the_criterion_it_takes_by_default_is_the_trace_for_the_policy_of_the_pool(features, capsys):
    array = np.load(features / "features.npy")
    np.save(features / "flat.npy", np.concatenate([array, np.zeros_like(array[..., :1])], axis=-1))
    out = features / "pairs.jsonl"
    assert run("select", features / "flat.npy", *LABELS, "--output", out) == 0
    assert "rank 3 of 4" in capsys.readouterr().out
    report = json.loads((features / "pairs.json").read_text())
    assert report["pool"]["rank"] == 3 and "best_set" in report["selection"]["candidates"]
    pairs = np.array([(row["prompt"], row["i"], row["j"]) for row in rows_of(out)])
    pool = jaxdesign.CompletionPool(array)
    prior = 1e-3 * 24 / 4 * jaxdesign.second_moment(pool)
    criterion = jaxdesign.Trace(jaxdesign.policy_target(pool))
    again = jaxdesign.evaluate(pool, criterion, jaxdesign.Budget(24, per_pair=1), pairs, np.ones(24), prior)
    assert report["certificate"]["value"] == pytest.approx(again.certificate.value, rel=1e-5)


@pytest.mark.slow
def test_several_labels_a_pair_are_tasks_of_their_own_that_can_be_made_again(features, capsys):
    out = features / "pairs.csv"
    options = ["--per-prompt", 4, "--per-pair", "none", "--criterion", "logdet", "--seed", 3]
    assert run("select", features / "pool.npz", *LABELS, *options, "--output", out) == 0
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24 == len({row["task_id"] for row in rows})
    spent = np.bincount([int(row["prompt"]) for row in rows])
    assert spent.max() <= 4 and spent[2] == 0
    assert rows[0]["prompt_id"] == f"prompt {rows[0]['prompt']}" and "prompt_text" not in rows[0]
    listed = [tuple(int(row[name]) for name in ("prompt", "i", "j")) for row in rows]
    pairs = list(dict.fromkeys(listed))
    assert len(pairs) < 24
    ids = [f"prompt {k}" for k in range(10)]
    tasks = make_tasks(0, pairs, [listed.count(pair) for pair in pairs], ids=ids, swap_seed=3)
    assert [task.task_id for task in tasks] == [row["task_id"] for row in rows]
    assert 0 < sum(task.swapped for task in tasks) < 24
    for row, task in zip(rows, tasks, strict=True):
        assert (row["a"], row["b"]) == ((row["j"], row["i"]) if task.swapped else (row["i"], row["j"]))
    assert json.loads((features / "pairs.json").read_text())["skipped_prompts"] == 1
    assert "1 prompt has fewer than two completions and was skipped" in capsys.readouterr().out


def test_every_pair_is_as_good_at_random_as_by_design(features, capsys):
    """Both are the same choice, so that both lines say the same share, cut and not rounded."""
    assert run("select", features / "features.npy", "--labels", 60, "--output", features / "pairs.jsonl") == 0
    said = capsys.readouterr().out
    shares = re.findall(r"(?:certified efficiency|at random:) (\S+?)[:\s]", said)
    assert len(shares) == 2 and shares[0] == shares[1]
    report = json.loads((features / "pairs.json").read_text())
    certified, gaps = report["certificate"]["efficiency"], report["expected_gaps"]
    assert "With 60 labels choosing cannot matter: no choice gains more than " in said and gaps["matters"] is False
    assert gaps["random"] == pytest.approx(gaps["design"], rel=1e-6) and gaps["least"] <= gaps["design"]
    assert float(shares[0]) <= certified < float(shares[0]) + 1e-3


@pytest.mark.slow
def test_few_labels_and_few_passes_are_told_by_the_names_of_options(features, capsys):
    options = ["--labels", 4, "--max-passes", 1, "--tol", 0]
    assert run("select", features / "features.npy", *options, "--output", features / "pairs.jsonl") == 0
    said = capsys.readouterr().out
    assert "The bound counts" in said
    assert "raise --max-passes or loosen --tol" in said and not PYTHON_WORDS.search(said)


@pytest.mark.parametrize("existing", ["pairs.jsonl", "pairs.json"])
def test_existing_files_are_refused_before_any_work(features, capsys, monkeypatch, existing):
    (features / existing).write_text("precious")
    monkeypatch.setattr(selecting, "read_pool", lambda *paths: pytest.fail("worked before it looked"))
    assert run("select", features / "features.npy", *LABELS, "--output", features / "pairs.jsonl") == 2
    out, err = capsys.readouterr()
    assert out == "" and "exists already" in err and "or pass --overwrite" in err
    assert err.startswith("jaxdesign: error: ") and err.count("\n") == 1
    assert (features / existing).read_text() == "precious"


def test_existing_files_are_replaced_where_asked(features):
    (features / "pairs.jsonl").write_text("old")
    output = ["--output", features / "pairs.jsonl", "--overwrite"]
    assert run("select", features / "features.npy", *LABELS, *output) == 0
    assert len(rows_of(features / "pairs.jsonl")) == 24


MISTAKES = {
    "no such file": (["nowhere.npy", *LABELS], "does not exist"),
    "a file of unknown kind": (["features.txt", *LABELS], "suffix '.txt' is not known"),
    "more labels than pairs": (
        ["features.npy", "--labels", 61],
        "--labels 61: the caps allow at most 60 labels on the 60 candidate pairs (pairs of identical completions are "
        "no capacity); lower --labels or raise --per-pair or --per-prompt\n",
    ),
    "too few labels and no ridge": (
        ["features.npy", "--labels", 2, "--ridge", 0],
        "--labels 2: with prior information (--ridge) of rank 0 that many labels leave the information singular in 3 "
        "dimensions; at least 3 are needed, or a larger --ridge\n",
    ),
    "NaN": (["broken.npy", *LABELS], "broken.npy: features: nan at prompt 3, completion 1, dimension 2"),
    "not an array": (["empty.npy", *LABELS], "is no NumPy file"),
    "no directory": (["features.npy", *LABELS, "--output", "nowhere/pairs.jsonl"], "does not exist; create it first"),
    "an output of unknown kind": (["features.npy", *LABELS, "--output", "pairs.txt"], "pairs are written to .jsonl or"),
    "texts beside texts": (["demo.jsonl", *LABELS, "--texts", "demo.jsonl"], "--texts: goes beside features (.npy or"),
    "no texts": (["features.npy", *LABELS, "--texts", "nowhere.jsonl"], "nowhere.jsonl: does not exist"),
    "texts of others": (
        ["features.npy", *LABELS, "--texts", "demo.jsonl"],
        "demo.jsonl: 24 prompts found, and 10 in the",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_in_one_line(features, capsys, monkeypatch, name):
    monkeypatch.chdir(features)
    broken = np.load("features.npy")
    broken[3, 1, 2] = np.nan
    np.save("broken.npy", broken)
    (features / "empty.npy").write_bytes(b"")
    (features / "demo.jsonl").write_bytes(jaxdesign.io.demo_pool_path().read_bytes())
    before = sorted(features.iterdir())
    arguments, text = MISTAKES[name]
    output = [] if "--output" in arguments else ["--output", "pairs.jsonl"]
    assert run("select", *arguments, *output) == 2
    *progress, last = capsys.readouterr().err.splitlines(keepends=True)
    assert last.startswith("jaxdesign: error: ") and text in last and not PYTHON_WORDS.search(last)
    assert all(line.startswith(("reading", "preparing", "optimising")) for line in progress)
    assert sorted(features.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--output", "x.csv"], "the following arguments are required: --labels"),
        (["--labels", "many"], "argument --labels: 'many' found; expected a whole number of at least 1"),
        (["--labels", "0"], "argument --labels: '0' found; expected a whole number of at least 1"),
        (["--labels", "12.5"], "argument --labels: '12.5' found; expected a whole number of at least 1"),
        (["--labels", "inf"], "argument --labels: 'inf' found; expected a whole number"),
        ([*LABELS, "--criterion", "best"], "argument --criterion: invalid choice"),
        (
            [*LABELS, "--per-pair", "0"],
            "argument --per-pair: '0' found; expected a whole number of at least 1, or 'none'",
        ),
        (
            [*LABELS, "--per-prompt", "some"],
            "argument --per-prompt: 'some' found; expected a whole number of at least 1",
        ),
        ([*LABELS, "--ridge", "-1"], "argument --ridge: '-1' found; must be a number, finite and at least 0"),
        ([*LABELS, "--ridge", "nan"], "argument --ridge: 'nan' found; must be a number, finite and at least 0"),
        ([*LABELS, "--tol", "2"], "argument --tol: '2' found; must be a number, at least 0 and below 1"),
        ([*LABELS, "--max-passes", "0"], "argument --max-passes: '0' found; expected a whole number of at least 1"),
        ([*LABELS, "--seed", "-1"], "argument --seed: '-1' found; expected a whole number of at least 0"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(capsys, arguments, text):
    with pytest.raises(SystemExit) as stopped:
        run("select", *arguments, *([] if "--output" in arguments else ["--output", "x.csv"]))
    err = capsys.readouterr().err
    assert stopped.value.code == 2
    assert err.startswith("jaxdesign: error: ") and text in err and err.count("\n") == 1


def test_a_number_may_be_written_as_people_write_it():
    chosen = cli.parser().parse_args(["select", "--labels", "5e3", "--per-pair", "none", "--output", "x.csv"])
    assert (chosen.labels, chosen.per_pair, chosen.per_prompt) == (5000, None, None)


def test_traceback_shows_where_an_error_arose(features):
    with pytest.raises(FileNotFoundError):
        run("select", features / "nowhere.npy", *LABELS, "--output", features / "pairs.jsonl", "--traceback")


@pytest.mark.parametrize("status", list(jaxdesign.Status))
def test_no_status_speaks_of_arguments(status):
    assert not PYTHON_WORDS.search(words.in_options(str(status)))


@pytest.mark.parametrize(
    ("share", "said"),
    [(1.0, "1.000"), (np.nextafter(1, 0), "0.999"), (0.9996, "0.999"), (0.0, "0.000"), (0.11699999999999999, "0.116")],
)
def test_shares_are_cut(share, said):
    assert words.cut(share) == said


@given(st.floats(0, 1))
def test_no_share_is_said_to_be_more_than_it_is(share):
    assert share - 0.0021 < float(words.cut(share)) <= share


def test_one_is_not_many():
    assert [words.number(count, "label") for count in (0, 1, 2.0)] == ["0 labels", "1 label", "2 labels"]


def test_a_reader_that_goes_away_is_no_error(features, monkeypatch, capsys):
    def gone(*_, **__):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(selecting, "_summary", gone)
    assert run("select", features / "features.npy", *LABELS, "--output", features / "pairs.jsonl") == 141
    assert "error" not in capsys.readouterr().err and len(rows_of(features / "pairs.jsonl")) == 24


def test_the_module_runs_as_a_program():
    found = subprocess.run(
        [sys.executable, "-m", "jaxdesign", "--version"], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, f"jaxdesign {jaxdesign.__version__}\n", "")


def test_help_is_quick_and_says_why_trace():
    code, out, err = finished("select", "--help", first="import sys; sys.modules['jax'] = sys.modules['numpy'] = None")
    assert (code, err) == (0, "")
    assert "tr(H A^-1) / (2 beta)" in out and "Default trace" in " ".join(out.split())


def test_a_mistake_ends_the_program_with_its_code():
    assert finished("select", "--labels", "0")[0] == 2
    assert finished()[0] == 2
