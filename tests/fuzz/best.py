"""The judge's own search for good allocations: convex by vertices and Newton steps, whole by exchanges and enumeration.

It only has to find allowed labels; what they are worth is computed exactly by `truth`. Works in float64 on coordinates
in which an even allocation has information near the identity, found exactly (`truth.whitening`), so that conditioning
and units play no part.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np

from . import truth
from .allowed import Allowed, best_vertex, spread, violation, whole_vertex

ROUNDS = 60  # vertices at most
MOST = 1500  # whole allocations that are enumerated


@dataclass(frozen=True, eq=False)
class Search:
    """Elements in good coordinates."""

    elements: truth.Elements
    allowed: Allowed
    criterion: truth.Criterion
    y: np.ndarray  # (E, d)
    c: np.ndarray  # (R, E)
    prior: np.ndarray  # (R, d, d)
    H: np.ndarray | None  # (T, d, d)
    metric: np.ndarray  # W W^T over its largest entry, for tr A^-2
    start: np.ndarray  # (E,) allowed labels at which A is regular

    def matrices(self, labels):
        return self.prior + np.einsum("re,ed,ef->rdf", self.c * labels, self.y, self.y)


def prepare(elements: truth.Elements, allowed: Allowed, criterion: truth.Criterion) -> Search | None:
    """Coordinates from an even allocation; None where nothing is allowed or every allowed A found is singular."""
    start = spread(allowed)
    if start is None:
        return None
    start = np.where(start > 1e-13 * allowed.total, start, allowed.fixed)
    W = truth.whitening(elements, start)
    if W is None:
        return None
    y, prior = truth.in_coordinates(W, elements.z), truth.sandwiched(W, elements.prior)
    whole, common = truth.on_one_denominator(W)
    metric = truth.rounded(whole @ whole.T, common**2, 0)
    size = np.abs(y).max(axis=1, initial=0).max(initial=1e-300)
    H = None
    if criterion.H is not None:
        H = truth.sandwiched(W, truth.Dyadic.of(criterion.H))
        H = H / max(np.abs(H).max(), 1e-300)
    c = np.array([[float(value) for value in row] for row in elements.c]).reshape(elements.c.shape)
    if not (np.isfinite(size) and np.isfinite(prior).all() and np.isfinite(metric).all()):
        return None
    return Search(elements, allowed, criterion, y, c, prior, H, metric / np.abs(metric).max(), start)


def functions(search: Search, A):
    """Values f_t (T,), their G_t = -grad (T, R, d, d), and the inverses (R, d, d), all divided by the draws.

    NaN where A is singular.
    """
    try:
        inv = np.linalg.inv(A)
    except np.linalg.LinAlgError:
        inv = np.full_like(A, np.nan)
    inv = (inv + inv.swapaxes(-1, -2)) / 2
    draws, kind = len(A), search.criterion.kind
    if kind == "logdet":
        return np.array([-np.linalg.slogdet(A)[1].mean()]), inv[None] / draws, inv
    if kind == "square":
        M = search.metric
        return (
            np.array([np.einsum("ij,rjk,kl,rli->", M, inv, M, inv) / draws]),
            (2 * inv @ M @ inv @ M @ inv)[None] / draws,
            inv,
        )
    return np.einsum("tij,rji->t", search.H, inv) / draws, (inv @ search.H[:, None] @ inv) / draws, inv


def mixture(search: Search, atoms, weights):
    """Weights of the atoms (k, R, d, d) that minimise the criterion over their mixtures, and the targets' weights."""
    k, draws, kind = len(atoms), atoms.shape[1], search.criterion.kind
    count = 1 if search.H is None else len(search.H)
    for least in (1e-9, 1e-6, 1e-3):  # the best mixture may be singular, which is no place to begin at
        x = np.maximum(weights, least)
        x = x / x.sum()
        f = functions(search, np.tensordot(x, atoms, 1))[0]
        if np.isfinite(f).all():
            break
    unit = 1.0 if kind == "logdet" else max(np.abs(f).max(), 1e-300)
    level = f.max() / unit + 0.1  # of the worst case
    epigraph = count > 1
    duals = np.ones(count) / count

    def barrier(x, level, mu):
        if (x <= 0).any():
            return np.inf
        A = np.tensordot(x, atoms, 1)
        try:
            np.linalg.cholesky(A)
        except np.linalg.LinAlgError:
            return np.inf
        f = functions(search, A)[0] / unit
        if not np.isfinite(f).all():
            return np.inf
        if epigraph:
            return np.inf if (level <= f).any() else (level - mu * np.log(level - f).sum() - mu * np.log(x).sum())
        return f[0] - mu * np.log(x).sum()

    for mu in 10.0 ** -np.arange(2, 9.0 if epigraph else 14.0, 1.5):
        for _ in range(25):
            A = np.tensordot(x, atoms, 1)
            f, G, inv = functions(search, A)
            f, G = f / unit, G / unit
            first = -np.einsum("trij,krji->tk", G, atoms)
            half = inv @ atoms  # (k, R, d, d)
            if kind == "logdet":
                second = traces(half, half)[None] / draws
            elif kind == "square":
                M = search.metric
                turned = half @ inv @ M
                second = (
                    (2 * traces(turned, turned) + 4 * traces(half, half @ (inv @ M @ inv @ M)))[None] / draws / unit
                )
            else:
                left = half.swapaxes(-1, -2)
                second = np.array([2 * traces(left, atoms @ g) for g in G])
            second = (second + second.swapaxes(1, 2)) / 2
            if epigraph:
                slack = np.maximum(level - f, 1e-3 * mu)  # rounding may eat it
                duals = mu / slack
                gradient = np.append((duals @ first) - mu / x, 1 - duals.sum())
                bend = np.zeros((k + 1, k + 1))
                bend[:k, :k] = np.tensordot(duals, second, 1) + np.einsum("t,tk,tl->kl", duals / slack, first, first)
                bend[:k, k] = bend[k, :k] = -(duals / slack) @ first
                bend[k, k] = (duals / slack).sum()
                bend[:k, :k] += np.diag(mu / x**2)
                ones = np.append(np.ones(k), 0.0)
            else:
                gradient, bend, ones = first[0] - mu / x, second[0] + np.diag(mu / x**2), np.ones(k)
            size = len(gradient)
            scale = np.append(x, 1.0)[:size]  # Newton in units of x, so that faint weights do no harm
            system = np.zeros((size + 1, size + 1))
            system[:size, :size] = scale[:, None] * bend * scale
            system[:size, size] = system[size, :size] = ones * scale
            try:
                step = scale * np.linalg.solve(system, np.append(-gradient * scale, 0.0))[:size]
            except np.linalg.LinAlgError:
                break
            decrement = -gradient @ step
            if not np.isfinite(decrement) or decrement < 1e-4 * mu:
                break
            now, t = barrier(x, level, mu), 1.0
            shrink = x / np.maximum(-step[:k], 1e-300)
            t = min(1.0, 0.99 * shrink.min(initial=np.inf))
            while t > 1e-8:
                if (
                    barrier(x + t * step[:k], level + t * step[k] if epigraph else level, mu)
                    <= now - 1e-4 * t * decrement
                ):
                    break
                t /= 2
            else:
                break
            x = x + t * step[:k]
            x, level = x / x.sum(), level + t * step[k] if epigraph else level
    return x, duals / duals.sum()


