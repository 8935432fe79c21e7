"""What a plain matrix product reaches here, by precision and shape: the yardstick of everything else."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bench.accelerator.arrays import normal
from bench.accelerator.cases import Case
from bench.accelerator.clock import timed_all
from jaxdesign import _arrays

KINDS = {  # precision as JAX names it: what it means depends on the device (TF32, three bfloat16 products, ...)
    "float32, highest": (jnp.float32, "highest"),
    "float32, high": (jnp.float32, "high"),
    "float32, default": (jnp.float32, "default"),
    "bfloat16": (jnp.bfloat16, "default"),
    "float64": (jnp.float64, "highest"),
}


def cases(small: bool) -> list[Case]:
    """A square product of each kind, and rows x d x d ones, the shape of a pass, at the precision in use."""
    square, rows = (256, 2**10) if small else (8192, 2**20)
    found = [
        Case("matmul", f"{kind}, {n} cubed", 5, partial(rate, n, n, *how))
        for kind, how in KINDS.items()
        for n in [square // 2 if kind == "float64" else square]
    ]
    for dim in (16,) if small else (64, 256, 1024):
        found.append(Case("matmul", f"float32, highest, {rows} x {dim} x {dim}", 5, partial(rate, rows, dim)))
    return found


def rate(rows: int, dim: int, dtype: Any = jnp.float32, precision: str = "highest") -> dict[str, Any]:
    """Seconds and TFLOP/s of (rows, d) times (d, d)."""
    with _arrays.float64():
        a, b = normal((rows, dim), dtype), normal((dim, dim), dtype, 1)
        found = timed_all({"product": lambda: _product(a, b, precision=precision)})
    return found | {"tflops": 2.0 * rows * dim**2 / found["seconds"]["product"]["median"] / 1e12}


@partial(jax.jit, static_argnames="precision")
def _product(a, b, *, precision):
    return jnp.matmul(a, b, precision=precision)
