"""Runs a problem through the library and has the judge look at what comes back.

What counts as a fault, most serious first:
    false bound       an allowed allocation lies below the lower bound
    false efficiency  above what the allocation's exact value and the best one known allow; also a false CERTIFIED
    broken budget     labels that the budget does not allow
    no number         NaN where the criterion declares a formula, an efficiency outside of [0, 1], a positive one where
                      nothing is proven, numbers of a certificate that contradict each other
    false value       not the criterion of the returned allocation: to 1e-6, or to what rounding every entry of A in
                      float64 may do where its smallest eigenvalue at unit diagonal is tiny
    exception         anything but ValueError or TypeError whose message begins with an argument's name
    accepted          arguments that must be refused
    refused wrongly   a problem that has a regular, allowed allocation
    no end            longer than the command's limit for one problem
    warning           of NumPy or JAX, on the way (a lesser fault)
"""

from __future__ import annotations

import math
import re
import traceback
import warnings
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxdesign as jd
from jaxdesign.budget.limits import Limits

from . import best, truth
from .allowed import Allowed, best_vertex, broken, violation, written_rules
from .problems import Problem

ARGUMENTS = re.compile(
    r"^(features|scores|mask|flip|ids|pool|crit|H|targets|scales|mixture|prior|budget|tol|solver|max_passes|labels|"
    r"pairs|annotators|assigned|quota|reading|seen|domain|language|prompt|annotator|size|per_pair|seed|design|start|callback|"
    r"methods|passes|power)\b[^ ]*( |:|=)"
)
SEVERITY = ("false bound", "false efficiency", "broken budget", "no number", "false value", "exception", "accepted",
            "refused wrongly", "no end", "warning")  # fmt: skip


ROUNDINGS = 16  # of an entry of A, in units of float64's


class Fault(NamedTuple):
    """One finding: its kind, a signature that puts like ones together, and the numbers."""

    kind: str
    signature: str
    detail: str


class Outcome(NamedTuple):
    """What became of a problem."""

    seed: int
    family: str
    function: str
    said: str  # status, or the argument that a refusal names
    bounds: int  # that were judged
    faults: list


def own_criterion(A):
    """tr A^-2: convex and decreasing, unknown to the library."""
    inverse = jnp.linalg.inv(A)
    return jnp.sum(inverse * inverse.T)


OWN = jd.Criterion(own_criterion)


def library_criterion(problem: Problem) -> Any:
    if problem.criterion == "logdet":
        return jd.LogDet()
    if problem.criterion == "own":
        return OWN
    if problem.criterion == "worst":
        return jd.WorstCase(list(problem.H))
    return jd.Trace(problem.H[0])


def exact_criterion(problem: Problem) -> truth.Criterion:
    kind = {"logdet": "logdet", "own": "square", "worst": "worst"}.get(problem.criterion, "trace")
    return truth.Criterion(kind, problem.H)


def library_budget(budget: dict) -> jd.Budget:
    quotas = [jd.Quota(**quota) for quota in budget.get("quotas", ())]
    constraints = [jd.Constraint(**constraint) for constraint in budget.get("constraints", ())]
    plain = {k: v for k, v in budget.items() if k not in ("quotas", "constraints")}
    return jd.Budget(**plain, quotas=quotas, constraints=constraints)


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


def run(problem: Problem) -> Outcome:
    """A problem's outcome; never raises for what the library does."""
    call, bounds = Library(), 0
    with jax.enable_x64(problem.wide):
        try:
            said, bounds = _run(problem, call)
        except _Raised as raised:
            said = _exception(problem, raised.error, call)
    faults = call.faults + [Fault("warning", f"warning: {text}", place) for text, place in call.told.items()]
    return Outcome(problem.seed, problem.family, problem.function, said, bounds, faults)


class _Raised(Exception):
    def __init__(self, error):
        super().__init__(str(error))
        self.error = error