def traces(left, right):
    """(k, l): sum over draws of tr(left_k right_l)."""
    return left.reshape(len(left), -1) @ right.swapaxes(-1, -2).reshape(len(right), -1).T


def relaxed(search: Search, starts=()) -> np.ndarray:
    """Allowed real labels that (nearly) minimise the criterion: vertices added while they promise a decrease.

    Args:
        search: from `prepare`.
        starts: allowed labels to mix in from the beginning, for instance those the library returned.
    """
    pool = [search.start, *[np.asarray(n, float) for n in starts if violation(search.allowed, n) < 1e-12]]
    atoms = np.array([search.matrices(n) for n in pool])
    weights = np.full(len(pool), 0.1 / len(pool))
    weights[-1] = 1.0
    last, stalled = np.inf, 0
    for _ in range(ROUNDS):
        weights, duals = mixture(search, atoms, weights)
        A = np.tensordot(weights, atoms, 1)
        f, G, _ = functions(search, A)
        if not np.isfinite(f).all():
            break
        stalled = stalled + 1 if f.max() > last - 1e-12 * abs(last) else 0
        last = min(last, f.max())
        if stalled == 3:
            break
        G = np.tensordot(duals, G, 1) if len(f) > 1 else G[0]
        b = np.einsum("re,ed,rdf,ef->e", search.c, search.y, G, search.y)
        vertex = best_vertex(search.allowed, b)
        if vertex is None:
            break
        labels = np.tensordot(weights, np.array(pool), 1)
        promised = b @ (vertex - labels) / (1.0 if search.criterion.kind == "logdet" else max(abs(f).max(), 1e-300))
        if promised < 1e-10:
            break
        kept = weights > 1e-10
        pool = [n for n, keep in zip(pool, kept, strict=True) if keep] + [vertex]
        atoms = np.concatenate([atoms[kept], search.matrices(vertex)[None]])
        weights = np.append(weights[kept], 0.05)
    labels = np.tensordot(weights / weights.sum(), np.array(pool), 1)
    faint = (labels < 1e-14 * search.allowed.total) & (search.allowed.fixed == 0)
    labels = np.where(faint, 0.0, np.where(search.allowed.fixed > 0, search.allowed.fixed, labels))
    return labels * (search.allowed.total / labels.sum()) if not search.allowed.fixed.any() else labels


