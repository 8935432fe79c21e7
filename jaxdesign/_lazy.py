"""Names that load their file on first use, so that a package costs nothing to those who do not touch them."""

import importlib
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any


def lazily(
    package: str, homes: Mapping[str, str], during: Callable[[str], AbstractContextManager] = lambda what: nullcontext()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A module's `__getattr__` and `__dir__`.

    Args:
        package: its name.
        homes: file of every name, relative to the package.
        during: given the whole name, a context in which the file is imported.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with during(f"{package}.{name}"):
            value = getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: sorted(homes)
