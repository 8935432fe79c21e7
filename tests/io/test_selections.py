"""Selections: rows and reports that read back, texts joined, nothing overwritten or left half done."""

import csv
import dataclasses
import enum
import io
import json
import os
from typing import NamedTuple

import numpy as np
import pytest

from jaxdesign.io import (
    PoolFile,
    check_writable,
    report_path,
    selection_rows,
    task_rows,
    with_texts,
    write_selection,
)
from jaxdesign.preference.labels.tasks import make_tasks

FEATURES = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
POOL = PoolFile(prompts=["Why?", "How?"], completions=[["a", "b"], ["c,\r\n", 'd "e"\n', "f\ud800"]], ids=["x", "y"])
PAIRS = np.array([[1, 0, 2], [0, 0, 1], [1, 1, 2]], np.int32)


def test_rows_carry_indices_texts_and_whole_labels_as_integers():
    rows = selection_rows(PAIRS, np.array([2.0, 1.0, 1.0]), POOL)
    assert list(rows[1].items()) == [
        ("prompt_id", "x"), ("prompt", 0), ("i", 0), ("j", 1), ("labels", 1),
        ("prompt_text", "Why?"), ("response_i", "a"), ("response_j", "b"),
    ]  # fmt: skip
    assert [type(row["labels"]) for row in rows] == [int] * 3
    assert selection_rows(PAIRS[:1], [0.5]) == [{"prompt": 1, "i": 0, "j": 2, "labels": 0.5}]


def test_tasks_carry_both_orders_and_the_texts_in_the_order_of_showing():
    tasks = make_tasks(0, PAIRS[:1], [4], ids=POOL.ids, swap_seed=0)
    rows = task_rows(tasks, POOL)
    assert {task.swapped for task in tasks} == {True, False}
    for task, row in zip(tasks, rows, strict=True):
        a, b = (2, 0) if task.swapped else (0, 2)
        texts = POOL.completions[1]
        assert list(row.items()) == [
            ("task_id", task.task_id), ("prompt_id", "y"), ("prompt", 1), ("i", 0), ("j", 2), ("repeat", task.repeat),
            ("a", a), ("b", b), ("prompt_text", "How?"), ("response_a", texts[a]), ("response_b", texts[b]),
        ]  # fmt: skip
    assert [row["repeat"] for row in rows] == [0, 1, 2, 3]
    assert list(task_rows(tasks)[0]) == ["task_id", "prompt", "i", "j", "repeat", "a", "b"]


TEXTS = PoolFile(prompts=["Who?", "Why?", "How?"], completions=[["w"], ["a", "b", "c"], ["d"]], ids=["7", "8", "9"])


def test_texts_are_joined_by_id_where_features_have_ids():
    mask = np.array([[True, True, True], [True, True, False]])
    joined = with_texts(PoolFile(features=FEATURES, mask=mask, ids=[9, 8]), TEXTS)
    assert (joined.prompts, joined.completions, joined.ids) == (["How?", "Why?"], [["d"], ["a", "b", "c"]], [9, 8])
    assert joined.mask.tolist() == [[True, False, False], [True, True, False]] and joined.features is FEATURES


def test_texts_are_joined_by_order_where_features_have_none():
    texts = TEXTS._replace(prompts=TEXTS.prompts[1:], completions=TEXTS.completions[1:], ids=TEXTS.ids[1:])
    joined = with_texts(PoolFile(features=FEATURES), texts)
    assert (joined.prompts, joined.ids) == (["Why?", "How?"], ["8", "9"])
    assert joined.mask.tolist() == [[True, True, True], [True, False, False]]


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (PoolFile(features=FEATURES), "texts: 3 prompts found, and 2 in the features, which have no ids to join by"),
        (
            PoolFile(features=FEATURES, ids=["7", "x"]),
            "texts: no line has prompt_id 'x', which the features have (1",
        ),
        (PoolFile(features=FEATURES[:, :2], ids=["7", "8"]), "texts: 8 has 3 completions, and features only 2 rows a"),
        (PoolFile(), "features, prompts and completions are needed"),
    ],
)
def test_texts_that_do_not_fit_are_named(pool, message):
    with pytest.raises(ValueError) as caught:
        with_texts(pool, TEXTS)
    assert message in str(caught.value)


@pytest.mark.parametrize("pool", [POOL, None])
@pytest.mark.parametrize("labels", [[3, 1, 1], [0.1, 1 / 3, 1e-300]])
def test_what_is_written_reads_back(tmp_path, pool, labels):
    rows = selection_rows(PAIRS, np.array(labels), pool)
    paths = write_selection(tmp_path / "pairs.jsonl", rows, {"seed": 7})
    assert paths == (tmp_path / "pairs.jsonl", report_path(tmp_path / "pairs.jsonl"))
    assert paths[1] == tmp_path / "pairs.json"
    assert [json.loads(line) for line in paths[0].read_text(encoding="utf-8").splitlines()] == rows
    write_selection(tmp_path / "table.csv", rows, {"seed": 7})
    with open(tmp_path / "table.csv", encoding="utf-8", newline="") as file:
        read = [{**row, "labels": float(row["labels"])} for row in csv.DictReader(file)]
    as_text = [{key: str(value).replace("\ud800", r"\ud800") for key, value in row.items()} for row in rows]
    assert read == [{**row, "labels": float(row["labels"])} for row in as_text]
    assert json.loads((tmp_path / "table.json").read_text()) == {"seed": 7}


