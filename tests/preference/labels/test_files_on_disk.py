"""Files of tasks and of labels on disk: nothing is overwritten without a word, half written or of an unknown kind."""

import errno
import os
import stat

import pytest

from jaxdesign.preference.labels.labels import FIRST, SECOND, SKIP, TIE, as_labels
from jaxdesign.preference.labels.preference_files import write_preferences
from jaxdesign.preference.labels.task_files import read_answers, write_tasks
from tests.support.label_files import COMPLETIONS, PROMPTS, TASKS, read_back


def test_only_known_suffixes_and_texts(tmp_path):
    for call in (
        lambda: write_tasks(tmp_path / "x.xlsx", TASKS, PROMPTS, COMPLETIONS),
        lambda: write_preferences(tmp_path / "x.xlsx", as_labels([(0, 0, 1)], [0]), PROMPTS, COMPLETIONS),
        lambda: read_answers(tmp_path / "x.txt", TASKS),
    ):
        with pytest.raises(ValueError, match=r"use .jsonl or .csv"):
            call()
    with pytest.raises(ValueError, match="there is no text for prompt 29"):
        write_tasks(tmp_path / "x.csv", TASKS, PROMPTS[:29], COMPLETIONS)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_tasks_is_never_overwritten_without_a_word(tmp_path):
    path = tmp_path / "tasks.csv"
    write_tasks(path, TASKS, PROMPTS, COMPLETIONS)
    whole = path.read_bytes()
    assert write_tasks(path, TASKS, PROMPTS, COMPLETIONS) == 30  # the same again, as after a kill
    path.write_bytes(whole.replace(b"prompt 3", b"prompt 3, answered: b"))
    with pytest.raises(FileExistsError, match=r"tasks.csv: exists already.*overwrite=True"):
        write_tasks(path, TASKS, PROMPTS, COMPLETIONS)
    assert b"answered: b" in path.read_bytes()
    write_tasks(path, TASKS, PROMPTS, COMPLETIONS, overwrite=True)
    assert path.read_bytes() == whole
    with pytest.raises(FileNotFoundError, match=r"nowhere: the folder of tasks.csv does not exist; create it first"):
        write_tasks(tmp_path / "nowhere" / "tasks.csv", TASKS, PROMPTS, COMPLETIONS)


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "tasks.csv"
    write_tasks(path, TASKS[:3], PROMPTS, COMPLETIONS)
    whole = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*tasks.csv'$"):
        write_tasks(path, TASKS, PROMPTS, COMPLETIONS, overwrite=True)
    assert path.read_bytes() == whole and len(list(tmp_path.iterdir())) == 1


def test_tasks_are_on_disk_before_they_have_their_name(tmp_path, monkeypatch):
    forced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda d: (forced.append((os.fstat(d).st_size, os.listdir(tmp_path))), fsync(d)))
    write_tasks(tmp_path / "tasks.csv", TASKS, PROMPTS, COMPLETIONS)
    (size, names), *_ = forced
    assert size == (tmp_path / "tasks.csv").stat().st_size and "tasks.csv" not in names


def test_a_file_system_that_cannot_force_a_folder_is_no_obstacle_and_a_failing_one_is(tmp_path, monkeypatch):
    fsync, reason = os.fsync, []

    def no_folders(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(reason[-1], "not for folders")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", no_folders)
    reason.append(errno.EINVAL)
    assert write_tasks(tmp_path / "tasks.csv", TASKS, PROMPTS, COMPLETIONS) == 30
    reason.append(errno.EIO)
    with pytest.raises(OSError, match="not for folders"):
        write_tasks(tmp_path / "again.csv", TASKS, PROMPTS, COMPLETIONS)


# ---- labels out as texts


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_labels_go_out_as_chosen_and_rejected_texts(tmp_path, suffix):
    labels = as_labels([(2, 0, 1), (0, 1, 2), (1, 0, 2), (2, 0, 1), (1, 0, 1)], [FIRST, SECOND, TIE, SECOND, SKIP])
    path = tmp_path / f"train{suffix}"
    for _ in range(2):
        assert write_preferences(path, labels, PROMPTS, COMPLETIONS) == 3
    kept = [(2, 0, 1), (0, 2, 1), (2, 1, 0)]  # (prompt, chosen, rejected)
    expected = [(PROMPTS[p], COMPLETIONS[p][i], COMPLETIONS[p][j]) for p, i, j in kept]
    assert [(row["prompt"], row["chosen"], row["rejected"]) for row in read_back(path)] == expected
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write_preferences(path, as_labels([(2, 0, 1)], [FIRST]), PROMPTS, COMPLETIONS)
    for pair, words in (((30, 0, 1), "no text for prompt 30"), ((0, 1, 3), "completions 1 and 3")):
        with pytest.raises(ValueError, match=words):
            write_preferences(tmp_path / "x.csv", as_labels([pair], [SKIP]), PROMPTS, COMPLETIONS)
