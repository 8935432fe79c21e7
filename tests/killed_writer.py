"""A process that stores labels until it is killed; run by test_label_store.py, once for many kills.

Loads once, then forks one writer for each number read from stdin (seconds to let it live). A writer stores what is
outstanding, in pieces of a few bytes as a slow disk might, and tells of every label only when `append` has returned.
"""

import os
import signal
import sys
import time

from jaxdesign.preference.label_store import LabelStore
from jaxdesign.preference.label_tasks import answered, make_tasks

write = os.write


def slowly(descriptor, data):
    if descriptor == 1:
        return write(descriptor, data)
    time.sleep(2e-4)
    return write(descriptor, data[:9])


def work(folder):
    os.write = slowly
    store = LabelStore(folder)
    if not store.rounds():
        store.write_batch(0, make_tasks(0, [(p, 0, 1) for p in range(1000)]))
    for task in store.outstanding(store.batch(0)):
        store.append(answered(task, sum(map(ord, task.task_id)) % 4, task.pair[0] % 3))
        write(1, f"{task.task_id}\n".encode())


def main(folder):
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            work(folder)
            os._exit(0)
        time.sleep(float(line))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        write(1, b"killed\n" if os.WIFSIGNALED(status) else b"finished\n")


if __name__ == "__main__":
    main(sys.argv[1])
