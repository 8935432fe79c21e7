"""Formats of few digits that matrix units are fast in: what may be ranked in them, and products of such numbers."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdesign._arrays import HIGHEST


class Coarse(NamedTuple):
    """A floating-point format that matrix units are fast in: its significant bits, and the dtype that operands have."""

    bits: int
    dtype: Any


TF32, BFLOAT16 = Coarse(11, jnp.float32), Coarse(8, jnp.bfloat16)
# Formats in which prompts are ranked, by backend; not on a CPU, where casts cost what the products save.
RANKED_IN = {"gpu": TF32, "tpu": BFLOAT16}


def ranked_in() -> Coarse | None:
    """The format that a pass may rank in on the default backend; None: the working dtype."""
    return RANKED_IN.get(jax.default_backend())


def coarsely(array: jax.Array, kind: Coarse) -> jax.Array:
    """float32 numbers rounded to nearest in a format, in the dtype of its operands."""
    return lax.reduce_precision(array, exponent_bits=8, mantissa_bits=kind.bits - 1).astype(kind.dtype)


def coarse_contract(subscripts: str, left: jax.Array, right: jax.Array, kind: Coarse) -> jax.Array:
    """`jnp.einsum` of operands in a format, their products exact, summed in float32.

    Operands are rounded already: where there are no units for the format, full precision gives the same.
    """

    def product(left, right, precision):
        return jnp.einsum(subscripts, left, right, precision=precision, preferred_element_type=jnp.float32)

    full = partial(product, precision=HIGHEST)
    if kind is not TF32:
        return full(left, right)
    fast = partial(product, precision=lax.DotAlgorithmPreset.TF32_TF32_F32)
    return lax.platform_dependent(left, right, cuda=fast, default=full)
