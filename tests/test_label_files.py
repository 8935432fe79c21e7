"""Tasks out and labels back: the order of showing is undone, and every bad line is named."""

import csv
import json

import numpy as np
import pytest

from jaxdesign.preference.label_files import read_answers, write_tasks
from jaxdesign.preference.label_store import LabelStore
from jaxdesign.preference.label_tasks import make_tasks
from jaxdesign.preference.labels import FIRST, SECOND, SKIP, TIE

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
        ('{"task_id": "GOOD", "choice": "a", "annotator": -1}', "annotator -1 found; expected a number from 0"),
        ('{"task_id": "GOOD", "choice": "a", "annotator": 0.5}', "annotator 0.5"),
        ('["GOOD", "a"]', "line 2: list found"),
        ("{", "line 2: is no JSON"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, words):
    path = tmp_path / "back.jsonl"
    good = '{"task_id": "GOOD", "choice": "a"}'
    path.write_text(f"{good}\n{line}\n".replace("GOOD", TASKS[0].task_id))
    with pytest.raises(ValueError, match=words):
        read_answers(path, TASKS)


def test_only_known_suffixes_and_texts(tmp_path):
    for call in (
        lambda: write_tasks(tmp_path / "x.xlsx", TASKS, PROMPTS, COMPLETIONS),
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
