"""The competitors: D-optimal design on materialised pairs in NumPy, and the pair-by-pair form of pricing in JAX.

They are written to be hard to beat: pairs may be stored in float32, every pass over them is one BLAS call, the d x d
algebra is float64, and pairs that no optimal design can hold are discarded for good as soon as that pays.

The problem is to maximise log det M(w), M(w) = sum_i w_i z_i z_i^T, over w >= 0 with sum w = 1; no prior, no caps. With
sensitivities g_i = z_i^T M^-1 z_i, det(M(w) M*^-1)^(1/d) >= d / g_max, the certified efficiency (Kiefer-Wolfowitz).
"""

import time
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

CHUNK = 8192  # rows a block: large enough for BLAS, small enough to stay in cache between scoring and assembly
REFRESH = 256  # rank-one steps between two refactorisations; a refresh costs about as much as ten steps
DROPPED = 1e-14  # weight left by the rounding of a step to the floor
RANK_FLOOR = 1e-10  # squared length, relative to the largest, below which float32 pairs add no dimension
NEVER = 1e-30  # multiplicative weights below this become zero: float32 denormals are slow, and the pair is lost anyway


class PeerResult(NamedTuple):
    """What a competitor returns. `efficiency` and `log_det` are computed afresh from `weights` and all pairs."""

    weights: np.ndarray  # (N,) float64, sums to one
    efficiency: float  # certified, d / g_max
    log_det: float  # of M(weights)
    steps: int  # Frank-Wolfe steps, or multiplicative passes
    seconds: float  # from the start of the initialisation until the final certificate was known
    trace: list[tuple[float, float]]  # (seconds, efficiency) at each refresh or pass


def frank_wolfe_away(Z, tol=1e-3, max_steps=10_000_000, *, time_limit=float("inf"), discard_from=1 / 3):
    """D-optimal design by Frank-Wolfe with away steps and exact line search: one product Z v a step.

    A step moves i = argmax g (vertex) or i = argmin g on the support (away), whichever of g_max - d and d - g_min is
    larger, by a = (g_i/d - 1)/(g_i - 1), floored at -w_i/(1 - w_i). For g_i <= 1 an away step improves log det all the
    way to the floor while this formula changes sign, so the pair is dropped at once (accbpg has the wrong sign there).
    Then w <- (1-a) w + a e_i and, with v = M^-1 z_i and c = a/(1 - a + a g_i), M^-1 <- (M^-1 - c v v^T)/(1-a) and
    g_j <- (g_j - c (z_j^T v)^2)/(1-a) for every pair. M^-1 and all g are recomputed from w after 32, 64, 128 and then
    every 256 steps.

    Args:
      Z: (N, d) pairs of rank d >= 2, float32 (fastest) or float64; sensitivities have its dtype.
      tol: stop at certified efficiency >= 1 - tol. Float32 sensitivities settle about 1e-5; below, pass Z in float64.
      max_steps, time_limit: stop there with the best refreshed weights. Seconds count from the initialisation; the copy
        of Z into column-major order, in which the products are a fifth faster, is not counted.
      discard_from: discard pairs once this share of those still kept can go; 1 never does (the textbook algorithm).

    Returns: PeerResult.
    Raises: TypeError if Z is not a float32 or float64 array; ValueError for a wrong shape or a rank below d.
    Complexity: 2 N d flops and one read of Z a step, 2 N d^2 flops a refresh.
    Source: Khachiyan 1996; Kumar and Yildirim 2005; Todd and Yildirim 2007; Harman and Pronzato 2007 (discarding).
    """
    Z = np.asfortranarray(_check_pairs(Z))
    start = time.perf_counter()
    state = _AwayState(Z, np.arange(len(Z)), *_spanning_design(Z))
    best, trace, steps = (-1.0, None), [], 0
    while True:
        state.refresh()
        efficiency = state.efficiency()
        trace.append((time.perf_counter() - start, efficiency))
        if efficiency > best[0]:
            best = (efficiency, state.weights(len(Z)))
        out_of_budget = steps >= max_steps or trace[-1][0] >= time_limit
        if out_of_budget or efficiency >= 1 - tol:
            result = _finish(Z, best[1], steps, start, trace)
            if out_of_budget or result.efficiency >= 1 - tol:
                return result
            best = (-1.0, None)
            if len(state.rows) < len(Z):  # a discarded pair still violates (never met): take all pairs back
                state = _AwayState(Z, np.arange(len(Z)), state.rows[state.support], state.mass)
                continue
        else:
            state.discard(discard_from)
        for _ in range(min(REFRESH, 2 ** (4 + len(trace)), max_steps - steps)):  # often at first, to discard early
            state.step()
            steps += 1
            # The running figures only ask for a refresh; the refreshed ones decide.
            if state.efficiency() >= 1 - tol or time.perf_counter() - start >= time_limit:
                break