class Library:
    """Calls of the library: what they raise comes marked as the library's, their warnings are noted; and the faults."""

    def __init__(self):
        self.told: dict[str, str] = {}
        self.judge: Judge | None = None
        self.faults: list[Fault] = []

    def __call__(self, function, *args, **kwargs):
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            try:
                return function(*args, **kwargs)
            except Exception as error:
                raise _Raised(error) from error
            finally:
                for warning in heard:
                    place = f"{warning.filename.rsplit('/jaxdesign/', 1)[-1]}:{warning.lineno}"
                    self.told[f"{warning.category.__name__} {str(warning.message)[:80]} at {place}"] = place


def _run(problem: Problem, call: Library) -> tuple[str, int]:
    """Status and number of bounds judged; faults go to `call`."""
    pool = call(jd.CompletionPool, problem.features, problem.scores, problem.mask)
    crit = call(library_criterion, problem)
    budget = call(library_budget, problem.budget)
    rng = np.random.default_rng([1, problem.seed])
    judge = call.judge = Judge(problem, pool)
    if len(problem.witness):
        judge.learn(judge.witness(problem), "witness")
    if problem.function in ("frank_wolfe", "multiplicative"):
        return _traceable(call, problem, judge, rng, pool, crit)
    if problem.function == "greedy":
        return _greedy(call, problem, judge, pool, crit)
    annotators = None if problem.annotators is None else call(lambda: jd.Annotators(**problem.annotators))
    known = {"prior": problem.prior, "annotators": annotators}
    if problem.function == "evaluate":
        return _evaluate(call, problem, judge, rng, pool, crit, budget, known)
    if problem.function == "select_pairs":
        design = call(jd.select_pairs, pool, crit, budget, tol=problem.tol, seed=problem.seed % 7, **known)
    else:
        passes = 60 if problem.solver in ("frank_wolfe", "multiplicative") else None
        design = call(jd.optimize, pool, crit, budget, tol=problem.tol, solver=problem.solver,
                       max_passes=passes, **known)  # fmt: skip
    what = f"{problem.function} {problem.solver or ''}".strip()
    labels, faults = _labels(judge, what, design.pairs, design.labels, design.annotators)
    call.faults += faults
    if labels is not None:
        judge.learn(labels, what)
    judge.look_for_better(rng, [] if labels is None else [labels])
    call.faults += judged(judge, what, design.certificate, labels, problem.tol, design.status.name)
    if problem.function == "optimize" and not faults:
        again = call(jd.evaluate, pool, crit, budget, design.pairs, design.labels,
                      assigned=design.annotators, **known)  # fmt: skip
        call.faults += judged(judge, "evaluate after optimize", again.certificate, labels)
    return design.status.name, 2


def _labels(judge, what, pairs, labels, annotators=None):
    """Dense labels and the faults of their budget."""
    labels = np.asarray(labels, np.float64)
    dense = judge.dense(pairs, labels, annotators) if np.isfinite(labels).all() else None
    if dense is None:
        return None, [
            Fault("broken budget", f"broken budget: {what}, no such pair", str(np.asarray(pairs)[:3].tolist()))
        ]
    missed = [(name, share) for name, share in broken(judge.rules, dense) if share > 1e-9]
    return dense, [
        Fault("broken budget", f"broken budget: {what}, {re.sub('[0-9]+', '#', name)}", f"{name} by {share:.3g}")
        for name, share in missed
    ]


def _evaluate(call, problem, judge, rng, pool, crit, budget, known):
    kind = rng.choice(["near", "random", "witness"], p=[0.5, 0.35, 0.15])
    labels = judge.witness(problem) if len(problem.witness) else np.zeros(0)
    judge.look_for_better(rng)
    if kind != "witness" and judge.search is not None:
        labels = best.relaxed(judge.search)
        if kind == "random":
            vertex = best_vertex(judge.rules, rng.random(len(labels)))
            labels = labels if vertex is None else 0.5 * (vertex + judge.search.start)
    used = labels > 0
    rows = judge.elements.rows[used]
    assigned = rows[:, 3].astype(np.int32) if known["annotators"] is not None else None
    design = call(jd.evaluate, pool, crit, budget, rows[:, :3], labels[used], assigned=assigned, **known)
    call.faults += judged(judge, f"evaluate {kind}", design.certificate, labels)
    return design.status.name, 1


