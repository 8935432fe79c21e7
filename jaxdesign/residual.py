"""What the features do not explain of a margin, and the label information that is left.

A margin is m_e + delta_e, delta_e ~ N(0, s_e) of the pair's own: no parameter explains it, and every label of the pair
meets the same one. Integrated over, a label says i with a probability of nearly sigma(m_e / k_e), where k_e^2 = 1 + pi
s_e / 8 (the probit approximation, off by at most 0.019), and its Fisher information about m_e is sigma'(m_e / k_e) /
k_e^2, at m_e = 0 that is 1 / (4 + (pi / 2) s_e). Variances are quadratic forms of the pair's difference, s_e = z_e^T V
z_e, and so kept as one row a completion: s_e = |y_i - y_j|^2, y = phi F, F F^T = V.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign._centring import centred
from jaxdesign._linalg import gram_sensitivities

SLOPE = np.pi / 8  # k^2 = 1 + SLOPE s
# rounding of |y_i - y_j|^2 over eps sqrt(r + 16) max |y|^2: four times `passes.ERROR_MARGIN`, which is of a quarter
FORM_ERROR = 8.0


class Residual(NamedTuple):
    """Variances of margins that shrink what a label is worth: factors (d, r) of them, or the rows (P, K, r) of a pool.

    With s_e = |z_e noise|^2, t_e = |z_e belief|^2, l_e = |z_e cap|^2, k^2 = 1 + (pi / 8)(s_e + t_e) and
    k_s^2 = 1 + (pi / 8) s_e, the information of a label about its margin m is

        c_e = sigma'(m / k) / (k_s k) min(1, 1 / l_e),

    and where labels are reversed with probability eps, that of `margin_information(m / k, eps)` in place of sigma'. It
    is the mean over the belief of what is left by the noise: E sigma'(u / k_s) / k_s^2 for u ~ N(m, t_e), by the same
    approximation. `residual_of` makes one from a pool; `CompletionPool(..., residual=...)` takes it, and says what
    cannot be one. Probabilities that are predicted of labels shrink too: sigma(m / k).

    Args:
        noise: of a variance that belongs to the pair: F with F F^T = V, in units of margins per unit of features. None:
            none. Repeated labels of a pair carry less than their sum, so one label a pair is required with it.
        belief: F with F F^T = S, the covariance of the parameter that margins come from, where its mean gives the
            scores: information is then averaged over it. None: the parameter is known.
        cap: F with |z F|^2 = l_e: no pair longer than 1 counts for more than one of length 1 (bounded influence); one
            label a pair, as with noise. None: no cap.

    Source: the probit approximation of the logistic-normal integral (MacKay 1992, doi:10.1162/neco.1992.4.5.720), the
    rest derived; checked by tests/test_residual.py against quadrature.
    """

    noise: Float[_arrays.AnyArray, "*d r"] | None = None
    belief: Float[_arrays.AnyArray, "*d q"] | None = None
    cap: Float[_arrays.AnyArray, "*d s"] | None = None

    @property
    def one_label(self) -> bool:
        """Whether a pair may have one label only."""
        return self.noise is not None or self.cap is not None


class Shrinkage(NamedTuple):
    """What becomes of margins and of information: c = c(m / shrink) scale, c(m) that of a label without a residual."""

    shrink: Float[Array, "*p"]
    scale: Float[Array, "*p"]


Spread = Residual | Shrinkage  # rows of completions, or worked out for all pairs (P, K, K)


def checked_residual(value: Any, dim: int, shape: tuple[int, int] | None) -> Residual | None:
    """A residual of factors (d, r), or of rows (P, K, r) for a pool of that shape; None where it says nothing.

    Raises:
        TypeError: something else. ValueError: another shape, NaN or inf (outside of jit).
    """
    if value is None:
        return None
    if not isinstance(value, Residual):
        raise TypeError(f"residual: expected jaxdesign.Residual, found {type(value).__name__}; residual_of makes one")
    found = {}
    for name, part in value._asdict().items():
        if part is None:
            continue
        part = _checks.as_float_array(part, f"residual.{name}")
        if part.ndim == 3 and shape is not None:
            _checks.same_shape(part.shape[:2], shape, f"residual.{name}", "(prompts, completions), as in features")
        else:
            _checks.rank(part, (2,), f"residual.{name}", "(d, r): a factor of the variance")
            _checks.same_shape(part.shape[:1], (dim,), f"residual.{name}", "rows, one per feature dimension")
        if not _arrays.is_traced(part):
            _check_finite(part, f"residual.{name}")
        found[name] = part
    return Residual(**found) if found else None


def _check_finite(part, name):
    """Of what is on the host in its own dtype: a float64 factor may be beyond float32 where features are tiny."""
    bad = ~(np if isinstance(part, np.ndarray) else jnp).isfinite(part)
    if bool(bad.any()):
        index = tuple(int(k) for k in np.argwhere(_arrays.on_host(bad))[0])
        raise ValueError(f"{name}: {np.asarray(part[index])!s} at {index}; must be finite")


def check_one_label(residual: Spread | None, per_pair: Any, name: str) -> None:
    """ValueError where a residual belongs to pairs and more than one label of a pair is allowed; `name`: of the cap."""
    if not isinstance(residual, Residual) or not residual.one_label or _arrays.is_traced(per_pair):
        return
    if per_pair is None or np.max(per_pair) > 1:
        found = None if per_pair is None else f"{np.max(per_pair):g}"
        raise ValueError(
            f"{name}={found}: the pool has a residual, which all labels of a pair share, so repeats carry less than "
            f"their sum and no allocation of them is priced; use {name}=1"
        )


def check_held(residual: Spread | None, pairs: Int[_arrays.AnyArray, "s 3"], labels: Any) -> None:
    """ValueError where labels that are held repeat pairs whose residual they share; not of traced ones."""
    if not isinstance(residual, Residual) or not residual.one_label or _arrays.is_traced(pairs, labels):
        return
    once, which = np.unique(pairs, axis=0, return_inverse=True)
    counts = np.bincount(which, weights=labels, minlength=len(once))
    if len(once) and counts.max() > 1:
        p, i, j = once[np.argmax(counts)]
        raise ValueError(
            f"labels: {counts.max():g} of the pair ({p}, {i}, {j}) found; the pool has a residual, which all labels of "
            "a pair share, so repeats carry less than their sum; count each pair once"
        )


def residual_rows(residual: Residual | None, features: Array, mask: Bool[Array, "p k"]) -> Residual | None:
    """Factors as rows y = (phi - prompt mean) F of the completions; rows stay what they are.

    Products in float64, or where arrays are traced in the default precision, stored as float32 (float64 for float64
    features): pairs have the variances of the stored rows, to the last bit.
    """
    if residual is None:
        return None
    return Residual(*(None if part is None else _rows(part, features, mask) for part in residual))


def check_rows(residual: Spread | None, first: int = 0) -> None:
    """ValueError where variances of margins leave the range of numbers; `first`: number of the first prompt.

    Of rows that are there, not of traced ones.
    """
    for name, rows in residual._asdict().items() if isinstance(residual, Residual) else ():
        if rows is None or _arrays.is_traced(rows):
            continue
        most = float(jnp.finfo(rows.dtype).max) ** 0.5 / 16  # of |y|, so that sums of squares are finite
        largest = jnp.max(jnp.abs(rows), axis=(1, 2)) * rows.shape[-1] ** 0.5
        fine = largest < most
        if not bool(jnp.all(fine)):
            p = int(np.argmin(_arrays.on_host(fine)))
            raise ValueError(
                f"residual.{name}: variances of prompt {p + first} are beyond {rows.dtype}; pass a smaller variance, "
                'or "cap", and look at completions with very large features (`clip_rows`)'
            )


def _rows(part, features, mask):
    dtype = _arrays.compute_dtype(features.dtype)
    if part.ndim == 3:
        return jnp.where(mask[..., None], jnp.asarray(part).astype(_arrays.compute_dtype(part.dtype)), 0)
    if _arrays.is_traced(features, mask, part):
        return factor_rows(features, mask, jnp.asarray(part), dtype=dtype)
    with _arrays.float64():
        given = _arrays.for_algebra((features, mask))
        rows = factor_rows(*given, jnp.asarray(np.asarray(part, np.float64)), dtype=dtype)
    return _arrays.from_algebra(rows, features)


@jax.jit(static_argnames="dtype")
def factor_rows(
    features: Float[Array, "p k d"], mask: Bool[Array, "p k"], factor: Float[Array, "d r"], *, dtype: Any
) -> Float[Array, "p k r"]:
    """(phi - prompt mean) F, in the dtype of the factor (at least float32), then rounded to `dtype`."""

    def chunk(part):
        rows, exists = part
        rows = centred(rows.astype(_arrays.compute_dtype(factor.dtype)), exists)
        return _arrays.contract("pkd,dr->pkr", rows, factor.astype(rows.dtype)).astype(dtype)

    return _arrays.map_chunks(chunk, (features, mask), _arrays.chunk_length(*features.shape))


def shrinkage(spread: Spread, dtype: Any) -> Shrinkage:
    """Of all pairs (P, K, K) of completions with such rows; 1 and 1 where two completions are the same."""
    if isinstance(spread, Shrinkage):
        return Shrinkage(*(a.astype(dtype) for a in spread))
    return _shrinkage(*(None if rows is None else _forms(rows, dtype) for rows in spread))


def listed_shrinkage(spread: Spread, pairs: Int[Array, "s 3"], dtype: Any) -> Shrinkage:
    """Of listed pairs (p, i, j)."""
    p, i, j = pairs.T
    if isinstance(spread, Shrinkage):
        return Shrinkage(*(a[p, i, j].astype(dtype) for a in spread))

    def form(rows):
        rows = rows.astype(np.promote_types(rows.dtype, dtype))
        return jnp.sum((rows[p, i] - rows[p, j]) ** 2, axis=-1).astype(dtype)

    return _shrinkage(*(None if rows is None else form(rows) for rows in spread))


def _forms(rows, dtype):
    """|y_i - y_j|^2 of all pairs, nothing below 0."""
    rows = rows.astype(dtype)
    return jnp.maximum(gram_sensitivities(rows, rows), 0)


def _shrinkage(noise, belief, cap) -> Shrinkage:
    """From the forms s, t and l; where there is nothing else, sigma'(m) min(1, 1 / l)."""
    own = 1 if noise is None else 1 + SLOPE * noise
    both = own if belief is None else own + SLOPE * belief
    shrink = jnp.sqrt(both) if noise is not None or belief is not None else jnp.ones_like(cap)
    scale = 1 / shrink if noise is None else 1 / (shrink * jnp.sqrt(own))
    return Shrinkage(shrink, scale if cap is None else scale / jnp.maximum(cap, 1))


