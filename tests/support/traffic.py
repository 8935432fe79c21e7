"""What a block of code asks of the devices: programs run, and bytes that come to the host.

Programs are counted in a trace of JAX's own profiler, which has one `PjitFunction` for every call of a compiled
function or eager operation that was not made inside of another: the compiled fast path too, which Python never sees,
and with nothing patched. Bytes are those of every array of a device that NumPy is given: on a CPU NumPy reads it where
it lies, and no guard nor trace has anything to tell of that.
"""

import contextlib
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np

CALL = "PjitFunction("


@dataclass
class Traffic:
    """Programs by the name of their function, and bytes that came to the host."""

    programs: Counter = field(default_factory=Counter)
    bytes_down: int = 0


@contextlib.contextmanager
def traffic():
    """A `Traffic`, complete when the block is left."""
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
            with jax.profiler.trace(folder, profiler_options=options):
                yield found
        finally:
            np.asarray = asarray
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
