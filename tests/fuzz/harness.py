"""Runs a problem through the library and has the judge look at what comes back; faults are those of `outcomes`."""

from __future__ import annotations

import math
import re
import traceback

import jax
import numpy as np

import jaxdesign as jd
from jaxdesign.budget.limits import Limits

from . import best
from .allowed import best_vertex, broken
from .judge import Judge, judged
from .library import Library, Raised, library_budget, library_criterion
from .outcomes import ARGUMENTS, Fault, Outcome
from .problems import Problem


def run(problem: Problem) -> Outcome:
    """A problem's outcome; never raises for what the library does."""
    call, bounds = Library(), 0
    with jax.enable_x64(problem.wide):
        try:
            said, bounds = _run(problem, call)
        except Raised as raised:
            said = _exception(problem, raised.error, call)
    faults = call.faults + [Fault("warning", f"warning: {text}", place) for text, place in call.told.items()]
    return Outcome(problem.seed, problem.family, problem.function, said, bounds, faults)


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