def shrinkage_error(spread: Spread | None, dtype: Any) -> Float[Array, "c k k"] | None:
    """A bound on the rounding error of c that comes from the forms, over (1 - 2 eps)^2, for all pairs of a chunk.

    With f the information of a label of its shrunk margin x = m / k, c = f(x) / (k_s k) min(1, 1 / l). f is at most
    (1 - 2 eps)^2 / 4 and |x f'(x)| / 2 at most 0.16 (1 - 2 eps)^2, which counters what 1 / (k_s k) does, so that

        |dc / ds| <= (1 - 2 eps)^2 / 4 (pi / 8) / (k_s^3 k),   |dc / dt| <= (1 - 2 eps)^2 / 4 (pi / 8) / (k_s k^3),

    and 1 / max(l, 1) changes by at most 1 / max(l, 1)^2 a unit of l. Each is taken at the least forms that rounding
    allows. Forms are off by FORM_ERROR eps sqrt(r + 16) max |y|^2 of the prompt; roots, quotients and sigma' add less
    than eps / (k_s k). None: there is no residual.
    """
    if spread is None:
        return None
    eps = float(jnp.finfo(dtype).eps)
    if isinstance(spread, Shrinkage):  # worked out before: only what follows is rounded
        return eps * spread.scale.astype(dtype)
    noise, belief, cap = (_least_form(rows, dtype) for rows in spread)
    own = 1 + SLOPE * noise.form
    both = own + SLOPE * belief.form
    share = 1 / jnp.maximum(cap.form, 1)
    moved = eps + SLOPE / 4 * (noise.error / own + belief.error / both)
    return jnp.minimum((moved * share + cap.error / 4 * share**2) / jnp.sqrt(own * both), 0.25)


class _Least(NamedTuple):
    """The least that forms can be, and their rounding error."""

    form: Float[Array, "c k k"]
    error: Float[Array, "c 1 1"]


def _least_form(rows, dtype) -> _Least:
    if rows is None:
        return _Least(jnp.zeros((1, 1, 1), dtype), jnp.zeros((1, 1, 1), dtype))
    rows, kind = rows.astype(dtype), jnp.finfo(dtype)
    largest = jnp.max(jnp.sum(rows * rows, axis=-1), axis=-1)[:, None, None]
    error = FORM_ERROR * float(kind.eps) * (rows.shape[-1] + 16) ** 0.5 * largest + float(kind.tiny)
    return _Least(jnp.maximum(_forms(rows, dtype) - error, 0), error)
