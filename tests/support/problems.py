"""Small problems for the tests, and the plain NumPy float64 arithmetic they are judged by.

Nothing here calls the package for anything but building a pool: pairs are written out one by one, matrices summed pair
by pair, so that agreement means something.
"""

from __future__ import annotations

import numpy as np

from jaxdesign.pool import CompletionPool

PROMPTS, COMPLETIONS, DIM, DRAWS = 6, 5, 3, 3  # one shape for most tests: each new one is a recompilation


def random_arrays(seed, prompts=PROMPTS, completions=COMPLETIONS, dim=DIM, draws=None, ragged=True, copies=True):
    """features, scores, mask as NumPy: heavy-tailed norms, an offset per prompt, one empty slot and one copy or more.

    draws None: scores (P, K); an integer: (draws, P, K). Prompt 1 has two completions, prompt 2 a single one (where
    there are that many), masked slots hold NaN.
    """
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((prompts, completions, dim)) * np.exp(0.5 * rng.standard_normal((prompts, 1, 1)))
    features = features + rng.standard_normal((prompts, 1, dim))
    scores = rng.standard_normal((prompts, completions) if draws is None else (draws, prompts, completions))
    mask = np.ones((prompts, completions), bool)
    if copies:
        features[0, 1] = features[0, 3]
    if ragged:
        mask[1, 2:] = False
        mask[2, 1:] = False
        mask[-1, 0] = False
        features[~mask] = np.nan
        scores[..., ~mask] = np.nan
    return features.astype(np.float32), scores.astype(np.float32), mask


def all_pairs_of(prompts, completions):
    """(N, 3) all pairs (p, i, j), i < j, in order."""
    i, j = np.triu_indices(completions, 1)
    return np.stack([np.repeat(np.arange(prompts), len(i)), np.tile(i, prompts), np.tile(j, prompts)], 1)


def random_pool(seed, scores="yes", flip=None, **shape):
    """A pool of `random_arrays`; scores "no", "yes" or "draws"; flip "one", "prompt", "pair" or None for no noise."""
    features, u, mask = random_arrays(seed, draws=DRAWS if scores == "draws" else None, **shape)
    return CompletionPool(features, None if scores == "no" else u, mask, flip=random_flips(seed, mask, flip))


def random_flips(seed, mask, kind):
    """Flip noise up to 0.49, NaN where there is no pair; a third of it exactly 0."""
    rng = np.random.default_rng([seed, 1])
    if kind is None or kind == "one":
        return None if kind is None else 0.49 * rng.random()
    flip = np.maximum(rng.uniform(-0.245, 0.49, mask.shape + mask.shape[1:]), 0)
    flip = np.triu(flip) + np.triu(flip, 1).swapaxes(1, 2)
    paired = mask[:, :, None] & mask[:, None, :] & ~np.eye(mask.shape[1], dtype=bool)
    if kind == "pair":
        return np.where(paired, flip, np.nan)
    return np.where(paired.any(axis=(1, 2)), flip[:, 0, 1], np.nan)


def regression_pool(points):
    """A regression design problem as a pool: prompt e offers the pair x_e and 0, so that z_e = x_e.

    Every label has information 1/4: with a total of 4 the information matrix is the moment matrix of the weights.
    """
    points = np.asarray(points)
    features = np.zeros((len(points), 2, points.shape[1]))
    features[:, 0] = points
    return CompletionPool(features)


def random_spd(seed, dim=DIM, rank=None):
    """A random positive semidefinite matrix of the given rank (full by default)."""
    root = np.random.default_rng(seed).standard_normal((dim, rank or dim))
    return root @ root.T


def stored(pool):
    """Features, scores (R, P, K) or None, mask: what the pool holds, as float64 NumPy."""
    features = np.asarray(pool.features).astype(np.float64)
    scores = None if pool.scores is None else np.asarray(pool.scores).astype(np.float64)
    if scores is not None and scores.ndim == 2:
        scores = scores[None]
    return features, scores, np.asarray(pool.mask)


