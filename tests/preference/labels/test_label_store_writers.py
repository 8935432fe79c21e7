"""Writers that are killed, and many at once: every label that was acknowledged is stored, and once."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from jaxdesign.preference.labels.labels import FIRST
from jaxdesign.preference.labels.store import LabelStore
from jaxdesign.preference.labels.tasks import answered, make_tasks
from tests.support import CHECKOUT

TASKS = make_tasks(0, [(p, 0, 1) for p in range(8)])


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
