"""Tasks out and answers back: the order of showing is undone; texts, words, numbers and names mean what they did."""

import csv

import pytest

from jaxdesign.preference.labels.labels import FIRST, SECOND, SKIP, TIE
from jaxdesign.preference.labels.row_files import read_rows
from jaxdesign.preference.labels.store import LabelStore
from jaxdesign.preference.labels.task_files import read_answers, write_tasks
from jaxdesign.preference.labels.tasks import make_tasks
from tests.support.label_files import COMPLETIONS, PROMPTS, TASKS, read_back, write

# ---- out and back


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


# ---- who answered


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