class _AwayState:
    """Weights on a support, M^-1, and the sensitivities g = scale * values of the kept pairs.

    Leaving 1/(1-a) in `scale` and folding c into v brings a step down to one product and three sweeps of length N.
    """

    def __init__(self, Z, rows, support, mass):
        self.Z, self.rows = Z, rows  # kept pairs, and their rows in the whole pool
        self.support, self.mass = support, mass  # kept rows of positive weight, and the weights
        self._slots_and_scratch()

    def _slots_and_scratch(self):
        self.slot = np.full(len(self.Z), -1)  # position of a kept row in the support
        self.slot[self.support] = np.arange(len(self.support))
        self.scratch = np.empty(len(self.Z), self.Z.dtype)

    def refresh(self):
        self.mass /= self.mass.sum()
        self.inverse = np.linalg.inv(_information(self.Z[self.support], self.mass))
        self.values, self.scale = _sensitivities(self.Z, self.inverse), 1.0
        self.top = int(self.values.argmax())

    def efficiency(self):
        return self.Z.shape[1] / (self.scale * float(self.values[self.top]))

    def weights(self, total):
        weights = np.zeros(total)
        weights[self.rows[self.support]] = self.mass
        return weights

    def discard(self, discard_from):
        """Drop the pairs that no optimal design holds, when they are a large enough share."""
        keep = _possible_support(self.values, self.Z.shape[1])
        keep[self.support] = True
        if np.count_nonzero(keep) >= (1 - discard_from) * len(keep):
            return
        self.support = np.cumsum(keep)[self.support] - 1
        self.Z, self.rows, self.values = np.asfortranarray(self.Z[keep]), self.rows[keep], self.values[keep]
        self.top = int(self.values.argmax())
        self._slots_and_scratch()

    def step(self):
        d = self.Z.shape[1]
        on_support = self.values[self.support]
        slot = int(on_support.argmin())
        toward = self.scale * float(self.values[self.top]) - d >= d - self.scale * float(on_support[slot])
        row = self.top if toward else int(self.support[slot])
        z = self.Z[row].astype(np.float64)
        v = self.inverse @ z
        g = float(z @ v)
        if toward:
            a = (g / d - 1) / (g - 1)
        else:
            a = -self.mass[slot] / (1 - self.mass[slot])
            a = a if g <= 1 else max(a, (g / d - 1) / (g - 1))
        self._move(row, a)
        c = a / (1 - a + a * g)
        self.inverse -= np.outer(c * v, v)
        self.inverse /= 1 - a
        np.dot(self.Z, (v * np.sqrt(abs(c) / self.scale)).astype(self.Z.dtype), out=self.scratch)
        np.multiply(self.scratch, self.scratch, out=self.scratch)
        (np.subtract if c > 0 else np.add)(self.values, self.scratch, out=self.values)
        self.scale /= 1 - a
        self.top = int(self.values.argmax())

    def _move(self, row, a):
        """w <- (1-a) w + a e_row; a new pair enters the support, one at its floor leaves it."""
        self.mass *= 1 - a
        slot = self.slot[row]
        if slot < 0:
            self.slot[row] = len(self.support)
            self.support, self.mass = np.append(self.support, row), np.append(self.mass, a)
            return
        self.mass[slot] += a
        if self.mass[slot] <= DROPPED:
            self.slot[self.support[-1]] = slot
            self.slot[row] = -1
            self.support[slot], self.mass[slot] = self.support[-1], self.mass[-1]
            self.support, self.mass = self.support[:-1], self.mass[:-1]


