"""What a block of code asks of the devices: programs run, and bytes that go to them and come to the host.

Programs are counted in a trace of JAX's own profiler, which has one `PjitFunction` for every call of a compiled
function or eager operation that was not made inside of another: the compiled fast path too, which Python never sees,
and with nothing patched. Bytes are those of every array of a device that NumPy is given: on a CPU NumPy reads it where
it lies, and no guard nor trace has anything to tell of that.

Bytes to devices are those that JAX's own guard of transfers logs, by shape and dtype: NumPy arrays and numbers that are
arguments of programs, or made arrays of a device, on a CPU too, where they may not have to be moved. An array for
several devices counts whole for each of them, divided or not. Of arguments that the compiled fast path sends the guard
knows no shape, so that programs must be called by Python (`by_python`). What programs hold as constants, and what
devices send each other, is not seen.
"""

import contextlib
import math
import os
import re
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import pjit

CALL = "PjitFunction("
SENT = "host-to-device transfer: "
SHAPE = re.compile(SENT + r"aval=ShapedArray\((\w+)\[([^\]]*)\]")


@contextlib.contextmanager
def by_python():
    """Programs are called by Python, and not by the compiled fast path, which tells nobody what it sends."""
    jax.clear_caches()  # of what was called before, the fast path is known
    with mock.patch.object(pjit, "_get_fastpath_data", lambda *args, **kwargs: None):
        yield


@dataclass
class Traffic:
    """Programs by the name of their function, bytes that came to the host, and arrays that went to devices by shape."""

    programs: Counter = field(default_factory=Counter)
    bytes_down: int = 0
    sent: Counter = field(default_factory=Counter)  # of (dtype, shape)

    @property
    def bytes_up(self):
        """All that went to devices."""
        return sum(count * jnp.dtype(dtype).itemsize * math.prod(shape) for (dtype, shape), count in self.sent.items())


@contextlib.contextmanager
def traffic():
    """A `Traffic`, complete when the block is left; call it inside of `by_python`."""
    found, asarray = Traffic(), np.asarray

    def counted(array, *args, **kwargs):
        if isinstance(array, jax.Array) and not isinstance(array, jax.core.Tracer):
            found.bytes_down += array.nbytes
        return asarray(array, *args, **kwargs)

    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        np.asarray = counted
        try:
            with jax.profiler.trace(folder, profiler_options=options), logged_transfers() as lines:
                yield found
        finally:
            np.asarray = asarray
        found.sent += Counter(map(array_in, lines))
        (file,) = Path(folder).rglob("*.xplane.pb")
        found.programs += Counter(calls(jax.profiler.ProfileData.from_file(str(file))))


def calls(trace):
    """Names of the functions of all outermost calls."""
    for line in (line for plane in trace.planes for line in plane.lines):
        events = sorted((e.start_ns, -e.duration_ns, e.name) for e in line.events if e.name.startswith(CALL))
        last = -1.0
        for start, duration, name in events:
            if start >= last:
                last = start - duration
                yield name[len(CALL) : -1]


@contextlib.contextmanager
def logged_transfers():
    """The lines of the guard, which writes to the standard error of the process; complete when the block is left."""
    lines, before = [], os.dup(2)
    with tempfile.TemporaryFile("w+") as file:
        sys.stderr.flush()
        os.dup2(file.fileno(), 2)
        try:
            with jax.transfer_guard_host_to_device("log_explicit"):
                yield lines
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            text = file.read().splitlines()
            lines += [line for line in text if SENT in line]
            sys.stderr.writelines(f"{line}\n" for line in text if SENT not in line)


def array_in(line):
    """(dtype, shape) of what a line of the guard is about."""
    told = SHAPE.search(line)
    if told is None:
        raise RuntimeError(f"{line}: a transfer of unknown size; call what is counted inside of by_python()")
    dtype, shape = told.groups()
    return dtype, tuple(int(axis.split("@")[0]) for axis in filter(None, shape.split(",")))  # 8@data: divided
