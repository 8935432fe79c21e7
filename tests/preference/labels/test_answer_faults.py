"""Faults of files of answers: every bad line is named, all of them at once, and what spoils a whole file is said."""

import pytest

from jaxdesign.preference.labels.store import LabelStore
from jaxdesign.preference.labels.task_files import read_answers
from tests.support.label_files import TASKS, write


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
