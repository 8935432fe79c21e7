"""The label store: nothing acknowledged is lost, nothing is stored twice, whatever kills the writer and wherever."""

import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from jaxdesign.preference.labels.labels import FIRST, SECOND, SKIP, TIE
from jaxdesign.preference.labels.store import LabelStore
from jaxdesign.preference.labels.tasks import Task, answered, check_tasks, make_tasks, task_id
from tests.support import CHECKOUT

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


def test_an_unfinished_last_line_is_passed_over_and_cut_off_at_every_byte(tmp_path):
    store = LabelStore(tmp_path)
    store.append([answered(task, FIRST) for task in TASKS[:3]])
    file = tmp_path / "labels.jsonl"
    whole = file.read_bytes()
    start = whole.rfind(b"\n", 0, -1) + 1
    # a line that lacks its newline only is whole; see below
    tails = [whole[:cut] for cut in range(start, len(whole) - 1)] + [whole[:start] + b"\0" * 5000]
    for text in tails:
        file.write_bytes(text)
        reader = LabelStore(tmp_path)
        assert len(reader.records()) == 2 and reader.outstanding(TASKS) == TASKS[2:]
        assert file.read_bytes() == text  # reading changes nothing
        reader.append(answered(TASKS[2], FIRST))
        assert file.read_bytes() == whole


def test_a_broken_line_before_the_last_is_an_error_that_names_it(tmp_path):
    LabelStore(tmp_path).append([answered(task, FIRST) for task in TASKS[:3]])
    file = tmp_path / "labels.jsonl"
    good = file.read_text().splitlines(keepends=True)
    for bad in ("nonsense\n", "{}\n", "[1]\n", good[1].replace("first", "fist"), "\n"):
        file.write_text(good[0] + bad + good[2])
        with pytest.raises(ValueError, match=r"labels.jsonl, line 2: .* is no label"):
            LabelStore(tmp_path)


def test_a_file_that_became_shorter_is_an_error(tmp_path):
    store = LabelStore(tmp_path)
    store.append(answered(TASKS[0], FIRST))
    (tmp_path / "labels.jsonl").write_bytes(b"")
    with pytest.raises(ValueError, match="shorter than it was"):
        store.labels()


def test_a_last_line_that_lost_only_its_newline_is_kept(tmp_path):
    """An editor, or pandas' to_json: seen by a store that was open before, and by the next writer."""
    LabelStore(tmp_path).append([answered(task, FIRST) for task in TASKS[:2]])
    file = tmp_path / "labels.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole.rstrip(b"\n"))
    early, writer = LabelStore(tmp_path), LabelStore(tmp_path)
    assert [record.pair for record in early.records()] == [(0, 0, 1), (1, 0, 1)]
    with pytest.raises(ValueError, match="stored already"):
        writer.append(answered(TASKS[1], SECOND))
    assert file.read_bytes() == whole.rstrip(b"\n")
    writer.append(answered(TASKS[2], FIRST))
    assert file.read_bytes()[: len(whole)] == whole and file.read_bytes().endswith(b"\n")
    for reader in (early, writer, LabelStore(tmp_path)):
        assert [record.pair for record in reader.records()] == [(0, 0, 1), (1, 0, 1), (2, 0, 1)]


def test_a_last_line_that_is_whole_and_no_label_is_never_cut_off(tmp_path):
    store = LabelStore(tmp_path)
    store.append(answered(TASKS[0], FIRST))
    with open(tmp_path / "labels.jsonl", "a") as file:
        file.write('{"task_id": "of a later version", "verdict": 3}')
    for call in (lambda: LabelStore(tmp_path), lambda: store.append(answered(TASKS[1], FIRST))):
        with pytest.raises(ValueError, match=r"labels.jsonl, line 2: .* is no label"):
            call()
    assert "verdict" in (tmp_path / "labels.jsonl").read_text()