def scores_of(search: Search, A):
    """The criterion of stacked matrices (..., R, d, d), in these coordinates; inf where one is singular."""
    kind = search.criterion.kind
    with np.errstate(all="ignore"):
        sign, logdet = np.linalg.slogdet(A)
        good = (sign > 0).all(axis=-1) & np.isfinite(logdet).all(axis=-1)
        if kind == "logdet":
            return np.where(good, -logdet.mean(axis=-1), np.inf)
        safe = np.where(good[..., None, None, None], A, np.eye(A.shape[-1]))
        inv = np.linalg.inv(safe)
        if kind == "square":
            found = np.einsum("ij,...rjk,kl,...rli->...", search.metric, inv, search.metric, inv) / A.shape[-3]
        else:
            found = np.einsum("tij,...rji->...t", search.H, inv).max(axis=-1) / A.shape[-3]
        return np.where(good & (found > 0), found, np.inf)


def exchanged(search: Search, labels) -> np.ndarray:
    """Whole labels after moving one task from element to element while that helps and is allowed."""
    labels, task, allowed = np.asarray(labels, float).copy(), search.allowed.task, search.allowed
    outer = np.einsum("re,ed,ef->erdf", search.c, search.y, search.y) * task
    of = np.array([np.ones(len(labels)), *[row.of for row in allowed.rows]])
    low = np.array([allowed.total, *[row.low for row in allowed.rows]])
    high = np.array([allowed.total, *[row.high for row in allowed.rows]])
    slack = 1e-9 * np.maximum(1.0, np.where(np.isfinite(high), np.abs(high), 1.0))
    now = scores_of(search, search.matrices(labels))
    for _ in range(60):
        out = np.flatnonzero(labels - allowed.fixed >= task)
        into = np.flatnonzero(labels - allowed.fixed + task <= allowed.cap)
        if not len(out) or not len(into):
            return labels
        if len(out) * len(into) > 20_000:  # the most promising only
            b = np.einsum("erdf,rfd->e", outer, np.linalg.pinv(search.matrices(labels)))
            into = into[np.argsort(-b[into])[: max(1, 20_000 // len(out))]]
        held = of @ labels
        moved = held[:, None, None] + task * (of[:, None, into] - of[:, out, None])
        fits = ((moved <= (high + slack)[:, None, None]) & (moved >= (low - slack)[:, None, None])).all(axis=0)
        fits &= out[:, None] != into
        if not fits.any():
            return labels
        a, b = np.nonzero(fits)
        found = scores_of(search, search.matrices(labels) - outer[out[a]] + outer[into[b]])
        best = int(np.argmin(found))
        if not found[best] < (now - 1e-12 * abs(now) if np.isfinite(now) else now):
            return labels
        labels[out[a[best]]] -= task
        labels[into[b[best]]] += task
        now = found[best]
    return labels


def whole(search: Search, rng: np.random.Generator, starts=()) -> list[np.ndarray]:
    """Allowed whole labels worth trying: from the library's by exchanges, from random vertices, all of few."""
    every = enumerated(search.allowed)
    if every:
        worth = scores_of(search, np.array([search.matrices(n) for n in every]))
        return [every[k] for k in np.argsort(worth)[:5]]
    found = [exchanged(search, n) for n in starts if violation(search.allowed, n) < 1e-9]
    b = rng.random(len(search.allowed.cap))
    vertex = whole_vertex(search.allowed, b)
    return found if vertex is None else [*found, exchanged(search, vertex)]


def enumerated(allowed: Allowed) -> list[np.ndarray]:
    """Every allowed whole allocation where there are at most MOST to look at; else none."""
    free = np.flatnonzero(allowed.cap >= allowed.task)
    tasks = round((allowed.total - allowed.fixed.sum()) / allowed.task)
    if not len(free) or comb(len(free) + tasks - 1, tasks) > MOST:
        return []
    found = []

    def extend(position, left, labels):
        if position == len(free) - 1:
            ways = [left]
        else:
            ways = range(left + 1)
        for n in ways:
            if n * allowed.task > allowed.cap[free[position]]:
                break
            labels[free[position]] = allowed.fixed[free[position]] + n * allowed.task
            if position == len(free) - 1:
                if violation(allowed, labels) < 1e-9:
                    found.append(labels.copy())
            else:
                extend(position + 1, left - n, labels)
        labels[free[position]] = allowed.fixed[free[position]]

    extend(0, tasks, allowed.fixed.copy())
    return found
