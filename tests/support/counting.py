"""What JAX traces and compiles, counted."""

import collections
import contextlib

import jax

KINDS = {"/jax/core/compile/jaxpr_trace_duration": "traced", "/jax/core/compile/backend_compile_duration": "compiled"}


@contextlib.contextmanager
def counting():
    """Counter of what JAX traces and compiles inside of the block."""
    counts = collections.Counter()

    def listen(event, duration, **_):
        counts.update([KINDS[event]] if event in KINDS else [])

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield counts
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
