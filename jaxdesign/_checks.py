"""The only place that words input errors: argument, what was found, what is allowed, what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdesign import _arrays

FLOAT_NAMES = ("float16", "bfloat16", "float32", "float64")


def concrete(function: str, *arguments: Any, name: str = "pool") -> None:
    """TypeError where arguments are traced: the function runs on the host."""
    if _arrays.is_traced(*arguments):
        raise TypeError(
            f"{name}: is traced; jaxdesign.{function} runs on the host and gives NumPy arrays; call it outside of jit "
            "and vmap, and pass its result in"
        )


def as_float_array(value: Any, name: str) -> Any:
    """`value` as an array of an allowed floating dtype, without copying; TypeError otherwise."""
    if not isinstance(value, jax.Array | np.ndarray):
        try:
            value = np.asarray(value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name}: expected a NumPy or JAX array, found {type(value).__name__}") from error
    if value.dtype.name not in FLOAT_NAMES:
        raise TypeError(f"{name}: dtype {value.dtype} found; allowed are {', '.join(FLOAT_NAMES)}; cast with .astype")
    return value


def rank(value: Any, ndims: tuple[int, ...], name: str, axes: str) -> None:
    """ValueError unless `value` has one of the allowed numbers of axes."""
    if value.ndim not in ndims:
        raise ValueError(f"{name}: shape {value.shape} found; expected axes {axes}")


def same_shape(found: tuple, expected: tuple, name: str, meaning: str) -> None:
    """ValueError unless two shapes agree."""
    if tuple(found) != tuple(expected):
        raise ValueError(f"{name}: shape {tuple(found)} found; expected {tuple(expected)} {meaning}")


def finite(value: Any, name: str, where: Any = None, axes: tuple[str, ...] = (), first: int = 0) -> None:
    """ValueError that names the first NaN or inf of a concrete array (entries with `where` False do not count).

    `first` is the number of the first prompt, where the array is a part of a pool.
    """
    if _arrays.divided(value):
        fine = _all_finite_on_devices(value, where)
    else:
        value, where = _arrays.replicated((value, where))
        fine = _all_finite(value, where)
    if bool(fine):
        return
    value, where = _arrays.in_one_place((value, where))
    bad = ~jnp.isfinite(value)
    if where is not None:
        bad &= _arrays.aligned(bad, where)[1]
    index = tuple(int(k) for k in np.argwhere(np.asarray(bad))[0])
    named = (f"{axis} {k + first if axis == 'prompt' else k}" for axis, k in zip(axes, index, strict=False))
    place = ", ".join(named) or str(index)
    count = int(jnp.sum(bad))
    raise ValueError(
        f"{name}: {np.asarray(value[index])!s} at {place} ({count} such value(s) in all); every existing completion "
        "must have finite values; set mask False for completions that do not exist"
    )


@jax.jit
def _all_finite(value, where):
    """Whether no entry is NaN or inf, chunk by chunk of the leading axis, so that no boolean of its size is made.

    `isfinite` itself is reduced: XLA's vectorised maximum drops NaN on CPUs (4,096 entries and more), so that a largest
    size says nothing.
    """
    if value.size == 0:
        return jnp.ones((), bool)
    counted = where if where is None else where.reshape(*[1] * (value.ndim - where.ndim), *where.shape)
    rows = value.shape[0] if value.ndim else 1
    length = max(1, min(rows, _arrays.chunk_entries() // (value.size // rows)))

    def check(index, fine):
        # past the end a slice is moved back: some rows are seen twice
        part = jax.lax.dynamic_slice_in_dim(value, index * length, length) if value.ndim else value
        finite = jnp.isfinite(part)
        if counted is not None:
            lead = counted.shape[0] == rows
            finite |= ~(jax.lax.dynamic_slice_in_dim(counted, index * length, length) if lead else counted)
        return fine & jnp.all(finite)

    return jax.lax.fori_loop(0, -(-rows // length), check, jnp.ones((), bool))


@jax.jit
def _all_finite_on_devices(value, where):
    """The same of an array divided over devices, each of which looks at its own part."""
    finite = jnp.isfinite(value)
    if where is not None:
        finite, where = _arrays.aligned(finite, where)
        finite |= ~where
    return jnp.all(finite)


def flips(value: Any, where: Any, first: int = 0) -> None:
    """ValueError that names the first entry of a concrete array outside of [0, 1/2), or that is not symmetric.

    Entries with `where` False do not count; `first` is the number of the first prompt. Differences to the transpose up
    to 1e-5 are rounding and accepted.
    """
    value, where = _arrays.on_host(value), _arrays.on_host(where)
    bad = where & ~((value >= 0) & (value < 0.5))
    if bad.any():
        raise ValueError(
            f"flip: {_first(value, bad, first)}; the probability that a label is reversed must be at least 0 and below "
            "1/2. At 1/2 a label carries no information: set mask False for what only such labels could compare"
        )
    if value.ndim == 3:
        bad = where & (np.abs(value - value.swapaxes(1, 2)) > 1e-5)
        if bad.any():
            raise ValueError(
                f"flip: {_first(value, bad, first)} differs from its mirror image; flip[p, i, j] = flip[p, j, i]"
            )


def _first(value: np.ndarray, bad: np.ndarray, first: int) -> str:
    index = tuple(int(k) for k in np.argwhere(bad)[0])
    place = f"prompt {index[0] + first}" + (f", completions {index[1]} and {index[2]}" if len(index) > 1 else "")
    return f"{value[index]:g} at {place} ({int(bad.sum())} such value(s) in all)"


def symmetric_psd(matrix: Any, dim: int, name: str, lead: tuple[int, ...] = ()) -> np.ndarray:
    """Float64 NumPy copy of a symmetric positive semidefinite matrix, symmetrised.

    Asymmetry up to 1e-5 of the largest entry and eigenvalues down to -1e-6 of the largest are rounding and accepted.
    """
    matrix = np.asarray(as_float_array(matrix, name), dtype=np.float64)
    if matrix.shape not in ((dim, dim), (*lead, dim, dim)):
        raise ValueError(f"{name}: shape {matrix.shape} found; expected {(dim, dim)}, one row per feature dimension")
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name}: holds NaN or inf; every entry must be finite")
    largest = np.abs(matrix).max(initial=0.0)
    asymmetry = np.abs(matrix - matrix.swapaxes(-1, -2)).max(initial=0.0)
    if asymmetry > 1e-5 * largest:
        raise ValueError(
            f"{name}: not symmetric, difference to its transpose up to {asymmetry:.3g} (allowed {1e-5 * largest:.3g});"
            f" pass ({name} + {name}.T) / 2 if that is what is meant"
        )
    matrix = (matrix + matrix.swapaxes(-1, -2)) / 2
    spectrum = np.linalg.eigvalsh(matrix)
    if spectrum.min() < -1e-6 * max(spectrum.max(), 0.0) or spectrum.max() < 0:
        raise ValueError(
            f"{name}: indefinite, smallest eigenvalue {spectrum.min():.3g}, largest {spectrum.max():.3g}; "
            "it must be positive semidefinite"
        )
    return matrix


def at_least_one(value: Any, name: str, remedy: str) -> np.ndarray | None:
    """A cap as float64 scalar or (P,) array; ValueError for NaN or anything below 1."""
    if value is None:
        return None
    try:
        value = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected a number or one number per prompt, found {value!r}") from error
    if value.ndim > 1:
        raise ValueError(f"{name}: shape {value.shape} found; expected a scalar or one value per prompt, shape (P,)")
    if not (value >= 1).all():
        worst = value.ravel()[np.argmax(~(value.ravel() >= 1))]
        raise ValueError(f"{name}={worst:g}: must be at least 1; {remedy}")
    return value


def number(value: Any, name: str) -> float:
    """A float; TypeError for what is no number."""
    if isinstance(value, bool | str) or value is None or getattr(value, "ndim", 0) > 0:
        raise TypeError(f"{name}={value!r}: expected a number, found {type(value).__name__}")
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected a number, found {type(value).__name__}") from error


def whole_number(value: Any, name: str, least: int) -> int:
    """An int of at least `least`; TypeError for what is no number, ValueError otherwise (NaN and inf too)."""
    found = number(value, name)
    if not (np.isfinite(found) and found == np.floor(found) and found >= least):
        raise ValueError(f"{name}={value}: must be a whole number of at least {least}")
    return int(found)


def seed(value: Any) -> None:
    """TypeError for a seed that is no integer, ValueError for a negative one."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"seed: expected an integer, found {type(value).__name__}")
    if value < 0:
        raise ValueError(f"seed={value}: must be at least 0")