@pytest.mark.parametrize("also", ["nothing", "another file", "an edited file"])
def test_a_file_that_went_away_under_a_store_is_an_error_and_is_never_filled_with_zeros(tmp_path, also):
    store, file = LabelStore(tmp_path / "hole"), tmp_path / "hole" / "labels.jsonl"
    store.append([answered(task, FIRST) for task in TASKS[:2]])
    kept = file.read_bytes()
    os.replace(file, tmp_path / "elsewhere")
    if also == "another file":  # as long as the old one, and longer, by other hands
        LabelStore(file.parent).append([answered(task, SECOND) for task in TASKS[3:6]])
    if also == "an edited file":
        file.write_bytes(kept.replace(TASKS[1].task_id.encode(), TASKS[2].task_id.encode()))
    before = file.read_bytes() if file.exists() else None
    message = "is gone, after 2" if also == "nothing" else "is not the file it was, after 2"
    calls = [
        lambda: store.append(answered(TASKS[7], FIRST)),
        store.labels,
        lambda: store.outstanding(TASKS),
        lambda: store.not_held([answered(TASKS[7], FIRST)]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()
    assert (file.read_bytes() if file.exists() else None) == before
    assert (tmp_path / "elsewhere").read_bytes() == kept
    LabelStore(file.parent).append(answered(TASKS[7], FIRST))  # the folder is as good as any
    (tmp_path / "elsewhere").replace(file)  # put back, all is as it was
    assert len(store.records()) == 2 and store.append(answered(TASKS[7], FIRST)) == 1


@pytest.mark.parametrize(("when", "held"), [("opened", 2), ("forced", 2), ("forced", 0)])
def test_a_file_that_goes_away_while_it_is_written_to_is_an_error(tmp_path, monkeypatch, when, held):
    store, file = LabelStore(tmp_path), tmp_path / "labels.jsonl"
    store.append([answered(task, FIRST) for task in TASKS[:held]])
    name = {"opened": "open", "forced": "fsync"}[when]
    original, moved = getattr(os, name), []

    def move_first(*arguments):
        if file.exists() and not moved:
            moved.append(os.replace(file, tmp_path / "elsewhere"))
        return original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(os, name, move_first)
        with pytest.raises((ValueError, FileNotFoundError), match=r"labels.jsonl"):
            store.append(answered(TASKS[5], FIRST))
    assert moved and not file.exists()
    assert (tmp_path / "elsewhere").read_bytes().count(b"\n") == held  # nothing was acknowledged, or added


@pytest.mark.parametrize("held", [0, 2])
def test_labels_of_a_file_that_is_put_in_place_at_the_last_moment_are_not_cut_off(tmp_path, monkeypatch, held):
    store, other, file = LabelStore(tmp_path / "a"), LabelStore(tmp_path / "b"), tmp_path / "a" / "labels.jsonl"
    store.append([answered(task, FIRST) for task in TASKS[:held]])
    other.append([answered(task, SECOND) for task in TASKS[2:6]])
    whole, original = (tmp_path / "b" / "labels.jsonl").read_bytes(), os.open

    def exchange_first(path, *arguments):
        if str(path).endswith("a/labels.jsonl"):
            file.write_bytes(whole)
        return original(path, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", exchange_first)
        with pytest.raises(ValueError, match="is not the file it was"):
            store.append(answered(TASKS[7], FIRST))
    assert file.read_bytes() == whole


def test_a_folder_that_went_away_is_named(tmp_path):
    store = LabelStore(tmp_path / "here")
    store.append(answered(TASKS[0], FIRST))
    (tmp_path / "here").rename(tmp_path / "there")
    with pytest.raises(FileNotFoundError, match="here: the folder of this store is gone"):
        store.append(answered(TASKS[1], FIRST))
    with pytest.raises(ValueError, match=r"labels.jsonl: is gone"):
        store.records()
    assert len(LabelStore(tmp_path / "there").records()) == 1


def test_what_a_full_disk_takes_back_no_reading_thread_has_seen(tmp_path, monkeypatch):
    store, write = LabelStore(tmp_path), os.write
    store.append(answered(TASKS[0], FIRST))
    readers = [threading.Thread(target=store.records) for _ in range(2)]

    def fail_late(descriptor, data):
        if data.count(b"\n") == 1:  # the last of two lines: the first is in the file by now
            for reader in readers:
                reader.start()
            time.sleep(0.05)
            raise OSError(28, "No space left on device")
        return write(descriptor, data[: data.index(b"\n") + 1])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fail_late)
        with pytest.raises(OSError, match="No space"):
            store.append([answered(task, FIRST) for task in TASKS[1:3]])
    for reader in readers:
        reader.join()
    assert len(store.records()) == 1 and store.append([answered(task, FIRST) for task in TASKS[1:3]]) == 2


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


def test_a_full_disk_stores_nothing_and_the_label_can_be_stored_later(tmp_path, monkeypatch):
    store = LabelStore(tmp_path)
    store.append(answered(TASKS[0], FIRST))
    before = (tmp_path / "labels.jsonl").read_bytes()
    write, left = os.write, [150]

    def until_full(descriptor, data):
        if left[0] <= 0:
            raise OSError(28, "No space left on device")
        count = write(descriptor, data[: left[0]])
        left[0] -= count
        return count

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", until_full)
        with pytest.raises(OSError, match="No space"):
            store.append([answered(task, FIRST) for task in TASKS[1:4]])
    assert (tmp_path / "labels.jsonl").read_bytes() == before
    store.append([answered(task, FIRST) for task in TASKS[1:4]])
    assert len(LabelStore(tmp_path).records()) == 4


def test_the_label_is_forced_to_disk_before_append_returns(tmp_path, monkeypatch):
    forced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda d: (forced.append(os.fstat(d).st_size), fsync(d)))
    store = LabelStore(tmp_path)
    store.append(answered(TASKS[0], FIRST))
    assert (tmp_path / "labels.jsonl").stat().st_size in forced and len(forced) == 2  # the file, and its folder once
    store.append(answered(TASKS[1], FIRST))
    assert (tmp_path / "labels.jsonl").stat().st_size == forced[-1] and len(forced) == 3


# ---- kills


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_killed_writers_lose_and_repeat_nothing(tmp_path, seed):
    """Writers killed anywhere, over and over: every label that was acknowledged is there, once."""
    lives = [0, 1, 2, *np.random.default_rng(seed).integers(3, 200, 25).tolist()]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path])}
    command = [sys.executable, "-W", "ignore", "-m", "tests.support.killed_writer", str(tmp_path)]
    told, kills, unfinished, file = [], 0, 0, tmp_path / "labels.jsonl"
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as program:
        for life in lives:
            program.stdin.write(f"{life}\n")
            program.stdin.flush()
            while (line := program.stdout.readline().strip()) not in ("killed", "finished"):
                assert line, "the writer itself failed"
                told.append(line)
            kills += line == "killed"
            assert len(LabelStore(tmp_path).rounds()) == (kills > 2)  # the first two die before its name
            unfinished += file.exists() and not file.read_bytes().endswith(b"\n") and file.stat().st_size > 0
            stored = [record.task_id for record in LabelStore(tmp_path).records()]
            assert set(told) <= set(stored) and len(set(stored)) == len(stored)
    assert kills == len(lives) and unfinished >= 3 and len(told) == len(set(told))
    # a writer that lives stores what is left, and then every task has one label, the one it would have had
    store = LabelStore(tmp_path)
    wanted = {task: answered(task, sum(map(ord, task.task_id)) % 4, task.pair[0] % 3) for task in store.batch(0)}
    store.append(wanted[task] for task in store.outstanding(wanted))
    assert sorted(store.records()) == sorted(wanted.values())


