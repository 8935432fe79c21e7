"""Tasks out and labels back: the order of showing is undone, and every bad line is named."""

import csv
import errno
import json
import os
import stat

import numpy as np
import pytest

from jaxdesign.preference.labels.labels import FIRST, SECOND, SKIP, TIE, as_labels
from jaxdesign.preference.labels.preference_files import write_preferences
from jaxdesign.preference.labels.row_files import read_rows
from jaxdesign.preference.labels.store import LabelStore
from jaxdesign.preference.labels.task_files import read_answers, write_tasks
from jaxdesign.preference.labels.tasks import make_tasks

PROMPTS = [f'prompt {p}, "with" a comma' for p in range(30)]
COMPLETIONS = [[f"completion {k}\nof {p}" for k in range(3)] for p in range(30)]
TASKS = make_tasks(0, [(p, p % 2, 2) for p in range(30)], swap_seed=7)


def read_back(path):
    if path.suffix == ".csv":
        with open(path, newline="") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path, rows):
    if path.suffix == ".csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, sorted({key for row in rows for key in row}))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_an_annotator_who_prefers_the_later_completion_is_understood(tmp_path, suffix):
    """The whole way: out in a shuffled order, judged by the text shown alone, back, stored."""
    out = tmp_path / f"tasks{suffix}"
    assert write_tasks(out, TASKS, PROMPTS, COMPLETIONS) == 30
    assert {task.swapped for task in TASKS} == {True, False}
    rows = []
    for n, row in enumerate(read_back(out)):
        assert row["prompt"] == PROMPTS[n]
        later = "b" if row["response_b"] > row["response_a"] else "a"
        rows.append({"task_id": row["task_id"], "choice": later, "annotator": n % 3, "seconds": 2.5})
    rows[4]["choice"], rows[5]["choice"] = "tie", " Skip"
    records = read_answers(write(tmp_path / f"back{suffix}", rows), TASKS)
    expected = [SECOND] * 30
    expected[4:6] = [TIE, SKIP]
    assert [record.choice for record in records] == expected
    assert [record.annotator for record in records] == [n % 3 for n in range(30)]
    assert records[0].seconds == 2.5 and records[0].confidence is None
    store = LabelStore(tmp_path / "store")
    store.append(records)
    assert store.labels().choices.tolist() == expected and store.outstanding(TASKS) == []
    assert store.not_held(read_answers(tmp_path / f"back{suffix}", TASKS)) == []


