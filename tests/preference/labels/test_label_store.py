"""The label store: what is stored comes back, in plain words, and nothing is stored twice."""

import json

import numpy as np
import pytest

from jaxdesign.preference.labels.labels import FIRST, SECOND, SKIP, TIE
from jaxdesign.preference.labels.store import LabelStore
from jaxdesign.preference.labels.tasks import Task, answered, check_tasks, make_tasks

TASKS = make_tasks(0, [(p, 0, 1) for p in range(8)])


def test_what_is_stored_comes_back(tmp_path):
    store = LabelStore(tmp_path / "new" / "folder")
    assert len(store.labels().choices) == 0 and store.rounds() == [] and store.records() == []
    store.append(answered(TASKS[0], SECOND, 2, seconds=1.5, confidence=0.25))
    assert store.append([answered(TASKS[1], TIE), answered(TASKS[0], SKIP, 1)]) == 2
    for reader in (store, LabelStore(store.path)):
        labels = reader.labels()
        assert labels.pairs.tolist() == [[0, 0, 1], [1, 0, 1], [0, 0, 1]]
        assert labels.choices.tolist() == [SECOND, TIE, SKIP] and labels.annotators.tolist() == [2, 0, 1]
        assert reader.records()[0] == answered(TASKS[0], SECOND, 2, 1.5, 0.25)
        assert reader.outstanding(TASKS) == TASKS[2:]
        assert len(reader.labels(round=1).choices) == 0 and len(reader.labels(round=0).choices) == 3


def test_numbers_of_any_kind_are_stored_as_numbers(tmp_path):
    task = Task("x", np.int64(0), tuple(np.array([3, 0, 1], np.int32)), np.int32(0))
    store = LabelStore(tmp_path)
    store.append(answered(task, np.int8(1), np.int32(4), np.float32(0.5)))
    assert LabelStore(tmp_path).records() == [answered(Task("x", 0, (3, 0, 1), 0), SECOND, 4, 0.5)]


def test_one_line_per_label_in_plain_words(tmp_path):
    store = LabelStore(tmp_path)
    store.append([answered(task, FIRST) for task in TASKS[:2]])
    lines = (tmp_path / "labels.jsonl").read_text().splitlines()
    expected = {
        "task_id": TASKS[1].task_id,
        "round": 0,
        "pair": [1, 0, 1],
        "repeat": 0,
        "choice": "first",
        "annotator": 0,
    }
    assert len(lines) == 2 and json.loads(lines[1]) == expected


def test_no_label_is_stored_twice(tmp_path):
    store, other = LabelStore(tmp_path), LabelStore(tmp_path)
    store.append(answered(TASKS[0], FIRST))
    before = (tmp_path / "labels.jsonl").read_bytes()
    for again in (
        [answered(TASKS[0], FIRST)],
        [answered(TASKS[1], FIRST), answered(TASKS[0], SECOND)],
        [answered(TASKS[2], FIRST)] * 2,
    ):
        for writer in (store, other):
            with pytest.raises(ValueError, match=r"annotator 0: stored already or given twice; nothing was stored"):
                writer.append(again)
    assert (tmp_path / "labels.jsonl").read_bytes() == before
    other.append(answered(TASKS[0], SECOND, annotator=1))  # another annotator may
    assert len(store.records()) == 2


def test_a_file_of_labels_may_be_read_in_twice(tmp_path):
    store = LabelStore(tmp_path)
    given = [answered(task, FIRST) for task in TASKS[:3]]
    store.append(given[:2])
    assert store.not_held(given) == given[2:]
    with pytest.raises(ValueError, match="'tie' found, 'first' stored"):
        store.not_held([answered(TASKS[0], TIE)])


