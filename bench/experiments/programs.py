"""Compiled programs of long experiments."""

from pathlib import Path

import jax

MANY = 25_000  # memory maps; Linux kills a process that has more than 65,530, and every program holds some


def let_go_of_many() -> None:
    """Forget compiled programs before there are too many; those in a compilation cache on disk are read again."""
    maps = Path("/proc/self/maps")
    if maps.is_file() and maps.read_text().count("\n") > MANY:
        jax.clear_caches()
