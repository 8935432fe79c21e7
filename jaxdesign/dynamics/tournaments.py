"""Who beats whom among K answers: Condorcet winner, Smith set, Borda scores, cyclic part, strong transitivity.

P_ij is the probability that i is preferred to j, P_ij + P_ji = 1; i beats j where P_ij > P_ji, and 1/2 is a tie. All
but `transitivity_violations` are traceable and take leading axes (draws, prompts): the same lines serve NumPy and JAX.
"""

from __future__ import annotations

from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign._arrays import AnyArray
from jaxdesign.dynamics.preferences import as_preferences


class TransitivityViolations(NamedTuple):
    """What `transitivity_violations` found, per matrix.

    Args:
        triples: sets of three answers in which some order violates strong transitivity.
        judged: sets of three answers whose three pairs are all observed, so that they could be judged.
        largest: the largest max(P_ij, P_jk) - P_ik among the violations; 0 where there is none.
    """

    triples: Int[np.ndarray, "*n"]
    judged: Int[np.ndarray, "*n"]
    largest: Float[np.ndarray, "*n"]


def condorcet_winner(preferences: Any) -> Bool[AnyArray, "*n k"]:
    """Which answer beats every other: P_ij > P_ji for all j. At most one does; none where all are False.

    Args:
        preferences: P (..., K, K) with P_ij + P_ji = 1; the diagonal is ignored.

    Returns:
        (..., K) booleans; NumPy unless traced.

    Raises:
        ValueError: no square matrices, values outside of [0, 1], P_ij + P_ji that is not 1 within 1e-6.

    Source: the definition; checked by tests/dynamics/test_tournaments.py.
    """
    net = _net_wins(as_preferences(preferences))
    return net == net.shape[-1] - 1


def smith_set(preferences: Any) -> Bool[AnyArray, "*n k"]:
    """The smallest nonempty set of answers each of which beats every answer outside of it.

    With net wins d_i = #{j: P_ij > P_ji} - #{j: P_ij < P_ji}, a set of k answers beats all others exactly where its d
    sum to k (K - k): within the set they cancel, and a pair across counts 1 at most. Its members have d above all
    others', so it is the k answers of largest d, for the first k where that sum is reached. Ties are exact.

    Args:
        preferences: P (..., K, K) with P_ij + P_ji = 1; the diagonal is ignored.

    Returns:
        (..., K) booleans; NumPy unless traced. With a Condorcet winner it is the only member.

    Raises:
        ValueError: no square matrices, values outside of [0, 1], P_ij + P_ji that is not 1 within 1e-6.

    Complexity: O(K^2) a matrix: 8,000 matrices of K = 64 are quick.

    Source: Smith 1973, doi:10.2307/1914033; the sum of net wins is derived; checked by
    tests/dynamics/test_tournaments.py.
    """
    preferences = as_preferences(preferences)
    xp = preferences.__array_namespace__()
    net = _net_wins(preferences)
    size = net.shape[-1]
    ranked = -xp.sort(-net, axis=-1)
    first = np.arange(1, size + 1, dtype=net.dtype)
    reached = xp.cumsum(ranked, axis=-1) == (first * (size - first)).reshape(*[1] * (net.ndim - 1), size)
    last = xp.argmax(reached, axis=-1)[..., None]  # k = K always reaches 0
    return net >= xp.take_along_axis(ranked, last, axis=-1)


def borda_scores(preferences: Any) -> Float[AnyArray, "*n k"]:
    """s = (P - 1/2) 1 / K: by how much an answer wins more than half against all, itself included as a tie.

    Args:
        preferences: P (..., K, K) with P_ij + P_ji = 1; the diagonal is ignored.

    Returns:
        s (..., K), summing to 0; NumPy unless traced, float32 where the input was.

    Raises:
        ValueError: no square matrices, values outside of [0, 1], P_ij + P_ji that is not 1 within 1e-6.

    Source: the gradient part of HodgeRank, doi:10.1007/s10107-010-0419-x; checked by
    tests/dynamics/test_tournaments.py.
    """
    return (as_preferences(preferences) - 0.5).mean(axis=-1)