def test_the_first_is_a_unless_it_was_swapped(tmp_path):
    rows = [{"task_id": task.task_id, "choice": "a"} for task in TASKS]
    records = read_answers(write(tmp_path / "back.jsonl", rows), TASKS)
    assert [record.choice for record in records] == [SECOND if task.swapped else FIRST for task in TASKS]
    assert [record.pair for record in records] == [task.pair for task in TASKS]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_names_of_annotators_become_numbers(tmp_path, suffix):
    tasks = make_tasks(0, [(0, 0, 1), (1, 0, 1)], annotators=[1, None])
    out = tmp_path / f"tasks{suffix}"
    write_tasks(out, tasks, PROMPTS, COMPLETIONS, annotators=["ann", "bob"])
    assert [row["annotator"] or None for row in read_back(out)] == ["bob", None]
    rows = [
        {"task_id": task.task_id, "choice": "a", "annotator": who}
        for task, who in zip(tasks, ("bob", "ann"), strict=True)
    ]
    path = write(tmp_path / f"back{suffix}", rows)
    assert [r.annotator for r in read_answers(path, tasks, annotators=["ann", "bob"])] == [1, 0]
    with pytest.raises(ValueError, match="'ann' found; known are carl, bob"):
        read_answers(path, tasks, annotators=["carl", "bob"])
    with pytest.raises(
        ValueError, match=r"line 2: annotator 'bob' found; .*names" if suffix == ".csv" else "line 1: annotator 'bob'"
    ):
        read_answers(path, tasks)
    with pytest.raises(ValueError, match="the task is for number 1"):
        read_answers(path, tasks, annotators=["bob", "ann"])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"choice": "a"}', r"back.jsonl, line 2: has no task_id; found are \['choice'\]"),
        ('{"task_id": "GOOD"}', "line 2: has no choice"),
        ('{"task_id": "nobody", "choice": "a"}', "task_id 'nobody' is none of the 30 tasks"),
        ('{"task_id": "GOOD", "choice": "left"}', "choice 'left' found; allowed are a, b, tie, skip"),
        ('{"task_id": "GOOD", "choice": "a", "seconds": "long"}', "seconds 'long' found; expected a number"),
        ('{"task_id": "GOOD", "choice": "a", "seconds": NaN}', "seconds nan found; expected a number"),
        ('{"task_id": "GOOD", "choice": "a", "seconds": true}', "seconds True found"),
        ('{"task_id": "GOOD", "choice": "a", "confidence": 1' + "0" * 400 + "}", "confidence 10+ found"),
        ('{"task_id": "GOOD", "choice": "a", "annotator": -1}', "annotator -1 found; expected a number from 0"),
        ('{"task_id": "GOOD", "choice": "a", "annotator": 0.5}', "annotator 0.5"),
        ('{"task_id": "GOOD", "choice": "a", "annotator": NaN}', "annotator nan"),
        (
            '{"task_id": "GOOD", "choice": "a", "annotator": 9007199254740993}',
            "annotator 9007199254740993 found; .*999999",
        ),
        ('{"task_id": "GOOD", "choice": "a", "annotator": "9007199254740993"}', "annotator 9007199254740993 found"),
        ('{"task_id": "GOOD", "choice": "a", "annotator": {"id": 1}}', r"line 2: annotator \{'id': 1\} found"),
        ('{"task_id": {"id": 1}, "choice": "a"}', r"line 2: task_id \{'id': 1\} is no text"),
        ('{"task_id": "GOOD", "choice": {"a": 1}}', r"choice \{'a': 1\} found"),
        ('{"task_id": "GOOD", "choice": "a", "choice": "b"}', r"line 2: is no JSON \(names: 'choice' found 2 times"),
        ('{"task_id": "GOOD", "choice": "b"}', "line 2: task GOOD was answered by annotator 0 on line 1 already"),
        ('["GOOD", "a"]', "line 2: list found"),
        ("{", "line 2: is no JSON"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, words):
    path = tmp_path / "back.jsonl"
    good = '{"task_id": "GOOD", "choice": "a"}'
    path.write_text(f"{good}\n{line}\n".replace("GOOD", TASKS[0].task_id))
    with pytest.raises(ValueError, match=words.replace("GOOD", TASKS[0].task_id)):
        read_answers(path, TASKS)


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


@pytest.mark.parametrize(
    ("pairs", "options", "words"),
    [
        ([[0, 1], [2, 3], [4, 5]], {}, "pairs: shape"),
        ([[0, 1.7, 2.2]], {}, "pairs: shape"),
        ([[0, 0, 1]], {"labels": [np.inf]}, "labels: inf"),
        ([[5, 0, 1]], {"ids": ["a"]}, "pairs: prompt 5"),
    ],
)
def test_tasks_are_of_rows_of_three_integers(pairs, options, words):
    with pytest.raises(ValueError, match=words):
        make_tasks(0, pairs, **options)


# ---- faults of whole files, and of many rows