def multiplicative(Z, tol=1e-3, max_passes=100_000, power=1.0, *, time_limit=float("inf"), discard_from=1 / 3):
    """D-optimal design by multiplicative updates w_i <- w_i (g_i/d)^power, normalised, from uniform weights.

    One pass scores a block of pairs, updates its weights and adds it to the next M while it is in cache. power = 1 is
    monotone in log det; powers up to about 1.8 need about half the passes, without a guarantee.

    Args:
      Z: (N, d) pairs of rank d >= 2, float32 (fastest) or float64; scores and block sums have its dtype, M is float64.
      tol: stop at certified efficiency >= 1 - tol; float32 settles about 1e-5.
      max_passes, time_limit (seconds from the start): stop there with the last weights.
      discard_from: discard pairs once this share of those still kept can go; 1 never does (the textbook algorithm).

    Returns: PeerResult; `steps` counts passes.
    Raises: TypeError if Z is not a float32 or float64 array; ValueError for a wrong shape or a rank below d.
    Complexity: 3 N d^2 flops a pass; scratch memory 3 blocks of 8192 rows and 4 vectors of length N, beyond Z (and at
      most two thirds of it again once pairs are discarded).
    Source: Silvey, Titterington and Torsney 1978; Yu 2010; Harman and Pronzato 2007 (discarding).
    """
    Z = np.ascontiguousarray(_check_pairs(Z))
    start = time.perf_counter()
    kept, rows = Z, np.arange(len(Z))
    weights = np.full(len(Z), 1 / len(Z), Z.dtype)
    information = _information(Z, weights)
    _check_rank(information, Z.dtype)
    trace, passes = [], 0
    while True:
        values, proposal, proposed = _multiplicative_pass(kept, weights, information, power)
        passes += 1
        efficiency = kept.shape[1] / float(values.max())
        trace.append((time.perf_counter() - start, efficiency))
        out_of_budget = passes >= max_passes or trace[-1][0] >= time_limit
        if out_of_budget or efficiency >= 1 - tol:
            whole = np.zeros(len(Z))
            whole[rows] = weights
            result = _finish(Z, whole, passes, start, trace)
            if out_of_budget or result.efficiency >= 1 - tol:
                return result
        keep = _possible_support(values, kept.shape[1])
        if np.count_nonzero(keep) < (1 - discard_from) * len(keep):
            kept, rows, proposal = kept[keep], rows[keep], proposal[keep]
            proposed = _information(kept, proposal)
        total = proposal.sum(dtype=np.float64)
        weights, information = proposal / total.astype(Z.dtype), proposed / total


def _multiplicative_pass(Z, weights, information, power):
    """Scores at `information`, the updated unnormalised weights, and their information, block by block."""
    d = Z.shape[1]
    whitener = _whitener(np.linalg.inv(information), Z.dtype)
    values, proposal, proposed = np.empty(len(Z), Z.dtype), np.empty(len(Z), Z.dtype), np.zeros((d, d))
    for rows in _blocks(len(Z)):
        block, w = Z[rows], proposal[rows]
        values[rows] = _squared_norms(block @ whitener)
        np.multiply(weights[rows], (values[rows] / d) ** power if power != 1 else values[rows] / d, out=w)
        w[w < NEVER] = 0
        proposed += _weighted_gram(block, w)
    return values, proposal, proposed


