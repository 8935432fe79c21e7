"""Pool and prior as designs take them: what a belief's mean says of margins goes into the scores.

Of a source the scores phi . m are worked out in one pass, in float64, and rounded to float32 as those of a pool in
memory are (`scored_pool`): (P, K) numbers on the host, as scores of a source always are. From then on the source is one
that was made with them, and its passes, its listed pairs and its subsets have the same margins.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float

from jaxdesign import _arrays, _checks
from jaxdesign._scoring import scored_pool, scored_where_it_lies
from jaxdesign.belief import Belief, check_dim, held_belief, precision_of
from jaxdesign.pool import CompletionPool
from jaxdesign.pricing.scores import has_scores, with_scores
from jaxdesign.pricing.widened import in_dtype


def believed(pool: Any, prior: Any) -> tuple[Any, Any]:
    """Pool and prior as designs take them: what every function does first that has both.

    Of a belief the prior is its precision, and a pool or source without scores gets phi . m where the belief has a
    mean. All else is given back as it is.

    Raises:
        ValueError: a belief about another number of parameters; one with a mean and a source that cannot be given
            scores; scores beyond float32.
        TypeError: a source and a belief that is traced.
    """
    belief = held_belief(prior)
    if belief is None or not hasattr(pool, "dim"):  # what is no pool is refused elsewhere
        return pool, prior
    if isinstance(pool, CompletionPool):
        return _scored_in_memory(pool, belief), precision_of(belief, pool.dim)
    return _scored_source(pool, belief), precision_of(belief, pool.dim)


def _scored_in_memory(pool: CompletionPool, belief: Belief) -> CompletionPool:
    if pool.scores is not None:
        return pool
    check_dim(belief, pool.dim)
    if _arrays.is_traced(pool, belief) or _arrays.over_prompts(pool.features) is not None:
        return scored_where_it_lies(pool, jnp.asarray(belief.mean))
    return scored_pool(pool, belief.mean) if np.any(belief.mean) else pool


def _scored_source(source: Any, belief: Belief) -> Any:
    check_dim(belief, source.dim)
    _checks.concrete("Belief", belief, name="prior")
    if has_scores(source) or not np.any(belief.mean):
        return source
    return with_scores(source, completion_scores(source, np.asarray(belief.mean)))


def completion_scores(source: Any, parameter: Float[np.ndarray, " d"]) -> Float[np.ndarray, "p k"]:
    """phi . w of every completion of a source, less a constant of each prompt near the mean; 0 where there is none.

    Args:
        source: a `Source`.
        parameter: w, (d,).

    Returns:
        (P, K) float32 NumPy, from products in float64, by one pass.

    Raises:
        ValueError: scores that float32 cannot hold.

    Source: derived; checked by tests/pricing/test_believed_sources.py.
    """
    with _arrays.float64():
        kernel = Partial(_dotted, jnp.asarray(parameter, jnp.float64))
        found = _arrays.on_host(in_dtype(source, np.float64).fold(kernel, None)[1])
    with np.errstate(over="ignore"):
        scores = found.astype(np.float32)
    _checks.finite(scores, "phi . prior.mean", None, ("prompt", "completion"))
    return scores


def _dotted(parameter, chunk, carry, _):
    return carry, _arrays.contract("pkd,d->pk", chunk.rows, parameter.astype(chunk.rows.dtype))
