"""Rounds in the store: batches come back in order, whole or not at all."""

import os

import numpy as np
import pytest

from jaxdesign.preference.labels.store import LabelStore
from jaxdesign.preference.labels.tasks import make_tasks

TASKS = make_tasks(0, [(p, 0, 1) for p in range(8)])


def test_batches_come_back_in_order_with_their_notes(tmp_path):
    store = LabelStore(tmp_path)
    first = make_tasks(0, [(4, 0, 1), (2, 1, 3)], [2, 1], swap_seed=3, annotators=[1, None])
    second = make_tasks(1, [(2, 1, 3)], earlier=first)
    store.write_batch(1, second)
    store.write_batch(0, first, notes={"predicted": 0.25, "seed": 3})
    for reader in (store, LabelStore(tmp_path)):
        assert reader.rounds() == [0, 1]
        assert reader.batch(0) == first and reader.batch(1) == second
        assert reader.notes(0) == {"predicted": 0.25, "seed": 3} and reader.notes(1) == {}
    with pytest.raises(ValueError, match=r"round=2: not stored; found are \[0, 1\]"):
        store.batch(2)


def test_a_stored_batch_stays(tmp_path):
    store = LabelStore(tmp_path)
    store.write_batch(0, TASKS)
    store.write_batch(0, TASKS)
    for other, notes in ((TASKS[:3], None), (TASKS, {"x": 1})):
        with pytest.raises(ValueError, match=r"another batch is stored in round-000000.json"):
            store.write_batch(0, other, notes)
    with pytest.raises(ValueError, match="occurs twice"):
        store.write_batch(1, make_tasks(1, [(0, 0, 1)]))
    with pytest.raises(ValueError, match="occurs twice"):
        store.write_batch(1, [TASKS[0]._replace(round=1, task_id="y")] * 2)
    for wrong in ([], TASKS):
        with pytest.raises(ValueError, match="only of that round"):
            store.write_batch(1, wrong)
    assert store.rounds() == [0] and store.batch(0) == TASKS


def test_a_batch_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    """Killed before the rename: no batch, and the next attempt writes over what was left."""
    store = LabelStore(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.write_batch(0, TASKS)
    assert LabelStore(tmp_path).rounds() == []
    store.write_batch(0, TASKS[:2])
    assert store.batch(0) == TASKS[:2] and sorted(f.name for f in tmp_path.iterdir()) == ["lock", "round-000000.json"]


def test_copies_of_round_files_are_no_rounds(tmp_path):
    store = LabelStore(tmp_path)
    store.write_batch(0, TASKS)
    text = (tmp_path / "round-000000.json").read_bytes()
    for name in ("round-000000 (conflicted copy).json", "round-000000 2.json", "round-0.json", "round-0000000.json"):
        (tmp_path / name).write_bytes(text[:30])
    assert store.rounds() == [0] and store.batch(0) == TASKS
    store.write_batch(1_234_567, make_tasks(1_234_567, [(0, 0, 1)], earlier=TASKS))
    assert store.rounds() == [0, 1_234_567]


@pytest.mark.parametrize("cut", [0, 40, -1])
def test_a_round_file_that_was_cut_short_is_named(tmp_path, cut):
    store = LabelStore(tmp_path)
    store.write_batch(0, TASKS)
    file = tmp_path / "round-000000.json"
    file.write_bytes(file.read_bytes()[:cut])
    for call in (
        lambda: store.batch(0),
        lambda: store.notes(0),
        lambda: store.write_batch(1, make_tasks(1, [(9, 0, 1)])),
    ):
        with pytest.raises(ValueError, match=r"round-000000.json: is cut short or damaged .*restore"):
            call()
    for text in ("[]", "{}", '{"tasks": 3, "notes": {}}', '{"tasks": [{"pair": [0, 0, 1], "colour": 1}], "notes": {}}'):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"round-000000.json: is cut short or damaged"):
            store.batch(0)


def test_notes_are_json(tmp_path):
    store = LabelStore(tmp_path)
    with pytest.raises(ValueError, match=r"notes: .*NaN and inf are no JSON"):
        store.write_batch(0, TASKS, {"gap": float("nan")})
    with pytest.raises(TypeError):
        store.write_batch(0, TASKS, {"gap": np.zeros(2)})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_half_of_a_batch_and_no_other_file(tmp_path, monkeypatch):
    store = LabelStore(tmp_path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left on device.*round-000000.json"):
            store.write_batch(0, TASKS)
    assert [file.name for file in tmp_path.iterdir()] == ["lock"]
    store.write_batch(np.int64(0), TASKS)
    assert store.batch(0) == TASKS