@partial(jax.jit, static_argnames="batch_size")
def sensitivities_pair_by_pair(features, G, batch_size=None):
    """z^T G z of every pair, each pair's difference gathered: the form one writes first, as fast as it goes.

    vmap over prompts and over pairs, in batches of prompts whose gathered differences fill 2 MB on a CPU (they stay in
    cache, measured fastest by up to 2.6 times) and 1 GB on an accelerator.

    Args: features (P, K, d), no mask; G (d, d) of the same dtype; batch_size, prompts a batch (static).
    Returns: (P, K(K-1)/2) in the order of `jnp.triu_indices(K, 1)`.
    Complexity: P K (K-1) (d^2 + d) flops, where the Gram form takes 2 P K d (d + K).
    """
    _, K, d = features.shape
    i, j = np.triu_indices(K, 1)
    if batch_size is None:
        scratch = 2**21 if jax.default_backend() == "cpu" else 2**30
        batch_size = max(1, scratch // (len(i) * d * features.dtype.itemsize))

    def one_pair(z):
        return jnp.dot(jnp.dot(z, G, precision="highest"), z, precision="highest")

    def one_prompt(rows):
        return jax.vmap(one_pair)(rows[i] - rows[j])

    return jax.lax.map(one_prompt, features, batch_size=batch_size)


def _finish(Z, weights, steps, start, trace):
    """The result, with efficiency and log det computed afresh: float64 M; float64 g wherever float32 could be wrong."""
    weights = weights / weights.sum()
    support = np.flatnonzero(weights)
    information = _information(Z[support].astype(np.float64), weights[support])
    inverse = np.linalg.inv(information)
    values = _sensitivities(Z, inverse).astype(np.float64)
    near_top = np.flatnonzero(values >= (1 - 1e-4) * values.max())
    values[near_top] = _sensitivities(Z[near_top].astype(np.float64), inverse)
    efficiency = Z.shape[1] / float(values.max())
    seconds = time.perf_counter() - start
    log_det = float(np.linalg.slogdet(information)[1])
    return PeerResult(weights, min(efficiency, 1.0), log_det, steps, seconds, trace)


def _spanning_design(Z):
    """Initial support and uniform weights: d independent pairs, picked among the 128 d longest if those span."""
    candidates = 128 * Z.shape[1]
    if candidates < len(Z):
        longest = np.sort(np.argpartition(_squared_norms(Z), -candidates)[-candidates:])
        picked = _independent_rows(Z[longest])
        if len(picked) == Z.shape[1]:
            return longest[picked], np.full(len(picked), 1 / len(picked))
    picked = _independent_rows(Z)
    if len(picked) < Z.shape[1]:
        raise ValueError(_rank_error(len(picked), Z.shape[1]))
    return picked, np.full(len(picked), 1 / len(picked))


def _independent_rows(Z):
    """Rows of Z, each the one with the largest residual off the span of those before, until none is left or d."""
    d = Z.shape[1]
    residual = _squared_norms(Z)
    rows, basis, floor = [], np.zeros((d, d)), RANK_FLOOR * float(residual.max())
    for k in range(d):
        row = int(residual.argmax())
        z = Z[row].astype(np.float64)
        for _ in range(2):  # twice is enough to make the direction orthogonal to machine precision
            z = z - basis[:k].T @ (basis[:k] @ z)
        if not z @ z > floor:
            break
        basis[k] = z / np.sqrt(z @ z)
        residual -= (Z @ basis[k].astype(Z.dtype)) ** 2
        residual[row] = -np.inf
        rows.append(row)
    return np.array(rows)


def _possible_support(values, d):
    """Mask of the pairs that some optimal design may hold (Harman and Pronzato 2007), with room for float32 error."""
    excess = max(float(values.max()) * (1 + 1e-5) - d, 0.0)
    bound = d * (1 + excess / 2 - np.sqrt(excess * (4 + excess - 4 / d)) / 2)
    return values >= bound * (1 - 1e-5)


def _sensitivities(Z, inverse):
    """g_i = z_i^T inverse z_i in the dtype of Z, block by block."""
    whitener = _whitener(inverse, Z.dtype)
    values = np.empty(len(Z), Z.dtype)
    for rows in _blocks(len(Z)):
        values[rows] = _squared_norms(Z[rows] @ whitener)
    return values


def _whitener(inverse, dtype):
    """W with W W^T = inverse, so that g = |z W|^2 is a sum of squares and cannot cancel."""
    return np.linalg.cholesky((inverse + inverse.T) / 2).astype(dtype)


def _information(Z, weights):
    """sum_i w_i z_i z_i^T in float64, from block sums in the dtype of Z."""
    information = np.zeros((Z.shape[1], Z.shape[1]))
    for rows in _blocks(len(Z)):
        information += _weighted_gram(Z[rows], weights[rows])
    return information


def _weighted_gram(block, weights):
    positive = np.flatnonzero(weights)
    if 2 * len(positive) < len(weights):
        block, weights = block[positive], weights[positive]
    scaled = block * np.sqrt(weights)[:, None].astype(block.dtype)
    return scaled.T @ scaled


def _squared_norms(rows):
    return np.einsum("nd,nd->n", rows, rows)


def _blocks(total):
    return (slice(begin, begin + CHUNK) for begin in range(0, total, CHUNK))


def _check_pairs(Z):
    if not isinstance(Z, np.ndarray) or Z.dtype not in (np.float32, np.float64):
        found = Z.dtype if isinstance(Z, np.ndarray) else type(Z).__name__
        raise TypeError(f"Z of {found}: must be a NumPy array of float32 or float64; use bench.pools.materialise_pairs")
    if Z.ndim != 2 or Z.shape[1] < 2 or len(Z) < Z.shape[1]:
        raise ValueError(f"Z.shape={Z.shape}: must be (N, d) with N >= d >= 2")
    return Z


def _check_rank(information, dtype):
    floor = max(RANK_FLOOR, 0.2 * np.finfo(dtype).eps)  # block sums in float32 lift a zero eigenvalue to about 1e-9
    rank = np.linalg.matrix_rank(information, tol=floor * np.trace(information), hermitian=True)
    if rank < len(information):
        raise ValueError(_rank_error(rank, len(information)))


def _rank_error(rank, d):
    return f"Z of rank {rank}: must have rank d={d}, or every information matrix is singular; restrict Z to its range"
