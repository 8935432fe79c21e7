"""The judge: exact values of a problem's allocations, the best one known, and what is false in a certificate."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

import jaxdesign as jd

from . import best, truth
from .allowed import Allowed, best_vertex, violation, written_rules
from .outcomes import Fault
from .problems import Problem

ROUNDINGS = 16  # of an entry of A, in units of float64's


def exact_criterion(problem: Problem) -> truth.Criterion:
    kind = {"logdet": "logdet", "own": "square", "worst": "worst"}.get(problem.criterion, "trace")
    return truth.Criterion(kind, problem.H)


class Judge:
    """Exact elements and rules of a problem, and every allowed allocation found so far, by its exact value."""

    def __init__(self, problem: Problem, pool: jd.CompletionPool):
        flips = None
        prompts = problem.features.shape[0]
        if problem.annotators is not None:
            stored = np.asarray(problem.annotators["flip"]).astype(np.asarray(pool.features).dtype).astype(np.float64)
            flips = np.broadcast_to(stored[:, None], (len(stored), prompts))
        scores = None if pool.scores is None else np.asarray(pool.scores)
        mask = np.asarray(pool.mask)
        features = np.asarray(pool.features)  # as stored
        self.elements = truth.written_out(features, scores, mask, flips, problem.prior)
        self.criterion = exact_criterion(problem)
        self.dim = features.shape[2]
        self.whole = problem.function in ("select_pairs", "greedy")
        self.rules: Allowed = written_rules(
            self.elements.rows, prompts, problem.budget, problem.annotators, whole=self.whole
        )
        self.known: list[tuple[float, float, str]] = []  # value, violation, whence
        self.lowest: tuple[float, np.ndarray | None] = (math.inf, None)  # of these, with its labels
        real = self.rules if not self.whole else written_rules(
            self.elements.rows, prompts, problem.budget, problem.annotators, whole=False
        )  # fmt: skip
        self.search = best.prepare(self.elements, real, self.criterion) if len(self.elements.rows) else None

    def witness(self, problem: Problem) -> np.ndarray:
        return self.dense(problem.witness[:, :3], problem.witness[:, 4], problem.witness[:, 3])

    def dense(self, pairs, labels, annotators=None) -> np.ndarray | None:
        """Labels of every element; None where a pair is none of the pool."""
        found = np.zeros(len(self.elements.rows))
        pairs = np.asarray(pairs, int)
        annotators = np.zeros(len(pairs), int) if annotators is None else np.asarray(annotators, int)
        for row, n in zip(np.column_stack([pairs, annotators]).tolist(), np.asarray(labels).tolist(), strict=True):
            if tuple(row) not in self.elements.place:
                return None
            found[self.elements.place[tuple(row)]] += n
        return found

    def value(self, labels) -> float:
        return truth.value(self.criterion, truth.information(self.elements, labels))

    def learn(self, labels, whence: str) -> float:
        """Exact value of labels, which count as known where they are allowed."""
        value, missed = self.value(labels), violation(self.rules, labels)
        if missed <= 1e-9 and math.isfinite(value):
            self.known.append((value, missed, whence))
            if value < self.lowest[0]:
                self.lowest = value, np.array(labels)
        return value

    def slack(self, value: float, missed: float) -> float:
        """What rounding and a budget missed by so much may explain."""
        share = 1e-12 + 20 * missed
        return share * max(1.0, abs(value)) if self.criterion.kind == "logdet" else share * abs(value)

    def best(self) -> tuple[float, str]:
        """The lowest value known, slack added."""
        return min(((v + self.slack(v, m), w) for v, m, w in self.known), default=(math.inf, "nothing"))

    def look_for_better(self, rng, starts=()):
        """Allocations of the judge's own."""
        if self.search is None:
            return
        if self.whole:
            for n in best.whole(self.search_whole(), rng, starts):
                self.learn(n, "whole search")
            return
        self.learn(best.relaxed(self.search, starts), "own solver")
        b = rng.random(len(self.rules.cap))
        vertex = best_vertex(self.rules, b)
        if vertex is not None:
            t = rng.random()
            self.learn(t * vertex + (1 - t) * self.search.start, "random")

    def search_whole(self):
        return replace(self.search, allowed=self.rules)

    def condition(self, labels) -> float:
        """Smallest eigenvalue of A at unit diagonal, over draws."""
        matrix = truth.information(self.elements, labels)
        found = []
        for a in matrix.integers:
            if any(a[k, k] <= 0 for k in range(len(a))):
                return 0.0
            scale = [math.isqrt(int(a[k, k]) << 200) for k in range(len(a))]
            unit = np.array([[truth.rounded(np.array([a[k, l] << 200], object), scale[k] * scale[l], 0)[0]
                              for l in range(len(a))] for k in range(len(a))])  # fmt: skip
            found.append(float(np.linalg.eigvalsh(unit)[0]))
        return min(found)


