"""Problems of any size brought to one shape, so that all of them share two compilations.

Masked prompts and completions change nothing. A dimension that no pair has is known already: the prior has 1 there and
the target 1, which adds 0 to -log det A and 1 to tr(H A^-1).
"""

from __future__ import annotations

import numpy as np

import jaxdesign
from jaxdesign import Budget, CompletionPool, LogDet, Trace
from tests.support.problems import criterion_of, frank_wolfe_gap, information_of, written_out

SHAPE = PROMPTS, COMPLETIONS, DIM = 45, 16, 10


def fits(pool):
    return all(have <= room for have, room in zip(pool.features.shape, SHAPE, strict=True))


def padded_pool(pool):
    """The pool with masked slots up to SHAPE, full of NaN, and zero scores where it has none."""
    prompts, completions, dim = pool.features.shape
    features = np.zeros(SHAPE, np.float32)
    scores, mask = np.zeros(SHAPE[:2], np.float32), np.zeros(SHAPE[:2], bool)
    mask[:prompts, :completions] = pool.mask
    features[:prompts, :completions, :dim] = pool.features
    if pool.scores is not None:
        scores[:prompts, :completions] = pool.scores
    features[~mask], scores[~mask] = np.nan, np.nan
    flip = pool.flip
    if flip is not None:
        slots = [(0, room - have) for have, room in zip(flip.shape, (SHAPE[0], *SHAPE[1:2] * 2), strict=False)]
        flip = np.pad(np.asarray(flip), slots, constant_values=np.nan)
    return CompletionPool(features, scores, mask, flip=flip)


def padded_matrix(matrix, dim):
    """`matrix`, zero for None, with 1 on the diagonal of the dimensions beyond `dim`."""
    full = np.eye(DIM)
    full[:dim, :dim] = 0 if matrix is None else matrix
    return full


def padded_budget(budget):
    caps = {}
    for name in ("per_pair", "per_prompt"):
        cap = getattr(budget, name)
        caps[name] = cap if np.ndim(cap) == 0 else np.pad(cap, (0, PROMPTS - len(cap)), constant_values=1)
    return Budget(budget.total, **caps)


def solve_padded(pool, criterion, budget, prior=None, tol=1e-7):
    """Design of a small problem, solved in the common shape; the value is that of the small problem."""
    dim = pool.dim
    target = None if isinstance(criterion, LogDet) else criterion.H
    criterion = criterion if target is None else Trace(padded_matrix(target, dim))
    prior = padded_matrix(prior, dim)
    design = jaxdesign.optimize(padded_pool(pool), criterion, padded_budget(budget), prior=prior, tol=tol)
    value = design.certificate.value - (0 if target is None else DIM - dim)
    return design, value


def labels_of_all_pairs(pool, design):
    """(N,) labels of all pairs in order, zeros included, and the pairs, differences and label information."""
    pairs, z, c = written_out(pool)
    index = {tuple(pair): k for k, pair in enumerate(pairs.tolist())}
    labels = np.zeros(len(pairs))
    labels[[index[tuple(pair)] for pair in design.pairs.tolist()]] = design.labels
    return labels, pairs, z, c


def check_optimal(pool, criterion, budget, design, value, prior=None, tol=1e-6):
    """Kiefer-Wolfowitz in NumPy and an LP solver: the value is right, the budget obeyed, nothing better."""
    labels, pairs, z, c = labels_of_all_pairs(pool, design)
    H = None if isinstance(criterion, LogDet) else np.asarray(criterion.H)
    held = (
        np.zeros((pool.dim, pool.dim)) if prior is None else prior * np.eye(pool.dim) if np.ndim(prior) == 0 else prior
    )
    assert abs(labels.sum() - budget.total) <= 1e-9 * budget.total
    np.testing.assert_allclose(criterion_of(information_of(z, c, labels, held), H), value, rtol=1e-8, atol=1e-8)
    limits = {"total": budget.total}
    for name in ("per_pair", "per_prompt"):
        if getattr(budget, name) is not None:
            limits[name] = getattr(budget, name)
    bounds = np.broadcast_to(limits.get("per_pair", np.inf), pool.num_prompts)[pairs[:, 0]]
    assert (labels <= bounds * (1 + 1e-9)).all()
    spent = np.bincount(pairs[:, 0], labels, pool.num_prompts)
    assert (spent <= np.broadcast_to(limits.get("per_prompt", np.inf), pool.num_prompts) * (1 + 1e-9)).all()
    # to first order the gap of a relative gap `tol` is d tol for LogDet and twice tol f for Trace
    scale = pool.dim if H is None else 2 * value
    assert frank_wolfe_gap(pairs, z, c, labels, limits, held, H) <= 1.1 * tol * scale
