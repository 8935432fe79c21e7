"""Where lower bounds start from, so that no rounding of A^-1 can make them false.

Let F be any matrix, M = F F^T, t = tr(M prior), and S a bound on the linear oracle at M, so that
tr(M A(n')) = t + sum_e c_e |z_e F|^2 n'_e <= t + S for every allowed n'. Then for all n'

    LogDet   -log det A(n') >= log det M - d log((t + S) / d)      log det(M A) <= d log(tr(M A) / d)
    Trace    tr(K K^T A(n')^-1) >= tr(F^T K)^2 / (t + S)           tr(X^T K)^2 <= tr(X^T A X) tr(K^T A^-1 K)

whatever F is: F = L^-T or A^-1 K, as computed, need not be accurate, only known exactly, which what is stored in
float64 is. The first factors of the right-hand sides are the criterion's `anchor`; at exact F they are its value (for
Trace its square over the value). What is left to count is the rounding of t, S and the anchor, a few units in the last
place times sums of absolute values, and that of the value itself, for which see `analysis.value_rounding`. For other
criteria the bound is that of convexity, f(A') >= f(A) - tr(G (A' - A)), and rests on G as computed.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp


def sum_rounding(terms: Any, length: int) -> Any:
    """Bound on the rounding error of the mean over draws of sums of these terms, each computed with `length` sums."""
    terms = jnp.asarray(terms)
    share = (length + 8) * jnp.finfo(terms.dtype).eps
    return share * jnp.sum(jnp.abs(terms)) / (terms.shape[0] if terms.ndim == 3 else 1)
