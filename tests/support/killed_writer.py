"""A process that stores labels until it is killed; run by tests of the label store, once for many kills.

Loads once, then forks one writer for each number read from stdin: how many calls that change the disk it may make. The
next one kills it, so that where it dies depends on no clock. A writer stores what is outstanding, in pieces of a few
bytes as a slow disk might, and tells of every label only when `append` has returned.
"""

import os
import signal
import sys

from jaxdesign.preference.labels.store import LabelStore
from jaxdesign.preference.labels.tasks import answered, make_tasks

write = os.write


def live_for(calls):
    left = [calls]

    def counted(function):
        def call(*arguments):
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return function(*arguments)

        return call

    for name in ("fsync", "ftruncate", "replace"):
        setattr(os, name, counted(getattr(os, name)))
    os.write = counted(lambda descriptor, data: write(descriptor, data[:9]))


def work(folder, calls):
    live_for(calls)
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
            work(folder, int(line))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        write(1, b"killed\n" if os.WIFSIGNALED(status) else b"finished\n")


if __name__ == "__main__":
    main(sys.argv[1])
