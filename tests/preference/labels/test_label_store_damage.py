"""Files of labels that were cut short, went away or met a full disk: told, never made worse, and nothing is lost."""

import os
import threading
import time

import pytest

from jaxdesign.preference.labels.labels import FIRST, SECOND
from jaxdesign.preference.labels.store import LabelStore
from jaxdesign.preference.labels.tasks import answered, make_tasks

TASKS = make_tasks(0, [(p, 0, 1) for p in range(8)])


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