def test_all_faults_are_told_at_once_and_the_good_rows_kept_where_that_is_asked_for(tmp_path):
    rows = [{"task_id": task.task_id, "choice": "a"} for task in TASKS]
    for bad in (3, 8, 20):
        rows[bad]["choice"] = "neither"
    path = write(tmp_path / "back.csv", rows)
    with pytest.raises(ValueError, match="choice 'neither'") as told:
        read_answers(path, TASKS)
    *lines, last = str(told.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [f"back.csv, line {line}" for line in (5, 10, 22)]
    assert last == "(3 such row(s); to have the other 27, pass on_fault, which is called with each)"
    faults = []
    records = read_answers(path, TASKS, on_fault=faults.append)
    kept = [task.task_id for n, task in enumerate(TASKS) if n not in (3, 8, 20)]
    assert [record.task_id for record in records] == kept and faults == lines
    assert LabelStore(tmp_path / "store").append(records) == 27


def test_a_hundred_faults_are_counted_and_not_all_listed(tmp_path):
    path = write(tmp_path / "back.jsonl", [{"task_id": f"n{n}", "choice": "a"} for n in range(120)])
    with pytest.raises(ValueError, match="and 70 more") as told:
        read_answers(path, TASKS)
    assert len(str(told.value).splitlines()) == 52


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"task_id,choice,note\nID,a,caf\xe9\n", r"back.csv, line 2: byte 0xe9 is no UTF-8 .*cp1252.*save it as UTF-8"),
        ("task_id,choice\nID,a\n".encode("utf-16"), "back.csv: is UTF-16 text; save it as UTF-8"),
        ("task_id,choice\nID,a\n".encode("utf-16-le"), "is UTF-16 text"),
        ("task_id,choice\nID,a\n".encode("utf-16-be"), "is UTF-16 text"),
        (b"task_id;choice\nID;a\n", "columns are separated by ';'; save it with commas"),
        (b"task_id\tchoice\nID\ta\n", r"columns are separated by '\\t'"),
        (b"sep=;\ntask_id;choice\nID;a\n", "columns are separated by ';'"),
        (b"id,choice\nID,a\n", r"back.csv: has no task_id; found are \['id', 'choice'\]"),
        (b"prompt,answer\nID,a\n", "has no task_id and no choice"),
        (b"task_id,choice,choice\nID,a,b\n", "columns: 'choice' found 2 times"),
        (b'task_id,"choice\nID,a\n', "line 1: has a quotation mark that is not closed"),
    ],
)
def test_what_spoils_a_whole_file_is_said_with_advice(tmp_path, content, words):
    path = tmp_path / "back.csv"
    path.write_bytes(content.replace(b"ID", TASKS[0].task_id.encode()))
    for options in ({}, {"on_fault": print}):
        with pytest.raises(ValueError, match=words):
            read_answers(path, TASKS, **options)


@pytest.mark.parametrize(
    ("rows", "words", "good"),
    [
        ("0,one, two,a\n1,ok,b\n", r"line 2: has 4 cells for 3 columns; put texts that hold commas in quotation", 1),
        ('0,ok,a\n1,"never closed,b\n2,ok,a\n', r"line 3: has a quotation mark that is not closed.*lines 3 to 4", 1),
        ('0,ok,a\n1,"not "doubled",b\n2,ok,a\n', "line 3: has a quotation mark", 2),
        ('0,"two\nlines",a\n1,ok,left\n', "line 4: choice 'left'", 1),
        (",,\n0,ok,a\n \n1,ok\n\n", r"line 5: has no choice; found are \['note', 'task_id'\]", 1),
    ],
)
def test_rows_of_a_spreadsheet_are_what_they_seem(tmp_path, rows, words, good):
    """Nothing is swallowed, and no cell is taken for another's."""
    path = tmp_path / "back.csv"
    for n in range(3):
        rows = rows.replace(f"{n},", f"{TASKS[n].task_id},", 1)
    path.write_text("task_id,note,choice\n" + rows)
    faults = []
    assert len(read_answers(path, TASKS, on_fault=faults.append)) == good
    assert len(faults) == 1
    with pytest.raises(ValueError, match=words):
        read_answers(path, TASKS)


# ---- writing


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_texts_of_any_length_and_any_characters_go_out_and_come_back(tmp_path, suffix):
    texts = [["x" * 140_000, "y"], ["a \ud83d", "b\0\r\n\"';,\u2028\x1c"]]
    tasks, path, before = make_tasks(0, [(0, 0, 1), (1, 0, 1)]), tmp_path / f"x{suffix}", csv.field_size_limit(131_000)
    write_tasks(path, tasks, ["p", "q"], texts)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    rows = [row for _, row in read_rows(path, ["task_id"])]
    assert rows[0]["response_a"] == texts[0][0] and rows[1]["response_b"] == texts[1][1]
    assert rows[1]["response_a"] == ("a \ud83d" if suffix == ".jsonl" else r"a \ud83d")
    write(path, [row | {"choice": "b"} for row in rows])
    assert [record.choice for record in read_answers(path, tasks)] == [SECOND, SECOND]
    assert csv.field_size_limit(before) == 131_000  # the process's own is as it was


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