def efficiency_of(judge: Judge, value: float, bound: float) -> float:
    if judge.criterion.kind == "square":
        return math.nan
    if judge.criterion.kind == "logdet":
        return math.exp(min(0.0, (bound - value) / judge.dim)) if math.isfinite(value) else 0.0
    return bound / value if value > 0 else 1.0


def judged(judge: Judge, what: str, certificate, labels, tol=None, status="", narrow=False) -> list[Fault]:
    """Faults of a certificate; `narrow` for one in float32 (rounded to the safe side)."""
    faults = []
    value, bound, gap, efficiency = (float(x) for x in certificate)

    def note(kind, detail):
        faults.append(Fault(kind, f"{kind}: {what}, {judge.criterion.kind}", detail))

    lowest, whence = judge.best()
    if math.isnan(value) or math.isnan(bound) or math.isnan(gap):
        note("no number", f"value {value}, bound {bound}, gap {gap}")
        return faults
    if bound > lowest:
        note("false bound", f"bound {bound!r} above {lowest!r} ({whence}), by {bound - lowest:.3g}")
    exact = judge.value(labels) if labels is not None else math.nan
    declares = judge.criterion.kind != "square"
    if declares and math.isnan(efficiency):
        note("no number", "efficiency NaN")
    if declares and not math.isnan(efficiency):
        if not 0 <= efficiency <= 1:
            note("no number", f"efficiency {efficiency}")
        if efficiency > 0 and not (math.isfinite(bound) and math.isfinite(value)):
            note("no number", f"efficiency {efficiency} of value {value} and bound {bound}")
        true = efficiency_of(judge, exact, lowest) if math.isfinite(lowest) and not math.isnan(exact) else 1.0
        if efficiency > true + 1e-11 and efficiency > true * (1 + 1e-11):
            note(
                "false efficiency", f"{efficiency!r}, true at most {true!r} ({whence}); value {value!r} exact {exact!r}"
            )
        if tol is not None and status == "CERTIFIED" and true < 1 - tol - 1e-11:
            note("false efficiency", f"CERTIFIED to {tol:g}, true at most {true!r}")
    near = 1e-6 if not narrow else 1e-5
    if math.isfinite(value) and math.isfinite(exact):
        scale = max(1.0, abs(exact)) if judge.criterion.kind == "logdet" else abs(exact)
        if abs(value - exact) > near * scale:
            condition = judge.condition(labels)
            if abs(value - exact) > ROUNDINGS * np.finfo(float).eps / max(condition, 1e-300) * scale:
                note("false value", f"value {value!r}, exact {exact!r}, smallest eigenvalue {condition:.3g}")
    if math.isfinite(value) and math.isfinite(bound) and abs((value - bound) - gap) > near * max(abs(value), abs(gap)):
        note("no number", f"gap {gap!r} is not {value!r} - {bound!r}")
    return faults
