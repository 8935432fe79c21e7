"""The competitors: D-optimal design on materialised pairs in NumPy, and the pair-by-pair form of pricing in JAX.

They are written to be hard to beat. Pairs are stored in float32 and every pass over them is one BLAS call; the d x d
algebra is float64; pairs that Harman and Pronzato's bound excludes from every optimal design are discarded as soon as
that pays. Problem: maximise log det M(w), M(w) = sum_i w_i z_i z_i^T, over w >= 0, sum w = 1, with no prior and no caps.
Certificate: det(M(w) M*^-1)^(1/d) >= d / g_max, g_i = z_i^T M^-1 z_i (Kiefer-Wolfowitz), from the weights afresh.
"""

import time
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

CHUNK = 8192  # rows a block: large enough for BLAS, small enough to stay in cache between scoring and assembly
REFRESH = 256  # rank-one steps between two refactorisations: a refresh costs about ten steps
FLUSH = 1e-30  # multiplicative weights below this become zero: float32 denormals are slow, and such pairs never return


class PeerResult(NamedTuple):
    """What a competitor returns; `efficiency` and `log_det` are recomputed in float64 from `weights` over all pairs."""

    weights: np.ndarray  # (N,) float64, sums to one
    efficiency: float  # certified d / g_max
    log_det: float  # of M(weights)
    steps: int  # Frank-Wolfe steps, or multiplicative passes
    seconds: float  # initialisation and solve, up to the moment the certificate was known
    trace: list  # (seconds, efficiency) at each refresh or pass


def frank_wolfe_away(Z, tol=1e-3, max_steps=1_000_000, *, time_limit=float("inf")):
    """D-optimal design by Frank-Wolfe with away steps and exact line search, one product Z v a step.

    Vertex step (i = argmax g) or away step (i = argmin g on the support), whichever of g_max - d and d - g_min is
    larger; step a = (g_i/d - 1)/(g_i - 1), floored at -w_i/(1 - w_i) for away steps. For g_i <= 1 an away step raises
    log det all the way to the floor, while the formula changes sign there, so the pair is dropped at once (accbpg gets
    this wrong). Then M <- (1-a) M + a z z^T and, with v = M^-1 z and c = a/(1 - a + a g_i),
    g_j <- (g_j - c (z_j^T v)^2)/(1-a) for all pairs. All g and M^-1 are recomputed every 256 steps.

    Args:
      Z: (N, d) pairs, float32 (fastest) or float64; its dtype is that of the sensitivities. Rank must be d.
      tol: stop at certified efficiency d/g_max >= 1 - tol. Below about 1e-5 pass Z in float64.
      max_steps, time_limit: stop there with the best refreshed weights; seconds, counted from the initialisation (the
        copy of Z into column-major order, which the products want, is not counted).

    Returns: PeerResult.
    Raises: ValueError if Z is not a float matrix, or its rank is below d.
    Complexity: 2 N d flops and one read of Z a step; 2 N d^2 flops a refresh.
    Source: Khachiyan 1996; Kumar & Yildirim 2005; Todd & Yildirim 2007 (away steps); Harman & Pronzato 2007 (discard).
    """
    _check_pairs(Z)
    pairs = np.asfortranarray(Z)
    d = pairs.shape[1]
    start = time.perf_counter()
    support = _Support.uniform(len(pairs), _spanning_rows(pairs))
    rows, kept = np.arange(len(pairs)), pairs
    trace, best, scores, stale = [], (0.0, None), None, True
    step = 0
    while True:
        if stale or step % REFRESH == 0:
            inverse = np.linalg.inv(_information(kept[support.rows], support.weights))
            scores = _Scores(kept, inverse, None if scores is None else scores.scratch)
            efficiency = float(d / scores.values.max())
            trace.append((time.perf_counter() - start, efficiency))
            if efficiency > best[0]:
                best = (efficiency, support.scatter(rows, len(pairs)))
            if efficiency >= 1 - tol:
                result = _finish(pairs, best[1], step, start, trace)
                if result.efficiency >= 1 - tol:
                    return result
                # A discarded pair still violates (not met in practice): go on with all pairs.
                support, rows, kept = _Support.of_weights(best[1]), np.arange(len(pairs)), pairs
                scores = _Scores(kept, inverse, None)
            elif step >= max_steps or trace[-1][0] >= time_limit:
                return _finish(pairs, best[1], step, start, trace)
            else:
                keep = _possible_support(scores.values, d)
                keep[support.rows] = True
                if 3 * np.count_nonzero(keep) < 2 * len(kept):
                    rows, kept = rows[keep], np.asfortranarray(kept[keep])
                    support.renumber(np.cumsum(keep) - 1, len(kept))
                    scores = _Scores(kept, inverse, None)
            stale = False
        i, slot, alpha = _away_or_vertex(scores, support, d)
        z = kept[i].astype(np.float64)
        v = inverse @ z
        leverage = float(z @ v)
        if slot < 0:
            alpha = (leverage / d - 1) / (leverage - 1)
        elif leverage > 1:
            alpha = max(alpha, (leverage / d - 1) / (leverage - 1))
        c = alpha / (1 - alpha + alpha * leverage)
        inverse -= np.outer(c * v, v)
        inverse /= 1 - alpha
        scores.rank_one(kept, v, c, alpha)
        support.move(i, slot, alpha)
        step += 1
        # The running maximum ends the solve only through a refresh, which decides.
        stale = scores.maximum() * (1 - tol) <= d or step >= max_steps or time.perf_counter() - start >= time_limit


