"""Preferences of answers: P_ij = Pr(i beats j), validated, in a working dtype; the antisymmetric A = P - 1/2."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxdesign import _arrays, _checks
from jaxdesign.dynamics.comparison_graph import reachable

SUM_TOLERANCE = 1e-6  # of P_ij + P_ji = 1: float32 rounding
SHOWN = 8  # groups, and answers of a group, that a message lists


def as_preferences(value: Any, name: str = "preferences") -> Any:
    """(..., K, K) probabilities with P_ij + P_ji = 1 and 1/2 on the diagonal, whatever it held.

    On the host a NumPy array, float32 where it was and float64 otherwise; a traced one keeps its dtype, unchecked but
    for its shape.

    Raises:
        ValueError: not (..., K, K) with K >= 2, values outside of [0, 1], P_ij + P_ji that is not 1 within 1e-6.
    """
    if _arrays.is_traced(value):
        _square(value, name)
        return jnp.where(jnp.eye(value.shape[-1], dtype=bool), 0.5, value)
    value = _as_floats(value)
    _square(value, name)
    diagonal = np.eye(value.shape[-1], dtype=bool)
    value = np.where(diagonal, value.dtype.type(0.5), value)
    _refuse(~((value >= 0) & (value <= 1)), value, name, "must be probabilities, in [0, 1]")
    sums = value + value.swapaxes(-1, -2)
    _refuse(np.abs(sums - 1) > SUM_TOLERANCE, sums, f"{name}[i, j] + {name}[j, i]", "must be 1: P_ji = 1 - P_ij")
    return value


def as_pair_law(value: Any, size: int, name: str = "pair_law") -> Any:
    """(..., K, K) symmetric masses at least 0, the largest 1, the diagonal 0; dtypes and tracing as for preferences.

    A traced law keeps its scale.

    Raises:
        ValueError: another shape, values that are negative or not finite, q_ij other than q_ji, no mass at all.
    """
    value = _as_floats(value)
    _checks.same_shape(value.shape[-2:], (size, size), name, "in its last axes, a mass per pair of answers")
    if _arrays.is_traced(value):
        return jnp.where(jnp.eye(size, dtype=bool), 0, value)
    value = np.where(np.eye(size, dtype=bool), 0, value)
    _refuse(~((value >= 0) & np.isfinite(value)), value, name, "must be masses, finite and at least 0")
    off = np.abs(value - value.swapaxes(-1, -2))
    largest = value.max(initial=0)
    _refuse(off > SUM_TOLERANCE * largest, value, name, "differs from its mirror image")
    if not (value > 0).any((-1, -2)).all():
        raise ValueError(f"{name}: no pair of different answers has any mass; give some pair a mass above 0")
    return value / (largest if value.size else 1)  # of any scale: sums and float32 hold it


def as_log_policy(value: Any, size: int, name: str) -> Any:
    """(..., K) log-probabilities up to a constant, finite; None becomes zeros. Dtypes and tracing as above.

    Raises:
        ValueError: another shape, NaN or inf.
    """
    if value is None:
        return np.zeros(size)
    value = _as_floats(value)
    if value.ndim < 1 or value.shape[-1] != size:
        raise ValueError(f"{name}: shape {value.shape} found; expected {size} log-probabilities, one per answer")
    if not _arrays.is_traced(value):
        _refuse(~np.isfinite(value), value, name, "must be finite log-probabilities (leave out answers never given)")
    return value


def refuse_other_draws(value: Any, axes: int, preferences: Any, name: str) -> None:
    """ValueError unless what stands in front of the last `axes` of a value broadcasts to the axes of draws of P."""
    own, lead = tuple(value.shape[: value.ndim - axes]), tuple(preferences.shape[:-2])
    if len(own) > len(lead) or any(a not in (1, b) for a, b in zip(own[::-1], lead[::-1], strict=False)):
        raise ValueError(
            f"{name}: leading axes {own} of shape {tuple(value.shape)} found; expected those of the draws of "
            f"preferences, {lead}, or none, for all draws alike"
        )


def refuse_apart(law: Float[np.ndarray, "*n k k"], name: str) -> None:
    """ValueError that names the answers of a law, on the host, which no chain of pairs joins to the others."""
    linked = reachable(law > 0)
    apart = ~linked.all((-1, -2))
    if not apart.any():
        return
    first = tuple(int(k) for k in np.argwhere(apart)[0])
    groups = sorted({tuple(np.flatnonzero(row).tolist()) for row in linked[first]})
    named = " | ".join(map(_listed, groups[:SHOWN])) + (f" | ... {len(groups)} groups" if len(groups) > SHOWN else "")
    where = f" at {first} ({int(apart.sum())} such law(s) in all)" if first else ""
    raise ValueError(
        f"{name}: no chain of pairs with mass joins the answers {named}{where}; scores of "
        "answers that are not joined cannot be compared: give a pair across the bars mass, or ask for each group alone"
    )


def advantages(preferences: Float[Array, "*n k k"]) -> Float[Array, "*n k k"]:
    """A = P - 1/2, antisymmetric to the last bit."""
    return (preferences - jnp.swapaxes(preferences, -1, -2)) / 2


def entropy(log_policy: Float[Array, "*n k"]) -> Float[Array, "*n"]:
    """Of normalised log-probabilities, nats."""
    return -jnp.sum(jnp.exp(log_policy) * log_policy, axis=-1)


def in_its_dtype(preferences: Any, *others: Any) -> AbstractContextManager:
    """Scope in which JAX computes in the dtype of checked preferences; the caller's where anything is traced."""
    traced = _arrays.is_traced(preferences, *others)
    return nullcontext() if traced else _arrays.scope(preferences.dtype == np.float64)


def on_host(result: Any) -> Any:
    """A result with NumPy arrays for leaves; as it is where it is traced."""
    return result if _arrays.is_traced(result) else jax.tree.map(np.asarray, result)


def per_draw(function: Callable, preferences: Any, *policies: Any) -> Any:
    """The function of a (K, K) matrix and (K,) policies, mapped over the leading axes of the preferences.

    Policies are for all draws or have those axes too; results get them in front.
    """
    lead = preferences.shape[:-2]
    if not lead:
        return function(preferences, *policies)
    number = int(np.prod(lead))
    own = [jnp.broadcast_to(a, (*lead, a.shape[-1])).reshape(number, a.shape[-1]) for a in policies]
    flat = preferences.reshape(number, *preferences.shape[-2:])
    return jax.tree.map(lambda a: a.reshape(*lead, *a.shape[1:]), jax.vmap(function)(flat, *own))


def _as_floats(value):
    """On the host a NumPy array, float32 where it was and float64 otherwise; what is traced as it is."""
    if _arrays.is_traced(value):
        return value
    value = np.asarray(value)
    return value if value.dtype == np.float32 else value.astype(np.float64)


def _square(value, name):
    if value.ndim < 2 or value.shape[-1] != value.shape[-2] or value.shape[-1] < 2:
        raise ValueError(f"{name}: shape {value.shape} found; expected (..., K, K) with at least two answers")


def _listed(answers):
    """The first few, in brackets."""
    more = f", ... {len(answers)} in all" if len(answers) > SHOWN else ""
    return f"({', '.join(map(str, answers[:SHOWN]))}{more})"


def _refuse(bad, value, name, allowed):
    if bad.any():
        index = tuple(int(k) for k in np.argwhere(bad)[0])
        raise ValueError(f"{name}: {value[index]:g} at {index} ({int(bad.sum())} such value(s) in all); {allowed}")
