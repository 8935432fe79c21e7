"""Compiled programs of long experiments."""

from pathlib import Path

import jax

LIMIT = Path("/proc/sys/vm/max_map_count")  # memory maps after which Linux kills a process; every program holds some
SHARE = 0.4


def let_go_of_many() -> None:
    """Forget compiled programs before there are too many; those in a compilation cache on disk are read again."""
    maps = Path("/proc/self/maps")
    if maps.is_file() and LIMIT.is_file() and maps.read_text().count("\n") > SHARE * int(LIMIT.read_text()):
        jax.clear_caches()
