"""Who refuses what is no source: in words, before the first pass, and not by what a call deep inside runs into."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import numpy as np

from jaxdesign.pool import CompletionPool
from jaxdesign.pricing.source import Source

NUMBERS = ("prompts", "completions", "dim", "draws")


class Method(NamedTuple):
    """How a method of a source is called.

    Args:
        expected: its arguments as they should be written.
        calls: for every way in which it is called, the number of arguments by position, and those by name.
    """

    expected: str
    calls: tuple[tuple[int, tuple[str, ...]], ...]


METHODS = {
    "fold": Method("kernel, carry, per_prompt=None, merge=jnp.add", ((2, ()), (3, ("merge",)))),
    "rows": Method("pairs", ((1, ()),)),
    "subset": Method("prompts", ((1, ()),)),
}
MORE = {  # that a source may have
    "in_dtype": Method("dtype", ((1, ()),)),
    "over_pairs": Method("kernel, pairs, per_pair=None", ((2, ()), (3, ()))),
    "home": Method("prompts", ((1, ()),)),
    "some": Method("prompts", ((1, ()),)),
    "with_scores": Method("scores", ((1, ()),)),
}


def checked(pool: Any) -> CompletionPool | Source:
    """A pool in memory, or a source that has all that passes ask for, as it was given.

    Args:
        pool: what a public function was given as `pool`. Methods are looked at and not called: one that takes any
            arguments (`*args`, `**kwargs`) passes, and so does one that has no signature to look at.

    Returns:
        The same object.

    Raises:
        TypeError: an object of another kind, or a source that lacks an attribute, has one that is no number or dtype,
            or a method that cannot be called as passes call it: what is missing, what was found, and how to write it.
        ValueError: a number of prompts and so on below 1.

    Source: derived; checked by tests/pricing/test_checked.py.
    """
    if isinstance(pool, CompletionPool):
        return pool
    kind = type(pool).__name__
    if isinstance(pool, type) or not any(hasattr(pool, name) for name in METHODS):
        found = f"the class {pool.__name__}; pass an instance of it" if isinstance(pool, type) else kind
        raise TypeError(f"pool: expected jaxdesign.CompletionPool, or a jaxdesign.pricing.Source, found {found}")
    missing = [name for name in (*NUMBERS, "dtype", *METHODS) if not hasattr(pool, name)]
    if getattr(pool, "devices", 1) != 1:
        missing += [name for name in ("home", "some") if not hasattr(pool, name)]
    if missing:
        raise TypeError(
            f"pool: {kind} has no {', '.join(missing)}; a jaxdesign.pricing.Source has {', '.join(NUMBERS)}, dtype and "
            f"the methods {', '.join(map(_written, METHODS))}: add {_written(missing[0])}"
        )
    for name in NUMBERS:
        _check_number(getattr(pool, name), f"pool.{name}")
    _check_dtype(pool.dtype)
    for name in (*METHODS, *MORE):
        if hasattr(pool, name):
            _check_method(getattr(pool, name), kind, name)
    return pool


def _written(name):
    method = (METHODS | MORE).get(name)
    return name if method is None else f"{name}({method.expected})"


def _check_number(value, name):
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        found = "a method" if callable(value) else type(value).__name__
        raise TypeError(f"{name}: {found} found; expected an int: make it an attribute or a property")
    if value < 1:
        raise ValueError(f"{name}={value}: must be at least 1")


def _check_dtype(value):
    try:
        found = np.dtype(value)
    except TypeError as error:
        raise TypeError(
            f"pool.dtype: {type(value).__name__} found; expected np.dtype(np.float32) or float64"
        ) from error
    if found not in (np.float32, np.float64):
        raise TypeError(f"pool.dtype: {found} found; the rows of chunks are float32 or float64: cast them in fold")


def _check_method(method, kind, name):
    if not callable(method):
        raise TypeError(f"pool.{name}: {type(method).__name__} found; expected the method {_written(name)}")
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):  # of what is not written in Python
        return
    for number, names in (METHODS | MORE)[name].calls:
        try:
            signature.bind(*[None] * number, **dict.fromkeys(names))
        except TypeError as error:
            bare = [part.replace(annotation=inspect.Parameter.empty) for part in signature.parameters.values()]
            found = signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)
            raise TypeError(
                f"pool: {name} of {kind} takes {found}, and a pass cannot call it so ({error}); write it "
                f"{_written(name)}, see jaxdesign.pricing.Source"
            ) from error
