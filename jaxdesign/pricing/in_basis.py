"""A source in another basis, features (phi - prompt mean) B, made of the given ones chunk by chunk in every pass.

Rows are multiplied in float64 and then rounded, as those of a pool that is stored in the basis are. In float32 they
could not be: along directions in which features hardly differ, products of columns that do are lost in their rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float, Int

from jaxdesign import _arrays
from jaxdesign.pricing.memory import MemorySource
from jaxdesign.pricing.projected import projected
from jaxdesign.pricing.scores import has_scores, with_scores
from jaxdesign.pricing.source import (
    Derived,
    Divided,
    Kernel,
    Merge,
    PairRows,
    Source,
    as_here,
    some_of,
)
from jaxdesign.pricing.widened import in_dtype


@dataclass(frozen=True, eq=False)
class BasisSource(Derived):
    """Another source, whose working dtype is float64, in a basis B; `source_in_basis` makes one."""

    basis: Float[np.ndarray, "d r"]
    working: np.dtype

    @property
    def dim(self) -> int:
        """r."""
        return self.basis.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """Working dtype."""
        return self.working

    @property
    def as_stored(self) -> bool:
        """False: subsets are rounded to the working dtype, rows of listed pairs are not."""
        return False

    def fold(self, kernel: Kernel, carry: Any, per_prompt: Any = None, merge: Merge = jnp.add) -> tuple[Any, Any]:
        """See `Source.fold`; the kernel runs in the precision that is the default here."""
        kernel, carry = jax.tree.map(jnp.asarray, (as_here(kernel), carry))
        per_prompt = jax.tree.map(_as_here, per_prompt)
        with _arrays.float64():
            like = jnp.zeros((), self.dtype)
            visit = Partial(_in_basis, kernel, jnp.asarray(self.basis), like)
            return self.given.fold(visit, carry, per_prompt, merge=merge)

    def rows(self, pairs: Int[np.ndarray, "s 3"]) -> PairRows:
        """See `Source.rows`: z B in float64, not rounded as features are."""
        found = self.given.rows(pairs)
        with _arrays.float64():
            return found._replace(differences=_product(found.differences, self.basis))

    def subset(self, prompts: Int[np.ndarray, " m"]) -> MemorySource:
        """See `Source.subset`."""
        return projected(self.given.subset(prompts), self.basis, self.dtype)

    def in_dtype(self, dtype: Any) -> BasisSource:
        """The same with another working dtype."""
        return replace(self, working=np.dtype(dtype))

    @property
    def scored(self) -> bool:
        """Whether it has scores."""
        return has_scores(self.given)

    def with_scores(self, scores: Float[np.ndarray, "p k"]) -> BasisSource:
        """The same with these scores in place of any it has: scores know no basis."""
        return self.with_given(partial(with_scores, scores=scores))

    def home(self, prompts: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Which of the devices have them."""
        return cast(Divided, self.given).home(prompts)

    def some(self, prompts: Int[np.ndarray, " m"]) -> BasisSource:
        """Some prompts to fold over, on their devices."""
        return replace(self, given=some_of(self.given, prompts))


def source_in_basis(source: Source, basis: Float[np.ndarray, "d r"]) -> BasisSource:
    """A source in a basis, with the working dtype it has."""
    return BasisSource(in_dtype(source, np.float64), basis, np.dtype(source.dtype))


def _in_basis(kernel, basis, like, chunk, carry, inputs):
    flat = chunk.rows.reshape(-1, chunk.rows.shape[-1])
    rows = jnp.matmul(flat, basis, precision=_arrays.HIGHEST).astype(like.dtype)
    chunk = chunk._replace(rows=rows.reshape(*chunk.rows.shape[:2], -1), resolution=None)
    return kernel(chunk, carry, inputs)


def _as_here(array):
    """What a program would take a NumPy array for in the default precision."""
    if isinstance(array, np.ndarray):
        return array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)
    return array


@jax.jit
def _product(rows, basis):
    return jnp.matmul(rows, basis, precision=_arrays.HIGHEST)
