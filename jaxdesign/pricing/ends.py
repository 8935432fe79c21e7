"""The two completions of listed pairs as they are stored, which is what may have to travel, and the rows between."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxdesign.information import Margins
from jaxdesign.pricing.source import PairRows, listed_pairs


class Ends(NamedTuple):
    """The two completions of listed pairs as they are stored, nothing subtracted.

    Args:
        features: (S, 2, d).
        margins: theirs, scores (S, R, 2), flips (S, 1, 1) and rows of residuals (S, 2, r); None: every margin is 0 and
            no label is reversed.
    """

    features: Float[Array, "s 2 d"]
    margins: Margins | None


def ends_of(features: Float[Array, "p k d"], margins: Margins | None, pairs: Int[Array, "s 3"]) -> Ends:
    """Those of listed pairs of a pool with such features and margins, by prompt."""
    p, i, j = pairs.T
    both = jnp.stack([features[p, i], features[p, j]], axis=1)
    if margins is None:
        return Ends(both, None)
    scores, flip, spread = margins
    if scores is not None:
        scores = jnp.stack([scores[p, :, i], scores[p, :, j]], axis=-1)
    flip = flip[p] if flip.shape[1] == 1 else flip[p, i, j][:, None, None]
    spread = jax.tree.map(lambda rows: jnp.stack([rows[p, i], rows[p, j]], axis=1), spread)
    return Ends(both, Margins(scores, flip, spread))


@jax.jit
def rows_between(ends: Ends) -> PairRows:
    """Rows of listed pairs from what is stored of them, float64: to be called inside of `_arrays.float64()`."""
    left, right = jnp.moveaxis(ends.features.astype(jnp.float64), 1, 0)
    place = jnp.arange(len(left), dtype=jnp.int32)
    pairs = jnp.stack([place, jnp.zeros_like(place), jnp.ones_like(place)], axis=1)
    return listed_pairs(left - right, ends.margins, pairs)
