"""A design problem made ready for solving, and its float64 side: A, G, exact sensitivities of listed pairs.

The d x d algebra and everything a certificate rests on is computed here in float64 from the stored features, on the
device but inside a float64 scope; the pool-wide passes of `pricing` only rank.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdesign import _arrays, _checks
from jaxdesign.budget import Budget, Limits, resolve
from jaxdesign.criteria import CriterionLike, LogDet, Trace
from jaxdesign.decided import Decided, decided_pairs
from jaxdesign.information import (
    laplacian_information,
    pair_differences,
    pair_flips,
    prompt_label_information,
    prompt_major,
    sparse_information,
)
from jaxdesign.pool import CompletionPool
from jaxdesign.pricing.memory import MemorySource, memory_source, open_counts, open_pairs, sum_chunks
from jaxdesign.worst_case import WorstCase

PAGE = 4096  # pairs gathered at a time: one compilation whatever the number of pairs


@dataclass(frozen=True)
class Problem:
    """Pool, criterion, limits and prior, validated, with the pool's pricing source.

    Labels that the budget decides (its required pairs) are part of the prior, and no part of limits and total.
    """

    pool: CompletionPool  # without ids, so that other names cause no recompilation
    criterion: CriterionLike
    limits: Limits
    prior: Float[np.ndarray, "r d d"]
    source: MemorySource
    pair_counts: Float[np.ndarray, " p"]  # that may be used
    decided: Decided

    @property
    def dim(self) -> int:
        """d."""
        return self.pool.dim

    @property
    def skipped_prompts(self) -> int:
        """Prompts with fewer than two completions."""
        return int(np.sum(np.asarray(self.pool.mask).sum(axis=1) < 2))


class Analysis(NamedTuple):
    """The criterion at a matrix: value, G per draw in float64, and factors F F^T = G in the pricing dtype."""

    value: float
    G: Float[np.ndarray, "r d d"]
    factors: Float[np.ndarray, "r d d"]


def make_problem(pool: CompletionPool, criterion: Any, budget: Budget, prior: Any = None) -> Problem:
    """Validate the arguments of a solver against each other.

    Raises:
        TypeError: pool, criterion or budget of another kind.
        ValueError: no candidate pair, a budget the pool cannot hold, a prior or target of wrong shape or indefinite.
    """
    check_kinds(pool, criterion)
    if _arrays.is_traced(pool):
        raise TypeError(
            "pool: is traced; this function runs its loop on the host. Inside jit or vmap use jaxdesign.greedy, "
            "jaxdesign.solvers.frank_wolfe or jaxdesign.solvers.multiplicative"
        )
    bare = CompletionPool.tree_unflatten(None, (pool.features, pool.scores, pool.mask, pool.flip))
    if not isinstance(budget, Budget):
        raise TypeError(f"budget: expected jaxdesign.Budget, found {type(budget).__name__}")
    decided = decided_pairs(pool, budget)
    source = memory_source(bare, closed=decided.closed)
    counts = open_counts(source)[: pool.num_prompts]
    limits = resolve(budget, counts, np.asarray(pool.mask), (decided.pairs, decided.labels))
    problem = Problem(bare, criterion, limits, prior_matrix(prior, pool), source, counts, decided)
    if not len(decided.pairs):
        return problem
    return replace(problem, prior=information(problem, decided.pairs, decided.labels))


def check_kinds(pool: Any, criterion: Any) -> None:
    """TypeError or ValueError for a pool or criterion of another kind, or a target of another size; traceable."""
    if not isinstance(pool, CompletionPool):
        raise TypeError(f"pool: expected jaxdesign.CompletionPool, found {type(pool).__name__}")
    if isinstance(criterion, type) or not isinstance(criterion, CriterionLike):
        raise TypeError(
            f"crit: expected LogDet(), Trace(H), WorstCase(targets) or Criterion(function), found {criterion!r}"
        )
    if isinstance(criterion, WorstCase) and np.shape(criterion.H)[1:] != (pool.dim, pool.dim):
        raise ValueError(f"targets: shape {np.shape(criterion.H)[1:]} found; expected {(pool.dim, pool.dim)}")
    shapes = [(pool.dim, pool.dim)] + [(draws, pool.dim, pool.dim) for draws in (pool.num_draws,) if draws is not None]
    if isinstance(criterion, Trace) and np.shape(criterion.H) not in shapes:
        allowed = " or ".join(map(str, shapes))
        raise ValueError(f"H: shape {np.shape(criterion.H)} found; expected {allowed}, as the features and draws")


def traceable_prior(prior: Any, pool: CompletionPool) -> Float[Array, "r d d"]:
    """Prior as (R, d, d) float64, traced or not; its values are checked where they are concrete."""
    if not _arrays.is_traced(prior):
        return jnp.asarray(prior_matrix(prior, pool))
    draws, dim = pool.num_draws or 1, pool.dim
    if prior.shape not in ((), (dim, dim), (draws, dim, dim)):
        raise ValueError(f"prior: shape {prior.shape} found; expected a scalar or {(dim, dim)}")
    prior = prior.astype(jnp.float64)
    return jnp.broadcast_to(prior * jnp.eye(dim) if prior.ndim == 0 else prior, (draws, dim, dim))


def prior_matrix(prior: Any, pool: CompletionPool) -> Float[np.ndarray, "r d d"]:
    """Prior information as (R, d, d) float64: zero for None, ridge times I for a scalar."""
    draws = (pool.num_draws or 1,)
    if prior is None:
        prior = 0.0
    if np.ndim(prior) == 0:
        try:
            ridge = float(prior)
        except (TypeError, ValueError) as error:
            raise TypeError(f"prior: expected a number or a (d, d) matrix, found {prior!r}") from error
        if not np.isfinite(ridge) or ridge < 0:
            raise ValueError(f"prior={ridge:g}: a ridge must be finite and at least 0")
        matrix = ridge * np.eye(pool.dim)
    else:
        matrix = _checks.symmetric_psd(prior, pool.dim, "prior", draws)
    return np.broadcast_to(matrix, (*draws, pool.dim, pool.dim)).copy()


def information(
    problem: Problem, pairs: Int[np.ndarray, "s 3"], labels: Float[np.ndarray, " s"]
) -> Float[np.ndarray, "r d d"]:
    """A = prior + sum_e n_e c_e z_e z_e^T per draw, float64, from the stored features."""
    pool = problem.pool
    if len(pairs) == 0:
        return problem.prior.copy()
    with _arrays.float64():
        if len(pairs) > 2 * pool.num_prompts * pool.completions:
            dense = np.zeros((pool.num_prompts, pool.completions, pool.completions))
            np.add.at(dense, tuple(np.asarray(pairs).T), labels)
            return problem.prior + np.asarray(_dense_information(pool, jnp.asarray(dense + dense.swapaxes(1, 2))))
        total = problem.prior.copy()
        for start in range(0, len(pairs), PAGE):
            page, weights = _page(pairs, start), np.zeros(PAGE)
            weights[: len(labels[start : start + PAGE])] = labels[start : start + PAGE]
            total += np.asarray(_page_information(pool, page, jnp.asarray(weights)))
        return total


@jax.jit
def _page_information(pool, pairs, labels):
    return sparse_information(pair_differences(pool, pairs), draw_label_information(pool, pairs) * labels)


@jax.jit
def _dense_information(pool, weights):
    bare = (pool.features, pool.mask, prompt_major(pool.scores), pool.flip)

    def chunk(part):
        (features, mask, scores, flip), dense = part
        rows = jnp.where(mask[..., None], features, 0).astype(jnp.float64)
        rows = rows - jnp.sum(rows, axis=1, keepdims=True) / jnp.maximum(jnp.sum(mask, axis=1), 1)[:, None, None]
        rows = jnp.where(mask[..., None], rows, 0)
        if scores is not None:
            scores = scores[None] if scores.ndim == 2 else jnp.moveaxis(scores, 1, 0)
        info = laplacian_information(rows, dense[None], prompt_label_information(scores, jnp.float64, flip))
        return jnp.broadcast_to(info, (pool.num_draws or 1, *info.shape[1:]))

    return _arrays.sum_chunks(chunk, (bare, weights), _arrays.chunk_length(*pool.features.shape))


def draw_label_information(pool: CompletionPool, pairs: Int[Array, "s 3"]) -> Float[Array, "r s"]:
    """Label information with an explicit axis of draws, R = 1 without; traceable."""
    p, i, j = pairs.T
    scores = jnp.zeros(pool.mask.shape)[None] if pool.scores is None else pool.scores.reshape(-1, *pool.mask.shape)
    ends = jnp.stack([scores[:, p, i], scores[:, p, j]], -1)
    return prompt_label_information(ends, jnp.result_type(float), pair_flips(pool, pairs))[..., 0, 1]


def exact_sensitivities(
    problem: Problem, pairs: Int[np.ndarray, "s 3"], G: Float[np.ndarray, "r d d"]
) -> Float[np.ndarray, " s"]:
    """b_e = mean over draws of c_e z_e^T G z_e, float64, from the stored features."""
    if len(pairs) == 0:
        return np.zeros(0)
    with _arrays.float64():
        pages = [_page_sensitivities(problem.pool, _page(pairs, start), G) for start in range(0, len(pairs), PAGE)]
        return np.concatenate([np.asarray(page) for page in pages])[: len(pairs)]


@jax.jit
def _page_sensitivities(pool, pairs, G):
    z = pair_differences(pool, pairs)
    forms = jnp.stack([jnp.sum(jnp.matmul(z, g, precision=_arrays.HIGHEST) * z, axis=-1) for g in G])
    return jnp.mean(forms * draw_label_information(pool, pairs), axis=0)


def _page(pairs: Int[np.ndarray, "s 3"], start: int) -> Int[np.ndarray, "page 3"]:
    page = np.zeros((PAGE, 3), np.int32)  # padding is the pair (0, 0, 0), whose difference is zero
    page[: len(pairs[start : start + PAGE])] = pairs[start : start + PAGE]
    return page


def analyse(problem: Problem, matrix: Float[np.ndarray, "r d d"]) -> Analysis:
    """Value, G and its factors at A; value is inf or NaN where A is singular."""
    with _arrays.float64():
        value, G, factors = _analyse(problem.criterion, matrix)
        dtype = problem.source.dtype
        return Analysis(float(value), np.asarray(G), np.asarray(factors).astype(dtype))


@jax.jit
def _analyse(criterion, matrix):
    return criterion.value(matrix), criterion.gradient(matrix), criterion.factors(matrix)


def usable(problem: Problem, analysis: Analysis) -> bool:
    """Whether the matrix analysed was positive definite to working precision."""
    return bool(np.isfinite(analysis.value) and np.isfinite(analysis.factors).all())


def singular(problem: Problem, matrix: Float[np.ndarray, "r d d"]) -> bool:
    """Whether A is singular to float64 rounding, so that LogDet and Trace are infinite there; units do not matter.

    A Cholesky factorisation alone does not tell: rounding can leave a singular matrix with tiny positive pivots. Scaled
    to a unit diagonal, singular ones had a smallest eigenvalue of at most 0.8 d eps in 80 random cases, d = 3 to 256.
    Always False for other criteria, which may be finite there.
    """
    if not isinstance(problem.criterion, LogDet | Trace | WorstCase):
        return False
    diagonal = np.diagonal(matrix, axis1=-2, axis2=-1)
    if not (diagonal > 0).all():
        return True
    scale = 1 / np.sqrt(diagonal)
    spectrum = np.linalg.eigvalsh(matrix * scale[..., :, None] * scale[..., None, :])
    return bool((spectrum[..., 0] <= 4 * problem.dim * np.finfo(np.float64).eps).any())


def uniform_information(problem: Problem) -> Float[np.ndarray, "r d d"]:
    """Prior plus the information of `total` labels spread evenly over all candidate pairs, caps aside; float64."""
    with _arrays.float64():
        info = np.asarray(_uniform_information(problem.source))
    return problem.prior + info * (problem.limits.total / problem.pair_counts.sum())


@jax.jit
def _uniform_information(source):
    def of_chunk(chunk, _):
        rows, scores, flip = chunk.rows.astype(jnp.float64), chunk.scores, chunk.flip
        if scores is None and chunk.closed is None and (flip is None or flip.ndim == 1):
            # copies have z = 0, so all pairs count: sum_{i<j} z z^T = K sum_i phi phi^T, phi centred
            count = jnp.sum(chunk.copies >= 0, axis=1)[:, None, None]
            weight = count * prompt_label_information(None, jnp.float64, flip)
            return _arrays.contract("pkd,pke->de", weight * rows, rows)[None]
        if scores is not None:
            scores = scores[None] if scores.ndim == 2 else jnp.moveaxis(scores, 1, 0)
        pairs = open_pairs(chunk).astype(jnp.float64)
        symmetric = (pairs + jnp.swapaxes(pairs, 1, 2))[None]
        return laplacian_information(rows, symmetric, prompt_label_information(scores, jnp.float64, flip))

    return sum_chunks(of_chunk, source, jnp.zeros((source.draws, *source.means.shape[-1:] * 2)))


def check_rank(problem: Problem) -> None:
    """ValueError where even the even allocation has singular information, naming the rank and a ridge."""
    for matrix in uniform_information(problem):
        spectrum = np.linalg.eigvalsh(matrix)
        rank = int(np.sum(spectrum > 1e-12 * spectrum[-1]))
        if rank < problem.dim:
            ridge = 1e-3 * np.trace(matrix) / max(rank, 1)
            raise ValueError(
                f"prior: the information of all pairs has rank {rank} of {problem.dim}, so no design without a prior "
                f"is regular; use jaxdesign.restrict_to_range(pool), or pass prior={ridge:.2g} (a ridge)"
            )
