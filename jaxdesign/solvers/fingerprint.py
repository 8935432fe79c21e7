"""What tells one problem from another: short digests of its parts, by the names that users give them.

Of a pool of billions of pairs no more is read than one page of listed pairs, spread over all prompts; which
completions there are, and how many pairs, is known of all of them.
"""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jaxdesign import _arrays
from jaxdesign.design import Design
from jaxdesign.pricing.listed import PAGE, pages
from jaxdesign.problem import Problem
from jaxdesign.solvers.states import Solver

DIGITS = 9  # of what is computed, which another machine may round otherwise


def fingerprint(problem: Problem, solver: Solver, tol: float, start: Design | None) -> dict[str, str]:
    """Digests of a problem and of how it is solved, by the arguments of `optimize`; equal where those are."""
    [rows] = [rows for _, rows in pages(problem.source, sampled_pairs(problem))]
    source = problem.source
    shape = source.prompts, source.completions, source.dim, source.draws, np.dtype(source.dtype).name
    differences, label_info = np.asarray(rows.differences), np.round(np.asarray(rows.label_info), DIGITS)
    given = None if start is None else (start.pairs, start.labels)
    return {
        "pool": digest(shape, problem.exists, problem.pair_counts, problem.exponents, differences, label_info),
        "crit": digest(problem.criterion) + f" {_value(problem):.{DIGITS}g}",
        "budget": digest(problem.limits, problem.decided),
        "prior": digest(problem.prior),
        "tol": repr(tol),
        "solver": described(solver),
        "start": digest(given),
    }


def sampled_pairs(problem: Problem) -> Int[np.ndarray, "s 3"]:
    """At most a page of pairs, the first and the last completion of prompts that are spread over the whole pool."""
    several = np.flatnonzero(problem.exists.sum(axis=1) > 1)
    prompts = several[np.unique(np.linspace(0, len(several) - 1, PAGE).round().astype(int))]
    exists = problem.exists[prompts]
    last = exists.shape[1] - 1 - np.argmax(exists[:, ::-1], axis=1)
    return np.stack([prompts, np.argmax(exists, axis=1), last], axis=1).astype(np.int32)


def _value(problem: Problem) -> float:
    """The criterion at some matrix: tells functions from each other."""
    dim = problem.dim
    matrix = np.broadcast_to(np.diag(np.arange(1.0, dim + 1)) + 1, (problem.source.draws, dim, dim))
    with _arrays.float64():
        return float(problem.criterion.value(jnp.asarray(matrix)))


def described(solver: Solver) -> str:
    """Its name and fields, where it shows them."""
    kind = type(solver)
    return kind.__qualname__ if kind.__repr__ is object.__repr__ else repr(solver)


def digest(*trees: Any) -> str:
    """Of all numbers, arrays and texts in some pytrees, with their dtypes and shapes."""
    found = hashlib.blake2b(digest_size=16)
    for leaf in jax.tree.leaves(trees):
        array = np.asarray(leaf)
        if array.dtype != object:
            found.update(f"{array.dtype.str} {array.shape} ".encode())
            found.update(array.tobytes())
    return found.hexdigest()
