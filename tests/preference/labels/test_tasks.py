"""Tasks: ids that are stable and no numbers, the order of showing, and what is refused."""

import hashlib

import numpy as np
import pytest

from jaxdesign.preference.labels.tasks import answered, check_tasks, make_tasks, task_id

TASKS = make_tasks(0, [(p, 0, 1) for p in range(8)])


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