def _away_or_vertex(scores, support, d):
    """The pair to move: (row, slot in the support or -1 for a vertex step, floor of the step)."""
    i = scores.argmax()
    on_support = scores.values[support.rows]
    slot = int(on_support.argmin())
    if scores.scale * float(scores.values[i]) - d >= d - scores.scale * float(on_support[slot]):
        return i, -1, 0.0
    weight = support.weights[slot]
    return int(support.rows[slot]), slot, -weight / (1 - weight)


class _Scores:
    """Sensitivities g = scale * values of the kept pairs, refreshed by rank-one updates.

    The common factor 1/(1-a) goes to `scale` and the factor c into v, which leaves one product and two sweeps a step.
    """

    def __init__(self, kept, inverse, scratch):
        self.values = _sensitivities(kept, inverse)
        self.scale = 1.0
        self.scratch = np.empty_like(self.values) if scratch is None else scratch

    def argmax(self):
        return int(self.values.argmax())

    def maximum(self):
        return self.scale * float(self.values.max())

    def rank_one(self, kept, v, c, alpha):
        np.dot(kept, (v * np.sqrt(abs(c) / self.scale)).astype(kept.dtype), out=self.scratch)
        np.multiply(self.scratch, self.scratch, out=self.scratch)
        (np.subtract if c > 0 else np.add)(self.values, self.scratch, out=self.values)
        self.scale /= 1 - alpha


class _Support:
    """The pairs with positive weight: rows among the kept pairs, and their weights."""

    def __init__(self, rows, weights, total):
        self.rows, self.weights = rows, weights
        self.slot_of = np.full(total, -1, np.int64)
        self.slot_of[rows] = np.arange(len(rows))

    @classmethod
    def uniform(cls, total, rows):
        return cls(rows, np.full(len(rows), 1 / len(rows)), total)

    @classmethod
    def of_weights(cls, weights):
        rows = np.flatnonzero(weights)
        return cls(rows, weights[rows], len(weights))

    def move(self, row, slot, alpha):
        """w <- (1 - alpha) w + alpha e_row; a pair that reaches its floor leaves, a new one enters."""
        self.weights *= 1 - alpha
        slot = int(self.slot_of[row]) if slot < 0 else slot
        if slot < 0:
            self.slot_of[row] = len(self.rows)
            self.rows, self.weights = np.append(self.rows, row), np.append(self.weights, alpha)
            return
        self.weights[slot] += alpha
        if self.weights[slot] <= 1e-14:
            last = len(self.rows) - 1
            self.slot_of[self.rows[last]], self.slot_of[row] = slot, -1
            self.rows[slot], self.weights[slot] = self.rows[last], self.weights[last]
            self.rows, self.weights = self.rows[:last], self.weights[:last]

    def renumber(self, new_row, total):
        self.__init__(new_row[self.rows], self.weights, total)

    def scatter(self, rows, total):
        weights = np.zeros(total)
        weights[rows[self.rows]] = self.weights / self.weights.sum()
        return weights
