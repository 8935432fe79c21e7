"""A program that optimises a streamed pool with a checkpoint until it is killed; run by tests, once for many kills.

Loads once, then forks a run for each line of stdin, "folder moments": the run keeps its checkpoint in the folder and
kills itself when it has seen so many moments, so that where it dies depends on no clock: each chunk that is read, each
step of the solver and each call that changes the disk is one. A run that ends prints how many it has seen, and its
design.
"""

import hashlib
import os
import signal
import sys
from pathlib import Path

import numpy as np

import jaxdesign as jd
from jaxdesign.pricing import streamed_source
from jaxdesign.solvers import ColumnGeneration
from tests.support.stored import ragged

GIVEN = ragged(np.float16, 150)


seen = [0]


def live_for(moments):
    def counted(function):
        def call(*arguments, **named):
            if seen[0] == moments:
                os.kill(os.getpid(), signal.SIGKILL)
            seen[0] += 1
            return function(*arguments, **named)

        return call

    for name in ("fsync", "replace", "open"):
        setattr(os, name, counted(getattr(os, name)))
    ColumnGeneration.step = counted(ColumnGeneration.step)
    return counted(lambda start, stop: GIVEN["features"][start:stop])


def design(folder, moments):
    chunk = live_for(moments)
    mask = GIVEN["mask"]
    source = streamed_source(chunk, mask=mask, prompts=len(mask), chunk=40)
    budget = jd.Budget(60, per_pair=1)
    return jd.optimize(source, jd.LogDet(), budget, prior=0.1, tol=1e-9, checkpoint=Path(folder) / "run.npz")


def told(found):
    digest = hashlib.sha256(found.pairs.tobytes() + found.labels.tobytes()).hexdigest()
    return f"{seen[0]} {digest} {found.certificate} {found.passes} {found.status.name} {len(found.trace)}\n".encode()


def main():
    for line in sys.stdin:
        folder, moments = line.split()
        child = os.fork()
        if child == 0:
            os.write(1, told(design(folder, int(moments))))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        os.write(1, b"killed\n" if os.WIFSIGNALED(status) else b"finished\n")


if __name__ == "__main__":
    main()