def _traceable(call, problem, judge, rng, pool, crit):
    limits = Limits(problem.budget["total"], problem.budget.get("per_pair"), problem.budget.get("per_prompt"))
    solve = getattr(jd.solvers, problem.function)
    dense, certificate = call(solve, pool, crit, limits, prior=problem.prior, passes=40)
    dense = np.asarray(dense, np.float64)
    faults = call.faults
    if not np.array_equal(dense, dense.swapaxes(1, 2), equal_nan=True):
        faults.append(Fault("broken budget", f"broken budget: {problem.function} not symmetric", ""))
    p, i, j = np.nonzero(np.triu(np.ones(dense.shape[1:]), 1)[None] * (dense != 0))
    narrow = not problem.wide
    if not math.isfinite(float(certificate[0])):
        call.faults += judged(judge, problem.function, certificate, None, narrow=narrow)
        return "inf", 0
    labels = judge.dense(np.column_stack([p, i, j]), dense[p, i, j])
    if labels is None:
        faults.append(Fault("broken budget", f"broken budget: {problem.function}, no such pair", ""))
        return "", 0
    missed = [(n, s) for n, s in broken(judge.rules, labels) if s > (1e-5 if narrow else 1e-9)]
    faults += [
        Fault("broken budget", f"broken budget: {problem.function}, {n.split()[0]}", f"{n} {s:.3g}") for n, s in missed
    ]
    judge.look_for_better(rng)
    faults += judged(judge, problem.function, certificate, labels, narrow=narrow)
    return "certificate", 1


def _greedy(call, problem, judge, pool, crit):
    size = 8
    cap = problem.budget.get("per_pair")
    pairs, labels = call(jd.greedy, pool, crit, size=size, per_pair=cap, prior=problem.prior)
    pairs, labels = np.asarray(pairs), np.asarray(labels)
    caps = np.broadcast_to(np.inf if cap is None else cap, problem.features.shape[:1])[judge.elements.rows[:, 0]]
    room = np.minimum(caps, size).sum()
    faults = call.faults
    if not set(np.unique(labels)) <= {0.0, 1.0} or labels.sum() != min(size, room):
        faults.append(
            Fault("broken budget", "broken budget: greedy, number of labels", f"{labels.sum()} of {min(size, room)}")
        )
    dense = judge.dense(pairs[labels > 0], labels[labels > 0])
    if dense is None or (dense > caps).any():
        faults.append(Fault("broken budget", "broken budget: greedy, pairs", str(pairs.tolist())))
    return "chosen", 0


def _exception(problem: Problem, error: Exception, call: Library) -> str:
    """What an exception is worth: a refusal in words, a wrong one, or a fault."""
    judge = call.judge
    kind, text = type(error).__name__, str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    inside = [frame for frame in traceback.extract_tb(error.__traceback__) if "/jaxdesign/" in frame.filename]
    where = f"{inside[-1].filename.rsplit('/jaxdesign/', 1)[1]}:{inside[-1].name}" if inside else place.name
    pattern = re.sub(r"[-+]?\d[\d.e+-]*", "#", text)[:90]
    if not isinstance(error, ValueError | TypeError) or not ARGUMENTS.match(text):
        call.faults.append(Fault("exception", f"exception: {kind} in {where}: {pattern}", text[:300]))
        return kind
    named = ARGUMENTS.match(text).group(1)
    if judge is None or judge.search is None:
        return f"refused {named}"
    judge.look_for_better(np.random.default_rng(0))
    if not judge.known:
        return f"refused {named}"
    condition = judge.condition(judge.lowest[1] if judge.whole else judge.search.start)
    if "information of all pairs" in text:  # of the even allocation, which one huge pair makes singular to rounding
        even = np.full(len(judge.elements.rows), problem.budget["total"] / len(judge.elements.rows))
        condition = min(condition, judge.condition(even))
    if condition < 1e-9:
        return f"refused {named}"
    detail = f"{text[:300]} (condition {condition:.3g})"
    call.faults.append(Fault("refused wrongly", f"refused wrongly: {problem.function}: {pattern}", detail))
    return f"refused {named}"
