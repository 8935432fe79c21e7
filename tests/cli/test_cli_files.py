"""What the command reads and writes: features joined with texts, full disks, an answer that is never lost."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

from jaxdesign.cli import saving, selecting
from tests.support.command import finished, rows_of, run

ROWS = [{"task_id": f"{k:020d}", "prompt": k, "i": 0, "j": 1, "prompt_text": "x" * 200} for k in range(500)]


@pytest.fixture
def features(tmp_path):
    """The shape of the other tests of the command."""
    array = np.random.default_rng(0).standard_normal((10, 4, 3)).astype(np.float32)
    np.save(tmp_path / "features.npy", array)
    np.savez(tmp_path / "pool.npz", features=array, ids=np.arange(10))
    return tmp_path


def texts(path, numbers, completions=lambda p: 4):
    lines = [
        {"prompt_id": p, "prompt": f"prompt {p}", "completions": [f"{p}-{k}" for k in range(completions(p))]}
        for p in numbers
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_texts_beside_features_are_joined_by_id_and_place(features):
    """The lines are in another order than the features, and there are more of them."""
    listed = texts(features / "texts.jsonl", [11, *reversed(range(10))])
    out = features / "pairs.jsonl"
    assert run("select", features / "pool.npz", "--texts", listed, "--labels", 24, "--output", out) == 0
    rows = rows_of(out)
    assert len(rows) == 24
    for row in rows:
        p, a, b = row["prompt"], row["a"], row["b"]
        assert (row["prompt_id"], row["prompt_text"]) == (p, f"prompt {p}")
        assert (row["response_a"], row["response_b"]) == (f"{p}-{a}", f"{p}-{b}")
    assert {(row["a"] < row["b"]) for row in rows} == {True, False}


def test_without_ids_texts_are_joined_by_order_and_missing_ones_left_out(features):
    listed = texts(features / "texts.jsonl", range(100, 110), lambda p: 1 if p == 103 else 3)
    file = selecting.read_pool(str(features / "features.npy"), str(listed))
    assert file.ids == [str(p) for p in range(100, 110)]
    assert file.mask.sum(axis=1).tolist() == [3, 3, 3, 1, *[3] * 6] and not file.mask[:, 3].any()


def test_a_full_disk_keeps_the_answer_and_names_the_path(tmp_path, monkeypatch, capsys):
    """The answer goes to the folder for temporary files."""
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(other))
    refuse(monkeypatch, tmp_path / "full", 28)
    saved = saving.save(str(tmp_path / "full" / "pairs.jsonl"), ROWS, {"seed": 0}, False)
    assert saved.as_asked is False and rows_of(saved.tasks) == ROWS
    assert json.loads(saved.report.read_text()) == {"seed": 0}
    err = capsys.readouterr().err
    assert f"{tmp_path / 'full' / 'pairs.json'}: No space left on device" in err and str(saved.tasks.parent) in err
    assert err.count("\n") == 1 and os.listdir(tmp_path / "full") == []


def test_where_every_disk_is_full_the_tasks_are_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    refuse(monkeypatch, tmp_path, 28)
    saved = saving.save(str(tmp_path / "full" / "pairs.jsonl"), ROWS, {"seed": 0}, False)
    assert saved == (None, None, False)
    out, err = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == ROWS
    assert err.count("No space left on device") == 2 and err.endswith("the tasks follow on standard output\n")
    assert [file for _, _, files in os.walk(tmp_path) for file in files] == [] and os.listdir(tmp_path) == ["full"]


def refuse(monkeypatch, folder, number):
    """A disk below `folder` on which files can be opened and not be filled."""
    (folder if folder.name == "full" else folder / "full").mkdir()
    wanted = os.open

    def opened(path, *arguments, **more):
        file = wanted_open(path, *arguments, **more)
        if str(path).startswith(str(folder)):
            file.write = lambda text: (_ for _ in ()).throw(OSError(number, os.strerror(number)))
        return file

    assert wanted is os.open
    wanted_open = lambda *arguments, **more: Unfilled(open(*arguments, **more))  # noqa: E731
    monkeypatch.setattr("jaxdesign.io.design_files.open", opened, raising=False)


class Unfilled(SimpleNamespace):
    """A file whose `write` can be replaced."""

    def __init__(self, file):
        super().__init__(file=file, write=file.write)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


def test_an_answer_written_elsewhere_ends_with_code_1(features, monkeypatch, capsys):
    """Somebody else wrote a file of that name while the pairs were chosen."""
    out = features / "pairs.jsonl"
    monkeypatch.setattr("tempfile.tempdir", str(features))
    designed = selecting._designed

    def and_meanwhile(*arguments):
        out.write_text("precious")
        return designed(*arguments)

    monkeypatch.setattr(selecting, "_designed", and_meanwhile)
    assert run("select", features / "features.npy", "--labels", 24, "--output", out) == 1
    assert out.read_text() == "precious"
    (found,) = features.glob("jaxdesign-*/pairs.jsonl")
    assert len(rows_of(found)) == 24
    said, err = capsys.readouterr()
    assert f"written: {found} and " in said and "certified efficiency" in said and "exists already" in err


SMALL_FILES = """
import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
"""
STUB = """
import jaxdesign.cli
def main(writing):
    from jaxdesign.cli.saving import save
    rows = [{"task_id": k, "text": "x" * 200} for k in range(5000)]
    return 0 if save("pairs.jsonl", rows, {}, False).as_asked else 1
jaxdesign.cli.main = main
"""


def test_a_limit_on_the_size_of_files_is_met_as_a_full_disk(tmp_path):
    """A real refusal by the operating system, everywhere: what is left is standard output."""
    code, out, err = finished(first=SMALL_FILES.format(size=65536) + STUB, cwd=tmp_path)
    assert code == 1 and [json.loads(line)["task_id"] for line in out.splitlines()] == list(range(5000))
    assert err.startswith("jaxdesign: error: pairs.jsonl: File too large; ") and err.count("\n") == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_a_whole_run_meets_a_limit_on_the_size_of_files(tmp_path):
    """With the cache of compiled programs on: its refusals are told once and stop nothing."""
    code, out, err = finished(
        *("select", "--labels", 100, "--output", "pairs.jsonl"),
        cwd=tmp_path,
        environment={"XDG_CACHE_HOME": str(tmp_path / "cache")},
        first=SMALL_FILES.format(size=8192),
    )
    assert code == 1 and len(out.splitlines()) == 100
    assert err.splitlines()[-1].startswith("jaxdesign: error: pairs.jsonl: File too large; ")
    assert err.count("compilation cache") == 1 and "UserWarning" not in err
    assert os.listdir(tmp_path) == ["cache"]