def test_no_pairs_at_all_still_make_two_files(tmp_path):
    rows = selection_rows(PAIRS[:0], [])
    write_selection(tmp_path / "a.jsonl", rows, {})
    write_selection(tmp_path / "b.csv", rows, {})
    assert (tmp_path / "a.jsonl").read_text() == ""
    assert (tmp_path / "b.csv").read_text() == "prompt,i,j,labels\n"


class _Certificate(NamedTuple):
    value: float
    efficiency: float


@dataclasses.dataclass
class _Settings:
    tol: float
    per_prompt: np.ndarray


class _Status(enum.Enum):
    DONE = "Stopped: certified."


def test_report_is_valid_json_whatever_the_numbers(tmp_path):
    report = {
        "certificate": _Certificate(np.float64(1.25), float("nan")),
        "settings": _Settings(np.float32("inf"), np.array([1, 2])),
        "status": _Status.DONE,
        "trace": [(np.int32(1), None, True)],
        "path": tmp_path / "é",
    }
    write_selection(tmp_path / "p.csv", [], report)
    forbidden = pytest.fail  # called for NaN and Infinity, which JSON does not have
    assert json.loads((tmp_path / "p.json").read_text("utf-8"), parse_constant=forbidden) == {
        "certificate": {"value": 1.25, "efficiency": None},
        "settings": {"tol": None, "per_prompt": [1, 2]},
        "status": "Stopped: certified.",
        "trace": [[1, None, True]],
        "path": str(tmp_path / "é"),
    }


@pytest.mark.parametrize("existing", ["p.jsonl", "p.json"])
def test_nothing_is_overwritten_unless_asked(tmp_path, existing):
    (tmp_path / existing).write_text("precious")
    with pytest.raises(FileExistsError) as caught:
        write_selection(tmp_path / "p.jsonl", [], {})
    expected = f"{tmp_path / existing}: exists already; choose another path, remove it, or pass overwrite=True"
    assert str(caught.value) == expected
    assert os.listdir(tmp_path) == [existing] and (tmp_path / existing).read_text() == "precious"
    write_selection(tmp_path / "p.jsonl", [], {}, overwrite=True)
    assert (tmp_path / existing).read_text() != "precious"


def test_a_dangling_link_counts_as_existing(tmp_path):
    (tmp_path / "p.csv").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        check_writable(tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("p.txt", ValueError, "p.txt: suffix '.txt' is not known; pairs are written to .jsonl or .csv"),
        ("p.json", ValueError, "p.json: suffix '.json' is not known; pairs are written to .jsonl or .csv"),
        ("none/p.csv", FileNotFoundError, "none: the directory of p.csv does not exist; create it first"),
        ("file/p.csv", NotADirectoryError, "file: is not a directory, so p.csv cannot be in it; choose another path"),
        ("folder.csv", IsADirectoryError, "folder.csv: is a directory; choose another path"),
    ],
)
def test_an_unusable_output_path_is_named_before_the_work(tmp_path, name, error, message):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(error) as caught:
        check_writable(tmp_path / name, overwrite=True)
    assert message in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_write_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=r"cannot be written to \(Permission denied\); choose another path"):
        check_writable(tmp_path / "p.csv")


def test_a_file_system_that_refuses_is_named(tmp_path, monkeypatch):
    def refuse(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(PermissionError) as caught:
        check_writable(tmp_path / "p.csv")
    assert str(caught.value) == f"{tmp_path}: cannot be written to (Read-only file system); choose another path"


def test_check_writable_leaves_nothing_behind(tmp_path):
    check_writable(tmp_path / "p.csv")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("broken", ["write", "rename"])
def test_a_failure_leaves_the_old_files_and_no_temporary(tmp_path, monkeypatch, broken):
    write_selection(tmp_path / "p.jsonl", [{"i": 1}], {"seed": 1})
    before = {file.name: file.read_text() for file in tmp_path.iterdir()}

    def disk_full(*_, **__):
        raise OSError(28, "No space left on device")

    class FullDisk(io.StringIO):
        write = disk_full

    def open_then_full(path, *args, **kwargs):
        open(path, *args, **kwargs).close()
        return FullDisk()

    if broken == "write":
        monkeypatch.setattr("jaxdesign.io.design_files.open", open_then_full, raising=False)
    else:
        monkeypatch.setattr("os.replace", disk_full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_selection(tmp_path / "p.jsonl", [{"i": 2}], {"seed": 2}, overwrite=True)
    assert caught.value.filename == str(tmp_path / "p.json") and caught.value.errno == 28
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == before


def test_a_report_whose_pairs_cannot_be_put_in_place_is_taken_back(tmp_path, monkeypatch):
    replace = os.replace

    def one_only(source, target):
        if str(target).endswith(".jsonl"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr("os.replace", one_only)
    with pytest.raises(OSError) as caught:
        write_selection(tmp_path / "p.jsonl", [], {})
    assert caught.value.filename == str(tmp_path / "p.jsonl") and os.listdir(tmp_path) == []


def test_a_value_json_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match=r"of type set: cannot be written as JSON"):
        write_selection(tmp_path / "p.jsonl", [], {"settings": {1}})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("pairs", "labels", "error", "message"),
    [
        (PAIRS[:, :2], [1, 1, 1], ValueError, "pairs of shape (3, 2), labels of shape (3,): must be (S, 3) and (S,)"),
        (PAIRS, [1, 1], ValueError, "pairs of shape (3, 3), labels of shape (2,): must be (S, 3) and (S,)"),
        (PAIRS * 1.0, [1, 1, 1], TypeError, "pairs of dtype float64: must be integers (prompt, i, j)"),
    ],
)
def test_pairs_and_labels_that_do_not_fit_are_named(pairs, labels, error, message):
    with pytest.raises(error) as caught:
        selection_rows(pairs, labels)
    assert str(caught.value) == message
