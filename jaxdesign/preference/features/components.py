"""Principal components of what completions of a prompt differ in: few features that say most of it, in one unit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray
from jaxdesign._centring import centred

ROOM = 2**24  # numbers that are centred at a time


class Components(NamedTuple):
    """What `principal_components` found.

    Args:
        basis: (D, d) orthonormal directions, of the largest variance first.
        unit: the standard deviation that a component has on average; rows are divided by it.
        share: of the variance within prompts that the components hold.
    """

    basis: Float[np.ndarray, "D d"]
    unit: float
    share: float

    def rows(self, features: Float[AnyArray, "p k D"], mask: Bool[AnyArray, "p k"] | None = None):
        """(P, K, d) float32: features less the mean of their prompt, in the components; of any prompts."""
        features, mask = _checked(features, mask)
        if features.shape[2] != len(self.basis):
            raise ValueError(f"features: {features.shape[2]} columns found; the components are of {len(self.basis)}")
        parts = [(rows @ self.basis / self.unit).astype(np.float32) for rows in _centred(features, mask)]
        return np.concatenate(parts)


def principal_components(
    features: Float[AnyArray, "p k D"], number: int, *, mask: Bool[AnyArray, "p k"] | None = None
) -> Components:
    """The leading eigenvectors of sum_pk (phi_pk - mean_p)(phi_pk - mean_p)^T, and rows in them of mean variance 1.

    Hidden states and gradients have more columns than labels can tell about, and columns of unlike units. In their
    components a ridge has one meaning (each holds rewards of variance 1 / ridge on average), and designs cost d^2, not
    D^2. Find them on the training prompts; use them there and on all others.

    Args:
        features: (P, K, D) of any floating dtype; repeats count as often as they were drawn.
        number: d, at most D.
        mask: (P, K) True where the completion exists; None for all.

    Returns:
        Components; `.rows(features, mask)` are the features of a pool.

    Raises:
        ValueError: other shapes, values that are not finite, more components than columns, or than the completions
            differ in.

    Numerics: moments, eigenvectors and rows in float64, some 130 MB of rows at a time.
    Complexity: P K D^2 + D^3, then P K D d.
    Source: derived (principal component analysis within prompts); checked by
    tests/preference/features/test_components.py.
    """
    features, mask = _checked(features, mask)
    number = _checks.whole_number(number, "number", 1)
    columns = features.shape[2]
    if number > columns:
        raise ValueError(f"number={number}: the features have {columns} columns")
    moment = np.zeros((columns, columns))
    for rows in _centred(features, mask):
        moment += np.einsum("pkd,pke->de", rows, rows, optimize=True)
    values, vectors = np.linalg.eigh(moment)
    values, vectors = values[::-1], vectors[:, ::-1]
    if not values[number - 1] > columns * np.finfo(np.float64).eps * values[0]:
        rank = int(np.sum(values > columns * np.finfo(np.float64).eps * values[0]))
        raise ValueError(f"number={number}: completions of a prompt differ in {rank} directions only; take no more")
    unit = np.sqrt(values[:number].mean() / mask.sum())
    return Components(vectors[:, :number], float(unit), float(values[:number].sum() / values.sum()))


def _checked(features: Any, mask: Any) -> tuple[np.ndarray, np.ndarray]:
    features = np.asarray(features)
    if features.ndim != 3:
        raise ValueError(f"features: shape {features.shape} found; expected (prompts, completions, columns)")
    mask = np.ones(features.shape[:2], bool) if mask is None else np.asarray(mask, bool)
    _checks.same_shape(mask.shape, features.shape[:2], "mask", "(prompts, completions) of the features")
    _checks.finite(features, "features", mask[..., None], ("prompt", "completion", "column"))
    return features, mask


def _centred(features: np.ndarray, mask: np.ndarray) -> Iterator[np.ndarray]:
    """Rows less their prompt's mean, 0 where there is none; some prompts at a time."""
    each = max(1, ROOM // max(1, features[0].size)) if len(features) else 1
    for start in range(0, len(features), each):
        part = slice(start, start + each)
        with _arrays.float64():  # not around the yield: it would hold for the caller
            rows = np.asarray(centred(jnp.asarray(features[part], jnp.float64), jnp.asarray(mask[part])))
        yield rows