def written_out(pool):
    """Candidate pairs (S, 3), differences (S, d), label information (R, S), one by one."""
    features, scores, mask = stored(pool)
    flip = None if pool.flip is None else np.asarray(pool.flip).astype(np.float64)
    if flip is not None and flip.ndim == 1:
        flip = np.broadcast_to(flip[:, None, None], (*mask.shape, mask.shape[1]))
    pairs, z, c = [], [], []
    for p in range(features.shape[0]):
        for i in range(features.shape[1]):
            for j in range(i + 1, features.shape[1]):
                if mask[p, i] and mask[p, j] and (features[p, i] != features[p, j]).any():
                    pairs.append((p, i, j))
                    z.append(features[p, i] - features[p, j])
                    margin = np.zeros(1) if scores is None else scores[:, p, i] - scores[:, p, j]
                    c.append(fisher_information(margin, 0.0 if flip is None else float(flip[p, i, j])))
    return np.array(pairs, np.int32), np.array(z), np.array(c).T


def fisher_information(margin, flip):
    """Information of one label about its margin, from the probability p of its outcome: (dp/du)^2 / (p (1 - p))."""
    slope = 1 / (2 + 2 * np.cosh(margin))
    if flip == 0:
        return slope
    p, q = ((1 - 2 * flip) / (1 + np.exp(sign * margin)) + flip for sign in (-1, 1))
    return ((1 - 2 * flip) * slope) ** 2 / (p * q)


def information_of(z, c, labels, prior=0.0):
    """(R, d, d): prior + sum_e n_e c_e z_e z_e^T."""
    return prior + np.einsum("rs,sd,se->rde", c * labels, z, z)


def criterion_of(matrix, H=None):
    """Mean over draws of -log det A (H None) or tr(H A^-1)."""
    if H is None:
        return float(np.mean([-np.linalg.slogdet(a)[1] for a in matrix]))
    return float(np.mean([np.trace(np.linalg.solve(a, H)) for a in matrix]))


def gradients_of(matrix, H=None):
    """G per draw: A^-1, or A^-1 H A^-1."""
    inverses = np.linalg.inv(matrix)
    return inverses if H is None else inverses @ H @ inverses


def sensitivities_of(z, c, G):
    """(S,) mean over draws of c_e z_e^T G z_e."""
    return np.mean(c * np.einsum("sd,rde,se->rs", z, G, z), axis=0)


def even_allocation(pairs, total, per_pair=np.inf, per_prompt=np.inf):
    """An allowed allocation that touches every pair: labels spread evenly, within caps and quotas."""
    labels = np.full(len(pairs), total / len(pairs))
    quota = np.broadcast_to(per_prompt, (pairs[:, 0].max() + 1,))
    for _ in range(500):  # what is above a quota goes to the others
        labels = np.minimum(labels, np.broadcast_to(per_pair, quota.shape)[pairs[:, 0]])
        spent = np.bincount(pairs[:, 0], labels, len(quota))
        labels = labels * np.minimum(1, quota / np.maximum(spent, 1e-300))[pairs[:, 0]]
        labels = labels * (total / labels.sum())
    return labels


def frank_wolfe_gap(pairs, z, c, labels, limits, prior=0.0, H=None):
    """S - sum_e b_e n_e with S from the LP solver: by convexity the allocation is no further from the best value.

    limits: dict of total, per_pair, per_prompt.
    """
    b = sensitivities_of(z, c, gradients_of(information_of(z, c, labels, prior), H))
    return lp_oracle(pairs, b, **limits)[1] - b @ labels


def lp_oracle(pairs, b, total, per_pair=np.inf, per_prompt=np.inf):
    """max b.n over allowed allocations by scipy's linear-programming solver."""
    from scipy.optimize import linprog

    prompts = pairs[:, 0].max() + 1
    caps = np.minimum(np.broadcast_to(per_pair, (prompts,)), total)[pairs[:, 0]]
    member = (pairs[:, 0] == np.arange(prompts)[:, None]).astype(float)
    quotas = np.minimum(np.broadcast_to(per_prompt, (prompts,)), total)
    bounds = np.stack([np.zeros(len(pairs)), caps], axis=1)
    tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    equal = {"A_eq": np.ones((1, len(pairs))), "b_eq": [total]}
    solution = linprog(-b / b.max(initial=1e-300), A_ub=member, b_ub=quotas, bounds=bounds, options=tight, **equal)
    assert solution.status == 0, solution.message
    return solution.x, float(b @ solution.x)