# ---- who answered, in which words


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_numbers_of_annotators_are_read_exactly(tmp_path, suffix):
    given = [0, 7, 999_999, *([" 3 ", "4.0"] if suffix == ".csv" else ["3", 4.0])]
    rows = [{"task_id": TASKS[n].task_id, "choice": "a", "annotator": who} for n, who in enumerate(given)]
    records = read_answers(write(tmp_path / f"back{suffix}", rows), TASKS)
    assert [record.annotator for record in records] == [0, 7, 999_999, 3, 4]
    for bad in ("9007199254740993", "1000000", "-1", "1e3", "0.5", "nan", "9" * 5000, "\u0663"):
        rows[1]["annotator"] = bad
        with pytest.raises(ValueError, match=r"line [23]: annotator"):
            read_answers(write(tmp_path / f"back{suffix}", rows), TASKS)


@pytest.mark.parametrize(
    ("who", "words"),
    [
        (101, r"back.jsonl, line 1: annotator 101 is a number and names are texts"),
        ({"id": 1}, r"line 1: annotator \{'id': 1\} is a dict and names are texts"),
        (["101"], r"line 1: annotator \['101'\] is a list"),
        (True, "line 1: annotator True is a bool"),
        ("102", r"line 1: annotator '102' found; known are 101, 205$"),
    ],
)
def test_names_of_annotators_are_texts(tmp_path, who, words):
    path = write(tmp_path / "back.jsonl", [{"task_id": TASKS[0].task_id, "choice": "a", "annotator": who}])
    with pytest.raises(ValueError, match=words):
        read_answers(path, TASKS, annotators=["101", "205"])


def test_names_of_annotators_differ_and_every_task_has_one(tmp_path):
    path = write(tmp_path / "back.jsonl", [{"task_id": TASKS[0].task_id, "choice": "a", "annotator": "r1"}])
    out = tmp_path / "tasks.csv"
    for call in (
        lambda names: read_answers(path, TASKS, annotators=names),
        lambda names: write_tasks(out, TASKS, PROMPTS, COMPLETIONS, annotators=names),
    ):
        with pytest.raises(ValueError, match="annotators: 'r1' found 2 times; names must differ"):
            call(["r1", "r2", "r1"])
        for wrong in ([101, 205], "r1"):
            with pytest.raises(TypeError, match=r"annotators: .* a list of names, which are texts"):
                call(wrong)
    for number in (2, -1):
        with pytest.raises(ValueError, match=f"is for annotator {number}; there are 2 names"):
            write_tasks(out, [TASKS[0]._replace(annotator=number)], PROMPTS, COMPLETIONS, annotators=["one", "two"])
    assert not out.exists()


def test_words_of_other_tools_stand_for_choices(tmp_path):
    given = ["Left", "right ", "equal", "skip", "a", 1, 2.0, "2"]
    rows = [{"task_id": task.task_id, "choice": word} for task, word in zip(TASKS, given, strict=False)]
    words = {"left": "a", "RIGHT": "b", "equal": "tie", 1: "a", "2": "b"}
    meant = [0, 1, TIE, SKIP, 0, 0, 1, 1]
    expected = [code ^ task.swapped if code < TIE else code for code, task in zip(meant, TASKS, strict=False)]
    for suffix in (".jsonl", ".csv"):
        records = read_answers(write(tmp_path / f"back{suffix}", rows), TASKS, words=words)
        assert [record.choice for record in records] == expected
    with pytest.raises(ValueError, match="choice 'Left' found; allowed are a, b, tie, skip"):
        read_answers(tmp_path / "back.csv", TASKS)
    for wrong, message in (
        ({"left": "first"}, "'left' stands for 'first'; allowed"),
        ({"A": "b"}, "'A' stands for two"),
    ):
        with pytest.raises(ValueError, match=message):
            read_answers(tmp_path / "back.csv", TASKS, words=wrong)


def test_answers_to_tasks_that_went_out_before_ids_had_a_letter_are_read(tmp_path):
    path = write(tmp_path / "back.csv", [{"task_id": TASKS[n].task_id[1:], "choice": "a"} for n in range(4)])
    earlier = [task._replace(task_id=task.task_id[1:]) for task in TASKS]
    for tasks in (TASKS, earlier):
        records = read_answers(path, tasks)
        assert [record.choice for record in records] == [int(task.swapped) for task in TASKS[:4]]
        assert [record.task_id for record in records] == [task.task_id for task in tasks[:4]]


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
