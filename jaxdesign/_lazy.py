"""Names that load their file on first use, so that a package costs nothing to those who do not touch them.

This file loads with `import jaxdesign`, so it imports neither `typing` nor `contextlib`: they take longer than it does.
"""

from __future__ import annotations

import importlib
import sys

TYPE_CHECKING = False  # true for type checkers
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from contextlib import AbstractContextManager
    from typing import Any


def lazily(
    package: str,
    homes: Mapping[str, str],
    modules: Collection[str] = (),
    during: Callable[[str], AbstractContextManager[object]] | None = None,
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A module's `__getattr__` and `__dir__`.

    Where they are assigned is to be hidden from type checkers, which would take any name for one of the module's.

    Args:
        package: its name.
        homes: file of every name, relative to the package.
        modules: names that are files or rooms of the package themselves.
        during: given the whole name, a context in which the file is imported; None for none.
    """

    def load(name: str) -> Any:
        if name not in homes and name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if during is None:
            value = found(name)
        else:
            with during(f"{package}.{name}"):
                value = found(name)
        setattr(sys.modules[package], name, value)
        return value

    def found(name: str) -> Any:
        module = importlib.import_module(f"{package}.{homes.get(name, name)}")
        return getattr(module, name) if name in homes else module

    return load, lambda: sorted([*homes, *modules])
