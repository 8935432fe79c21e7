"""The d x d algebra in float64, and the restricted problem's programs of many small kernels."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdesign as jd
from bench.accelerator.arrays import heavy_tailed, normal
from bench.accelerator.cases import Case
from bench.accelerator.clock import timed_all
from jaxdesign import _arrays
from jaxdesign._linalg import cholesky_and_inverse
from jaxdesign._pairs import Allocation
from jaxdesign.door import make_problem
from jaxdesign.methods.projection import project
from jaxdesign.methods.room import Room
from jaxdesign.solvers.column_generation import working_set
from jaxdesign.solvers.column_generation.newton import hessian_product

PRODUCTS = 16  # Hessian products of one program, as a Newton step has many after one factorisation


def cases(small: bool) -> list[Case]:
    """Factorisations by size, projections by length, the restricted problem by dimension."""
    sizes, lengths = ((16,), (1024,)) if small else ((64, 256, 1024, 2048), (4096, 16384, 65536))
    prompts, completions, dims = (64, 8, (16,)) if small else (2048, 32, (64, 256, 1024))
    return [
        *(Case("factorise", f"d = {d}", 40 if d > 1024 else 15, partial(factorise, d)) for d in sizes),
        *(Case("project", f"{n} pairs", 10, partial(projection, n)) for n in lengths),
        *(Case("restricted", f"d = {d}", 40, partial(restricted, prompts, completions, d)) for d in dims),
    ]


def factorise(dim: int) -> dict[str, Any]:
    """L and L^-1 of the package against the library's in float64 and float32; spectra on the device and the host."""
    with _arrays.float64():
        root = normal((dim, 2 * dim), jnp.float64)
        matrix = root @ root.T
        low = matrix.astype(jnp.float32)
        return timed_all(
            {
                "L and its inverse": lambda: cholesky_and_inverse(matrix),
                "L and its inverse, library": lambda: _library(matrix),
                "L and its inverse, library, float32": lambda: _library(low),
                "eigenvalues, device": lambda: _eigenvalues(matrix),
                "eigenvalues, host": lambda: np.linalg.eigvalsh(np.asarray(matrix)),
            },
            3,
        )


@jax.jit
def _library(matrix):
    factor = jax.lax.linalg.cholesky(matrix)
    eye = jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
    return factor, jax.lax.linalg.triangular_solve(factor, eye, left_side=True, lower=True)


_eigenvalues = jax.jit(jnp.linalg.eigvalsh)


def projection(length: int) -> dict[str, Any]:
    """Nearest allowed allocation of a list of pairs, one label a pair."""
    with _arrays.float64():
        room = Room(jnp.ones(length), jnp.asarray(length / 10.0))
        point = normal((length,), jnp.float64)
        return timed_all({"project": lambda: _project(point, room)})


_project = jax.jit(project)


def restricted(prompts: int, completions: int, dim: int) -> dict[str, Any]:
    """A restricted problem of about 20 d random pairs: an objective with its gradient, Hessian products, a projection.

    "value and factors" is the objective's d x d part alone; the Hessian products are PRODUCTS after one factorisation.
    """
    problem = make_problem(heavy_tailed(prompts, completions, dim), jd.LogDet(), jd.Budget(5000))
    rng = np.random.default_rng(0)
    wanted = min(20 * dim, prompts)  # one pair of each prompt at most: all different
    p = np.sort(rng.choice(prompts, wanted, replace=False))
    pairs = np.stack([p, np.zeros_like(p), np.ones_like(p)], axis=1).astype(np.int32)
    labels = np.full(wanted, problem.limits.total / wanted)
    none = Allocation(np.zeros((0, 3), np.int32), np.zeros(0))
    with _arrays.float64():
        ws, criterion, u = working_set.gather(problem, Allocation(pairs, labels), none, 1.0)
        matrix = jax.block_until_ready(jax.jit(working_set.information)(ws, u))
        directions = normal((PRODUCTS, len(u)), jnp.float64)
        found = timed_all(
            {
                "objective": lambda: _objective(ws, criterion, u),
                "value and factors": lambda: _value_and_factors(criterion, matrix),
                "Hessian products": lambda: _products(ws, criterion, matrix, directions),
                "project": lambda: _project(u, ws.room),
            }
        )
    return found | {"pairs": wanted, "room": len(u), "products": PRODUCTS}


@jax.jit
def _objective(ws, criterion, u):
    return working_set.objective(ws, criterion)(u)


@jax.jit
def _value_and_factors(criterion, matrix):
    return criterion.value_and_factors(matrix)


@jax.jit
def _products(ws, criterion, matrix, directions):
    curvature = criterion.curvature(matrix)
    return jax.lax.map(lambda v: hessian_product(ws, curvature, v), directions)