def test_what_was_only_skipped_can_be_asked_of_somebody_else(tmp_path):
    store = LabelStore(tmp_path)
    tasks = make_tasks(0, [(p, 0, 1) for p in range(5)], annotators=[1, 1, 1, None, None], swap_seed=0)
    store.append([answered(tasks[0], SKIP), answered(tasks[1], SKIP), answered(tasks[1], TIE, 2)])
    store.append([answered(tasks[2], FIRST), answered(tasks[3], SKIP, 0)])
    assert store.outstanding(tasks) == [tasks[4]]
    again = store.skipped(tasks)
    assert again == [tasks[0]._replace(annotator=None), tasks[3]]  # in their order, also of showing
    store.append([answered(task, SECOND, 4) for task in again])
    assert store.skipped(tasks) == [] and len(store.labels().choices) == 7


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"seconds": float("nan")}, ValueError, "record.seconds: nan found"),
        ({"confidence": np.float32("inf")}, ValueError, "record.confidence: inf"),
        ({"seconds": 10**400}, ValueError, "record.seconds: 1000"),
        ({"seconds": "2.5"}, TypeError, "record.seconds: '2.5'"),
        ({"annotator": 5_000_000_000}, ValueError, "record.annotator 5000000000 found; .* from 0 to 999999"),
        ({"annotator": 1_000_000}, ValueError, "record.annotator 1000000 found"),
        ({"annotator": -1}, ValueError, "record.annotator -1 found"),
        ({"annotator": 1.0}, TypeError, "no integer"),
        ({"choice": True}, TypeError, "no integer"),
        ({"choice": 4}, ValueError, "record.choice=4"),
        ({"pair": (2**31, 0, 1)}, ValueError, r"record.pair=\(2147483648, 0, 1\): indices are from 0 to 2147483647"),
        ({"pair": (0, 0, 2**40)}, ValueError, "indices are from 0"),
        ({"pair": (0, 0)}, TypeError, "no integer"),
        ({"task_id": 7}, TypeError, "record.task_id: 7 found; expected a text"),
    ],
)
def test_what_could_not_be_read_as_a_label_is_never_stored(tmp_path, change, error, words):
    store = LabelStore(tmp_path)
    with pytest.raises(error, match=words):
        store.append([answered(TASKS[0], FIRST), answered(TASKS[1], FIRST)._replace(**change)])
    assert not (tmp_path / "labels.jsonl").exists()


def test_the_largest_numbers_are_stored_and_come_back_as_arrays(tmp_path):
    store = LabelStore(tmp_path)
    store.append(answered(Task("x", 0, (2**31 - 1, 0, 2**31 - 1), 0), FIRST, 999_999))
    labels = LabelStore(tmp_path).labels()
    assert labels.pairs.tolist() == [[2**31 - 1, 0, 2**31 - 1]] and labels.annotators.tolist() == [999_999]


def test_labels_that_older_stores_hold_are_read(tmp_path):
    """Ids without their letter, NaN for seconds, an annotator's number that is refused now."""
    rows = [
        {"task_id": TASKS[0].task_id[1:], "round": 0, "pair": [0, 0, 1], "repeat": 0, "choice": "tie", "annotator": 3},
        {"task_id": TASKS[1].task_id, "round": 0, "pair": [1, 0, 1], "repeat": 0, "choice": "first"},
    ]
    rows[0] |= {"seconds": float("nan"), "confidence": 0.5}
    rows[1] |= {"annotator": 5_000_000_000}
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = LabelStore(tmp_path).records()
    assert (first.seconds, first.confidence, first.choice) == (None, 0.5, TIE) and second.annotator == 5_000_000_000
    tasks = [task._replace(task_id=task.task_id[1:]) for task in TASKS]
    store = LabelStore(tmp_path)
    store.write_batch(0, tasks)
    assert store.outstanding(store.batch(0))[0] == tasks[1]
    check_tasks(store.batch(0))
    with pytest.raises(ValueError, match="occurs twice"):  # the same comparison under its new name
        store.write_batch(1, make_tasks(1, [(0, 0, 1)]))