def rows_of_three(value: Any, name: str) -> np.ndarray:
    """Rows (p, i, j) as an array; ValueError for rows of different lengths, TypeError for what holds no integers."""
    try:
        rows = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: rows of different lengths found; expected (S, 3), one row (prompt, i, j) per pair"
        ) from error
    if rows.size and not np.issubdtype(rows.dtype, np.integer):
        raise TypeError(f"{name}: dtype {rows.dtype} found; expected integers, one row (prompt, i, j) per pair")
    return rows


def one_per_prompt(value: Any, name: str) -> np.ndarray | None:
    """Numbers of at least 0 as float64 scalar or (P,) array; TypeError or ValueError otherwise."""
    if value is None:
        return None
    try:
        value = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected a number or one number per prompt, found {value!r}") from error
    if value.ndim > 1:
        raise ValueError(f"{name}: shape {value.shape} found; expected a scalar or one value per prompt, shape (P,)")
    if not ((value >= 0) & np.isfinite(value)).all():
        worst = value.ravel()[np.argmin((value.ravel() >= 0) & np.isfinite(value.ravel()))]
        raise ValueError(f"{name}={worst:g}: must be finite and at least 0")
    return value


def costs(value: Any, mask: np.ndarray) -> np.ndarray:
    """(P, K) float64 costs of completions, 0 where there is none; TypeError or ValueError otherwise."""
    try:
        value = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"budget.cost: expected numbers (P, K), found {type(value).__name__}") from error
    same_shape(value.shape, mask.shape, "budget.cost", "(prompts, completions), one number per completion")
    bad = mask & ~(np.isfinite(value) & (value >= 0))
    if bad.any():
        p, k = np.argwhere(bad)[0]
        raise ValueError(
            f"budget.cost: {value[p, k]} at prompt {p}, completion {k}; costs must be finite and at least 0"
        )
    return np.where(mask, value, 0.0)


def positive_finite(value: Any, name: str, meaning: str) -> float:
    """A float above zero; TypeError for what is no number, ValueError otherwise."""
    if isinstance(value, bool | str) or value is None:
        raise TypeError(f"{name}={value!r}: expected a number, {meaning}")
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected a number, found {type(value).__name__}") from error
    if not np.isfinite(number) or number <= 0:
        raise ValueError(f"{name}={number:g}: must be positive and finite; it is {meaning}")
    return number


def check_different(names: Iterable[Any], argument: str, remedy: str) -> None:
    """ValueError that says which name occurs how often. Names that are written alike (1 and "1") are the same name."""
    names = [str(name) for name in names]
    if len(set(names)) < len(names):
        name, times = Counter(names).most_common(1)[0]
        raise ValueError(f"{argument}: {name!r} found {times} times; {remedy}")