def _store_all(folder, order):
    store, stored = LabelStore(folder), 0
    for k in order:
        try:
            stored += store.append(answered(TASKS[k], FIRST))
        except ValueError:
            pass
    return stored


def test_many_threads_store_each_label_once(tmp_path):
    shared, counts = LabelStore(tmp_path), []

    def work(seed):
        stored = 0
        for k in np.random.default_rng(seed).permutation(len(TASKS)):
            try:
                stored += shared.append(answered(TASKS[k], FIRST))
            except ValueError:
                shared.labels()
        counts.append(stored)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == len(TASKS) == len(shared.records()) == len(LabelStore(tmp_path).records())


def test_many_threads_take_in_each_label_once(tmp_path, monkeypatch):
    shared, parsed = LabelStore(tmp_path), LabelStore._parsed
    LabelStore(tmp_path).append([answered(task, FIRST) for task in TASKS])
    # parsing lets the other threads in
    monkeypatch.setattr(LabelStore, "_parsed", lambda store, line: (time.sleep(1e-3), parsed(store, line))[1])
    threads = [threading.Thread(target=shared.records) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(shared.records()) == len(TASKS)


@pytest.mark.slow
def test_many_processes_store_each_label_once(tmp_path):
    with multiprocessing.get_context("spawn").Pool(3) as workers:
        counts = workers.starmap(_store_all, [(tmp_path, np.random.default_rng(s).permutation(8)) for s in range(3)])
    assert sum(counts) == len(TASKS) == len(LabelStore(tmp_path).records())


def test_a_second_writer_waits_and_then_says_so(tmp_path):
    store, hasty = LabelStore(tmp_path), LabelStore(tmp_path, wait=0.05)
    with store._locked():
        for call in (lambda: hasty.append(answered(TASKS[0], FIRST)), lambda: hasty.write_batch(0, TASKS)):
            with pytest.raises(TimeoutError, match=r"another writer held the lock for 0.05 s"):
                call()
    hasty.append(answered(TASKS[0], FIRST))


# ---- rounds


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


# ---- tasks


def test_task_ids_are_stable():
    assert task_id("prompt", 0, 3, 1) == "t768fe38ec5ab82b1ed5e"
    names = {task_id(p, i, j, r) for p in ("a", "b", 1, "1") for i in range(2) for j in range(2, 4) for r in range(2)}
    assert len(names) == 32
    assert task_id(np.int64(7), np.int32(0), 1, 0) == task_id(7, 0, 1, 0) and task_id(np.str_("a"), 0, 1, 0) == task_id(
        "a", 0, 1, 0
    )
    with pytest.raises(TypeError, match="prompt: float"):
        task_id(0.5, 0, 1, 0)


def test_no_task_id_is_a_number_to_a_spreadsheet():
    """54230611765937674184 is; so is 5423061176593767e184."""
    assert task_id(6656, 0, 1, 0) == "t54230611765937674184"
    names = [task_id(p, 0, 1, 0) for p in range(100_000)]
    assert len(set(names)) == len(names) and {name[0] for name in names} == {"t"}
    assert sum(_is_number(name[1:]) for name in names) > 10  # what the letter is for


def _is_number(text):
    try:
        return bool(float(text) or True)
    except ValueError:
        return False


def test_a_task_keeps_the_order_it_was_shown_in_before_ids_had_a_letter():
    assert [task.swapped for task in make_tasks(0, [(p, 0, 1) for p in range(10)], swap_seed=1)] == [
        bool(hashlib.sha256(f"1 {task_id(p, 0, 1, 0)[1:]}".encode()).digest()[0] & 1) for p in range(10)
    ]


def test_repeats_are_counted_on():
    first = make_tasks(0, [(0, 0, 1), (1, 0, 1), (0, 0, 1)], [2, 0, 1])
    second = make_tasks(1, [(1, 0, 1), (0, 0, 1)], earlier=first)
    assert [task.repeat for task in first] == [0, 1, 2] and [task.repeat for task in second] == [0, 3]
    assert len({task.task_id for task in first + second}) == 5


def test_half_the_tasks_are_swapped_and_always_the_same():
    pairs = [(p, 0, 1) for p in range(1000)]
    swapped = np.array([task.swapped for task in make_tasks(0, pairs, swap_seed=1)])
    assert abs(swapped.mean() - 0.5) < 0.07
    later = np.array([task.swapped for task in make_tasks(5, pairs[::-1], swap_seed=1)])[::-1]
    assert (swapped == later).all()
    other = np.array([task.swapped for task in make_tasks(0, pairs, swap_seed=2)])
    assert abs((swapped == other).mean() - 0.5) < 0.07


def test_a_changed_pool_is_noticed():
    ids = ["x", "y", "z"]
    tasks = make_tasks(0, [(0, 0, 1), (2, 0, 1)], ids=ids)
    check_tasks(tasks, ids)
    with pytest.raises(ValueError, match="the pool has changed"):
        check_tasks(tasks, ["x", "z", "y"])
    with pytest.raises(ValueError, match="there are 2 prompts now"):
        check_tasks(tasks, ["x", "y"])
    check_tasks(TASKS)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: make_tasks(0, [(0, 1, 0)]), r"pairs: \[0, 1, 0\]"),
        (lambda: make_tasks(0, [(0, 0, 1)], [1.5]), "1.5 found; whole numbers"),
        (lambda: make_tasks(0, [(0, 0, 1)], [1, 2]), "one each"),
        (lambda: answered(TASKS[0], 4), r"choice=4: allowed are 0 \(first\)"),
        (
            lambda: make_tasks(0, [(0, 0, 1)], annotators=[-1]),
            "annotators -1 found; expected a number from 0 to 999999",
        ),
        (lambda: make_tasks(0, [(0, 0, 1)], annotators=[np.nan]), "annotators nan found"),
        (lambda: make_tasks(0, [(0, 0, 1)], annotators=[0.5]), "annotators 0.5 found"),
        (lambda: make_tasks(0, [(0, 0, 1)], annotators=np.array([10**6])), "annotators 1000000 found"),
        (lambda: make_tasks(-1, [(0, 0, 1)]), "round=-1"),
        (lambda: make_tasks(0, np.array([[2**32 + 5, 0, 1]])), "pairs: 4294967301 found; indices are from 0 to 214748"),
        (lambda: make_tasks(0, np.array([[0, 0, 2**63]], np.uint64)), "pairs: 9223372036854775808 found"),
        (lambda: make_tasks(0, np.array([[-(2**32), 0, 1]])), "pairs: -4294967296 found"),
        (lambda: answered(TASKS[0], 0, 5_000_000_000), "annotator 5000000000 found"),
        (lambda: answered(TASKS[0], 0, -1), "annotator -1 found"),
        (lambda: answered(TASKS[0], 0, float("nan")), "annotator nan found"),
        (lambda: answered(TASKS[0], 0, 0, float("nan")), "seconds: nan found; expected a finite number, or None"),
        (lambda: answered(TASKS[0], 0, 0, 1.0, -np.inf), "confidence: -inf found"),
    ],
)
def test_what_is_no_task_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: make_tasks(0.5, [(0, 0, 1)]), "round=0.5"),
        (lambda: make_tasks(0, [(0, 0, 1)], annotators=["ann"]), "annotators 'ann' found"),
        (lambda: make_tasks(0, [(0, 0, 1)], annotators=[True]), "annotators True found"),
        (lambda: answered(TASKS[0], 0.9), "choice=0.9"),
        (lambda: answered(TASKS[0], True), "choice=True"),
        (lambda: answered(TASKS[0], "first"), "choice='first'"),
        (lambda: answered(TASKS[0], 0, "ann"), "annotator 'ann' found"),
        (lambda: answered(TASKS[0], 0, 0, "long"), "seconds: 'long' found"),
    ],
)
def test_what_is_of_the_wrong_kind_is_refused(call, words):
    with pytest.raises(TypeError, match=words):
        call()


def test_numbers_of_annotators_as_a_data_frame_gives_them():
    pairs = [(0, 0, 1), (1, 0, 1), (2, 0, 1)]
    for given in ([1, None, 0], [1.0, None, 0.0], np.array([1, None, 0], object)):
        found = [task.annotator for task in make_tasks(0, pairs, annotators=given)]
        assert found == [1, None, 0] and not any(isinstance(number, float) for number in found)
    assert answered(TASKS[0], np.int8(1), np.float64(3.0)) == answered(TASKS[0], 1, 3)


def test_prompts_of_the_same_name_are_refused():
    with pytest.raises(ValueError, match="ids: 'a' found 2 times"):
        make_tasks(0, [(0, 0, 1)], ids=("a", "a", "b"))