def cyclic_part(preferences: Any) -> Float[AnyArray, "*n k k"]:
    """A_c = C A C = A_ij - (s_i - s_j) with A = P - 1/2, C = I - 11^T/K and the Borda scores s: what no score explains.

    Args:
        preferences: P (..., K, K) with P_ij + P_ji = 1; the diagonal is ignored.

    Returns:
        A_c (..., K, K), antisymmetric with rows that sum to 0; 0 exactly where P is additive, P_ij = 1/2 + s_i - s_j.

    Raises:
        ValueError: no square matrices, values outside of [0, 1], P_ij + P_ji that is not 1 within 1e-6.

    Source: HodgeRank, doi:10.1007/s10107-010-0419-x; checked by tests/dynamics/test_tournaments.py.
    """
    preferences = as_preferences(preferences)
    scores = borda_scores(preferences)
    return preferences - 0.5 - (scores[..., :, None] - scores[..., None, :])


def transitivity_violations(preferences: Any, observed: Any = None) -> TransitivityViolations:
    """Triples that violate strong stochastic transitivity: P_ij, P_jk >= 1/2 imply P_ik >= max(P_ij, P_jk).

    A set of three answers counts once, whatever number of its six orders (i, j, k) violate the law. Frequencies of few
    labels violate it by chance: the count describes a matrix, it is no test.

    Args:
        preferences: P (..., K, K) with P_ij + P_ji = 1, concrete.
        observed: (..., K, K) which pairs count, None: all. A triple with a pair that does not count is not judged.

    Returns:
        TransitivityViolations, NumPy.

    Raises:
        TypeError: traced input.
        ValueError: as `smith_set`, or another shape of `observed`.

    Complexity: O(K^3) a matrix, in O(K^2) memory.

    Source: the definition; checked by tests/dynamics/test_tournaments.py.
    """
    if _arrays.is_traced(preferences, observed):
        raise TypeError("preferences: is traced; transitivity_violations runs on the host; call it outside of jit")
    given = as_preferences(preferences)
    seen = np.ones(given.shape, bool) if observed is None else np.asarray(observed, bool)
    _checks.same_shape(seen.shape, given.shape, "observed", "that of preferences")
    lead, size = given.shape[:-2], given.shape[-1]
    triples, judged, largest = np.zeros(lead, int), np.zeros(lead, int), np.zeros(lead)
    for a in range(size - 2):  # the sets {a, b, c} with a < b < c
        rest, seen_rest = given[..., a + 1 :, a + 1 :], seen[..., a + 1 :, a + 1 :]
        ab, ac = given[..., a, a + 1 :, None], given[..., a, None, a + 1 :]
        ba, ca = given[..., a + 1 :, a, None], given[..., None, a + 1 :, a]
        bc, cb = rest, np.swapaxes(rest, -1, -2)
        orders = ((ab, bc, ac), (ac, cb, ab), (ba, ac, bc), (bc, ca, ba), (ca, ab, cb), (cb, ba, ca))
        excess = reduce(np.maximum, (_excess(*order) for order in orders))
        counted = np.triu(seen[..., a, a + 1 :, None] & seen[..., a, None, a + 1 :] & seen_rest, 1)
        judged += counted.sum(axis=(-1, -2))
        triples += (counted & (excess > 0)).sum(axis=(-1, -2))
        largest = np.maximum(largest, np.where(counted, excess, 0).max(axis=(-1, -2)))
    return TransitivityViolations(triples, judged, np.asarray(largest))


def _excess(first, second, direct):
    """max(P_ij, P_jk) - P_ik where P_ij and P_jk are at least 1/2; 0 elsewhere, and where the law holds."""
    applies = (first >= 0.5) & (second >= 0.5)
    return np.where(applies, np.maximum(np.maximum(first, second) - direct, 0), 0)


def _net_wins(preferences):
    """Answers that each beats, less those that beat it: exact whatever rounding does to P_ij + P_ji = 1."""
    mirrored = preferences.swapaxes(-1, -2)
    return (preferences > mirrored).sum(axis=-1) - (preferences < mirrored).sum(axis=-1)
