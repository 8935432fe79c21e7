"""Names that must differ: the one check for ids of prompts, names of annotators and columns of files."""

from collections import Counter
from collections.abc import Iterable
from typing import Any


def check_different(names: Iterable[Any], argument: str, remedy: str) -> None:
    """ValueError that says which name occurs how often. Names that are written alike (1 and "1") are the same name."""
    names = [str(name) for name in names]
    if len(set(names)) < len(names):
        name, times = Counter(names).most_common(1)[0]
        raise ValueError(f"{argument}: {name!r} found {times} times; {remedy}")
