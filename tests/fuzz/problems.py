"""Random problems: values x prior x total x budget x criterion x solver x dtype x function, each from one seed.

Budgets are drawn around labels that obey them, so every budget can be met. Everything is plain NumPy; `harness` turns
it into the library's objects. H and matrix priors are products of small integers and powers of two, so that what is
positive semidefinite on paper is so to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .allowed import rows_of_constraint
from .values import FAMILIES, draw_values

LIMITS = ("total", "cap", "quota", "both", "groups", "minima", "costs", "required", "exclude", "tasks", "annotators",
          "everything", "constraints")  # fmt: skip
TRACEABLE = ("greedy", "frank_wolfe", "multiplicative")
PLAIN = ("total", "cap", "quota", "both")


@dataclass(frozen=True)
class Problem:
    """One problem as plain data."""

    seed: int
    family: str
    wide: bool  # float64 features with x64 on; float32 otherwise
    features: np.ndarray  # (P, K, d), in the dtype that is stored
    scores: np.ndarray | None  # (P, K), (R, P, K) of R draws, or None
    mask: np.ndarray | None
    prior: Any
    criterion: str
    H: np.ndarray | None  # (T, d, d)
    limits: str
    budget: dict
    annotators: dict | None
    function: str
    solver: str | None
    tol: float
    witness: np.ndarray = field(repr=False)  # (E, 5): p, i, j, annotator, labels that obey the budget


@dataclass(frozen=True)
class Program:
    """What is compiled for; what is left are values. Criteria of one kind (LogDet, Trace, ...) share programs."""

    shape: tuple[int, int, int]
    criteria: tuple[str, ...]
    function: str
    solver: str | None = None
    wide: bool = False
    scored: bool = False
    draws: int | None = None  # of scores, which then have an axis of their own
    limits: tuple[str, ...] = tuple(name for name in LIMITS if name != "annotators")
    weight: float = 1.0


SQUARE, DEEP, SINGLE, MEDIUM, BROAD = (5, 4, 4), (1, 48, 2), (1, 4, 1), (4, 6, 3), (10, 2, 4)
LOGDET, TRACE, WORST, OWN = ("logdet",), ("trace", "low_rank", "ill"), ("worst",), ("own",)

FEW = (  # compiled in every run of the tests
    Program(SQUARE, LOGDET, "optimize", weight=4),
    Program(SQUARE, LOGDET, "optimize", "interior_point", limits=PLAIN),
    Program(SQUARE, LOGDET, "evaluate", weight=3),
    Program(SQUARE, LOGDET, "select_pairs", weight=2),
    Program(SQUARE, TRACE, "optimize", weight=3),
    Program(SQUARE, TRACE, "evaluate", weight=3),
    Program(SINGLE, LOGDET, "optimize", scored=True, limits=PLAIN),
    Program(SQUARE, LOGDET, "optimize", wide=True, limits=PLAIN),
    Program(SQUARE, LOGDET, "frank_wolfe"),
    Program(DEEP, LOGDET, "evaluate", limits=PLAIN),
    Program(SQUARE, WORST, "evaluate"),
    Program(BROAD, LOGDET, "evaluate", scored=True),
)
MANY = (
    *FEW,
    Program(SQUARE, LOGDET, "optimize", limits=("annotators",)),
    Program(SQUARE, LOGDET, "evaluate", limits=("annotators",)),
    Program(SQUARE, TRACE, "evaluate", limits=("annotators",)),
    Program(SQUARE, LOGDET, "select_pairs", limits=("annotators",), weight=0.5),
    *(Program(SQUARE, LOGDET, "optimize", name, limits=PLAIN)
      for name in ("matrix_atoms", "frank_wolfe", "multiplicative")),
    *(Program(SQUARE, TRACE, "optimize", name, limits=PLAIN)
      for name in ("interior_point", "matrix_atoms", "frank_wolfe", "multiplicative")),
    Program(SQUARE, TRACE, "select_pairs", weight=2),
    Program(SQUARE, LOGDET, "multiplicative"),
    Program(SQUARE, TRACE, "multiplicative"),
    Program(SQUARE, TRACE, "frank_wolfe"),
    Program(SQUARE, LOGDET, "greedy", weight=0.5),
    Program(SQUARE, TRACE, "greedy", weight=0.5),
    Program(SQUARE, LOGDET, "evaluate", wide=True, weight=2),
    Program(SQUARE, LOGDET, "optimize", "interior_point", wide=True, limits=PLAIN),
    Program(SQUARE, LOGDET, "select_pairs", wide=True),
    Program(SQUARE, WORST, "optimize", weight=2),
    Program(SQUARE, WORST, "select_pairs"),
    Program(SQUARE, OWN, "optimize"),
    Program(SQUARE, OWN, "evaluate"),
    Program(SINGLE, LOGDET, "evaluate", scored=True, limits=PLAIN),
    Program(MEDIUM, LOGDET, "optimize", scored=True, weight=2),
    Program(MEDIUM, TRACE, "optimize", scored=True, wide=True, weight=2),
    Program(MEDIUM, TRACE, "evaluate", scored=True, wide=True, weight=2),
    Program(MEDIUM, TRACE, "select_pairs", scored=True),
    Program(BROAD, LOGDET, "optimize", weight=3),
    Program(BROAD, LOGDET, "select_pairs"),
    Program(BROAD, TRACE, "optimize", wide=True),
    Program(DEEP, LOGDET, "optimize"),
    Program(DEEP, TRACE, "optimize", scored=True),
    Program(DEEP, TRACE, "evaluate", scored=True),
    Program(MEDIUM, LOGDET, "optimize", scored=True, draws=3),
    Program(MEDIUM, LOGDET, "evaluate", scored=True, draws=3),
    Program(MEDIUM, LOGDET, "select_pairs", scored=True, draws=3),
    Program(MEDIUM, TRACE, "optimize", scored=True, draws=3),
    Program(MEDIUM, TRACE, "evaluate", scored=True, draws=3),
    Program(MEDIUM, WORST, "evaluate", scored=True, draws=3),
)  # fmt: skip
LISTS = {"few": FEW, "many": MANY}


def draw_program(seed: int, programs: tuple[Program, ...] = MANY) -> tuple[int, np.random.Generator]:
    """Which of the programs a seed runs on, and the generator of everything else about its problem."""
    rng = np.random.default_rng([20260619, seed])
    weights = np.array([program.weight for program in programs])
    return int(rng.choice(len(programs), p=weights / weights.sum())), rng


def draw(seed: int, programs: tuple[Program, ...] = MANY) -> Problem:
    """The problem of a seed, on one of the programs."""
    number, rng = draw_program(seed, programs)
    program = programs[number]
    criterion = str(rng.choice(program.criteria))
    far = [name for name in FAMILIES if name != "far_scores" or program.scored]
    family = str(rng.choice(far + 3 * ["far_scores"] * program.scored))
    shape, wide = program.shape, program.wide
    values = draw_values(rng, family, shape, wide)
    features = values.features.astype(np.float64 if wide else np.float32)
    mask = None
    if rng.random() < 0.2:
        mask = rng.random(shape[:2]) < 0.75
        mask[rng.integers(shape[0]), :2] = True
    scores = None
    if program.scored or values.scores is not None:
        scores = values.scores
        if scores is None:
            scores = rng.normal(0, rng.choice([0.0, 0.5, 2.0, 30.0]), shape[:2])
        if program.draws is not None:
            scores = scores + rng.normal(0, rng.choice([0.0, 0.1, 1.0, 10.0]), (program.draws, *shape[:2]))
        scores = scores.astype(features.dtype)
    exists = np.ones(shape[:2], bool) if mask is None else mask
    limits = str(rng.choice(program.limits))
    if program.function in TRACEABLE:
        limits = str(rng.choice(PLAIN))
    whole = program.function in ("select_pairs", "greedy")
    budget, annotators, witness = draw_budget(rng, features, exists, limits, whole)
    prior = draw_prior(rng, features, exists, values.units, budget["total"])
    units = 2.0 ** np.rint(np.log2(values.units))
    H = draw_targets(rng, criterion, units)
    if mask is not None:
        features = np.where(mask[..., None], features, np.nan)
    tol = float(rng.choice([1e-2, 1e-3, 1e-4, 1e-6, 1e-8], p=[0.1, 0.4, 0.1, 0.2, 0.2]))
    if program.solver in ("frank_wolfe", "multiplicative"):
        tol = max(tol, 1e-3)
    return Problem(
        seed, family, wide, features, scores, mask, prior, criterion, H, limits, budget, annotators,
        program.function, program.solver, tol, witness,
    )  # fmt: skip


def pairs_of(features, exists) -> np.ndarray:
    """(E, 3) candidate pairs."""
    prompts, completions = exists.shape
    found = [
        (p, i, j)
        for p in range(prompts)
        for i in range(completions)
        for j in range(i + 1, completions)
        if exists[p, i] and exists[p, j] and (features[p, i] != features[p, j]).any()
    ]
    return np.array(found, np.int64).reshape(-1, 3)


def draw_total(rng, dim, limits) -> int:
    kind = rng.choice(["one", "few", "dimension", "usual", "many"], p=[0.1, 0.15, 0.15, 0.5, 0.1])
    total = {"one": 1, "few": int(rng.integers(2, 4)), "dimension": dim, "usual": int(rng.integers(5, 17))}.get(kind)
    return int(10 ** rng.choice([2, 3, 4, 6])) if total is None else total


def draw_budget(rng, features, exists, limits: str, whole: bool):
    """Arguments of a budget and of annotators, and labels that obey both."""
    prompts = len(exists)
    pairs = pairs_of(features, exists)
    total = draw_total(rng, features.shape[2], limits)
    everything = limits == "everything"

    def has(*names):
        return limits in names or (everything and rng.random() < 0.5)

    count = 2 if limits == "annotators" else 1
    elements = np.repeat(np.column_stack([pairs, np.zeros(len(pairs), int)]), count, axis=0)
    elements[:, 3] = np.tile(np.arange(count), len(pairs))
    size = len(elements)
    if size == 0:  # no pair can be told apart: to be refused
        return {"total": float(total)}, None, np.zeros((0, 5))
    task = int(rng.choice([2, 3])) if limits == "tasks" else 1
    labels = np.zeros(size)
    budget = {}
    if has("cap", "both", "required") or (limits not in ("total", "quota") and rng.random() < 0.3):
        cap = rng.choice([1, 1, 2, 3], prompts) if rng.random() < 0.3 else np.full(prompts, rng.choice([1, 1, 2, 3]))
        cap = cap.astype(float) * task
        if rng.random() < 0.2:
            cap[rng.random(prompts) < 0.3] = np.inf
        budget["per_pair"] = float(cap[0]) if (cap == cap[0]).all() and rng.random() < 0.8 else cap
        room = cap[elements[:, 0]]
    else:
        room = np.full(size, np.inf)
    home = None
    if total > 3 * size:
        open_ = np.flatnonzero(np.isinf(room))
        if len(open_) and has("quota") and rng.random() < 0.6:  # nearly all labels in one prompt, quotas on the others
            home = elements[rng.choice(open_), 0]
            labels = np.where(elements[:, 0] == home, 0, task * rng.integers(0, 2, size)).astype(float)
            open_ = open_[elements[open_, 0] == home]
        if len(open_):
            labels[open_] = task * rng.multinomial(total // task, rng.dirichlet(np.full(len(open_), 0.5)))
        else:
            total = size
    if not labels.any():
        for _ in range(max(total // task, 1)):
            fits = np.flatnonzero(labels + task <= room)
            if not len(fits):
                break
            labels[rng.choice(fits)] += task
    if not labels.any():
        labels[0] = task
    if not whole and task == 1 and "per_pair" not in budget and rng.random() < 0.3:
        labels = labels * rng.uniform(0.4, 2.5)
    spent = np.bincount(elements[:, 0], labels, prompts)
    if has("required") and task == 1 and (labels > 0).sum() > 1 and labels.sum() < 200:
        chosen = rng.choice(np.flatnonzero(labels > 0), size=rng.integers(1, max(2, (labels > 0).sum() // 2)))
        chosen = np.unique(chosen)[: max(1, (labels > 0).sum() - 1)]
        labels[chosen] = np.maximum(np.floor(labels[chosen]), 1)
        budget["required"] = np.repeat(elements[chosen, :3], labels[chosen].astype(int), axis=0)
    if has("exclude") and (labels == 0).any():
        empty = np.flatnonzero(labels == 0)
        closed = rng.choice(empty, size=rng.integers(1, len(empty) + 1), replace=False)
        if count == 1:
            budget["exclude"] = elements[closed][:, [0, 2, 1]]  # (p, j, i) is the same pair
    spent = np.bincount(elements[:, 0], labels, prompts)
    if has("quota", "both"):
        quota = np.maximum(spent + rng.choice([0, 0, 1, 3], prompts), 1.0)
        if home is not None:
            quota[home] = np.inf
        if rng.random() < 0.3:
            quota[rng.random(prompts) < 0.4] = np.inf
        budget["per_prompt"] = float(quota.max()) if rng.random() < 0.4 else quota
    if has("minima"):
        budget["per_prompt_min"] = np.maximum(spent - rng.choice([0, 1, 2], prompts), 0.0)
    if has("groups"):
        budget["quotas"] = []
        for name in ("domain", "language")[: rng.integers(1, 3)]:
            of = rng.integers(0, min(3, prompts), prompts)
            names = np.unique(of)
            held = np.array([spent[of == group].sum() for group in names])
            low = np.where(rng.random(len(names)) < 0.6, np.maximum(held - rng.choice([0, 0, 1, 2], len(names)), 0), 0)
            high = np.where(rng.random(len(names)) < 0.6, held + rng.choice([0, 0, 1, 2], len(names)), np.inf)
            at_least, at_most = (dict(zip(names.tolist(), map(float, v), strict=True)) for v in (low, high))
            budget["quotas"].append({"of": of, "at_least": at_least, "at_most": at_most, "name": name})
    annotators = None
    if count == 2:
        held = np.bincount(elements[:, 3], labels, count)
        annotators = {"flip": np.round(rng.uniform(0, 0.4, count), 3) * (rng.random(count) < 0.8)}
        if rng.random() < 0.5:
            annotators["at_most"] = held + rng.choice([0.0, 1.0, 3.0], count)
        if rng.random() < 0.3:
            annotators["at_least"] = np.maximum(held - rng.choice([0.0, 1.0], count), 0)
        if rng.random() < 0.5:
            annotators["cost"] = rng.choice([0.0, 0.5, 1.0, 4.0], count)
    if has("constraints"):
        budget["constraints"] = [
            draw_constraint(rng, elements, labels, exists, count, name)
            for name in ("reading", "seen")[: rng.integers(1, 3)]
        ]
    if has("costs") or (annotators is not None and "cost" in annotators):
        cost = rng.choice([0.0, 1.0, 5.0], exists.shape) if rng.random() < 0.6 else rng.gamma(3, 1, exists.shape)
        budget["cost"] = np.where(exists, cost, np.nan)
        budget["cost_per_label"] = float(rng.choice([0.0, 0.5]))
        p, i, j, a = elements.T
        own = 0.0 if annotators is None or "cost" not in annotators else annotators["cost"][a]
        paid = float(labels @ (cost[p, i] + cost[p, j] + budget["cost_per_label"] + own))
        budget["cost_total"] = paid * rng.choice([1.0, rng.uniform(1, 1.3)]) if paid > 0 else 1.0
    if task > 1:
        budget["labels_per_task"] = task
    budget["total"] = float(labels.sum())
    used = labels > 0
    return budget, annotators, np.column_stack([elements[used], labels[used]])


def draw_constraint(rng, elements, labels, exists, count: int, name: str) -> dict:
    """A constraint of any kind that the labels obey, often just so."""
    prompts = len(exists)
    kind = rng.choice(["number", "prompts", "completions"])
    charges = {"number": 1.0, "prompts": rng.choice([0.0, 1.0, 2.5], prompts),
               "completions": rng.choice([0.0, 1.0, 3.0], exists.shape)}[kind]  # fmt: skip
    per = [None, "prompt", "completion", "groups", "names"][rng.integers(0, 5 if kind == "completions" else 4)]
    if per == "groups":
        per = rng.integers(0, 3, prompts)
    elif per == "names":
        per = rng.integers(0, 4, exists.shape)
    found = {"charges": charges, "per": per, "name": name}
    if count > 1 and rng.random() < 0.5:
        found["annotators"] = (str(rng.integers(0, count)),)
    used = [float(of @ labels) for of in rows_of_constraint(found, elements).values()]
    found["high"] = max(used, default=0.0) + rng.choice([0.0, 0.0, 1.0, 2.0])
    if rng.random() < 0.3 and not isinstance(per, str):  # rows that no pair of the pool touches use nothing
        found["low"] = max(min(used, default=0.0) - rng.choice([0.0, 1.0]), 0.0) if per is None else 0.0
    return found


def exact_psd(rng, units, rank=None, spread=0) -> np.ndarray:
    """D L diag(2^-k) L^T D with integers in L: exactly positive semidefinite, of the given rank."""
    dim = len(units)
    lower = np.tril(rng.integers(-2, 3, (dim, dim)), -1) + np.eye(dim)
    powers = 2.0 ** -rng.integers(0, spread + 1, dim)
    if rank is not None:
        powers[rng.permutation(dim)[rank:]] = 0
    return units[:, None] * (lower @ (powers[:, None] * lower.T)) * units


def draw_prior(rng, features, exists, units, total):
    """None, ridges of 1e-12 to 1e3 times the trace of a typical information, or matrices in the units of features."""
    kind = rng.choice(["none", "ridge", "matrix", "held"], p=[0.35, 0.4, 0.15, 0.1])
    if kind == "none":
        return None
    rows = np.where(exists[..., None], features, 0).astype(np.float64)
    rows = rows - rows.mean(axis=1, keepdims=True)
    share = 10.0 ** rng.uniform(-12, 3)
    if kind == "ridge":
        trace = total / 4 * 2 * (rows**2).sum() / max(exists.sum(), 1)
        return float(max(share * trace, 1e-300))
    powers = 2.0 ** np.rint(np.log2(units))
    scale = 2.0 ** np.rint(np.log2(share * total))
    rank = None if kind == "matrix" else int(rng.integers(1, len(units) + 1))
    return scale * exact_psd(rng, powers, rank)


def draw_targets(rng, criterion: str, units) -> np.ndarray | None:
    dim = len(units)
    if criterion in ("logdet", "own"):
        return None
    if criterion == "trace":
        return (np.eye(dim) if rng.random() < 0.5 else exact_psd(rng, units))[None]
    if criterion == "low_rank":
        return exact_psd(rng, units, rank=int(rng.integers(1, dim + 1)))[None]
    if criterion == "ill":
        return exact_psd(rng, units, spread=36)[None]
    ranks = [None, int(rng.integers(1, dim + 1)), int(rng.integers(1, dim + 1))]
    return np.array([exact_psd(rng, units, rank) * 2.0 ** rng.integers(-3, 4) for rank in ranks])


def as_python(problem: Problem) -> str:
    """The problem as lines of Python that call the library."""

    def text(value):
        if isinstance(value, np.ndarray):
            digits = np.array2string(value, separator=", ", floatmode="unique", threshold=10**6, max_line_width=118)
            return f"np.array({digits}, np.{value.dtype})"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{k!r}: {text(v)}" for k, v in value.items()) + "}"
        return repr(value)

    quotas = "".join(
        f"jd.Quota({', '.join(f'{k}={text(v)}' for k, v in quota.items())}), "
        for quota in problem.budget.get("quotas", ())
    )
    constraints = "".join(
        f"jd.Constraint({', '.join(f'{k}={text(v)}' for k, v in constraint.items())}), "
        for constraint in problem.budget.get("constraints", ())
    )
    plain = {k: v for k, v in problem.budget.items() if k not in ("quotas", "constraints")}
    budget = ", ".join(f"{k}={text(v)}" for k, v in plain.items())
    budget += f", quotas=[{quotas}]" * bool(quotas) + f", constraints=[{constraints}]" * bool(constraints)
    target = text(None if problem.H is None else problem.H[0])
    criterion = {"logdet": "jd.LogDet()", "worst": f"jd.WorstCase(list({text(problem.H)}))", "own":
                 "jd.Criterion(lambda A: jnp.sum(jnp.linalg.inv(A) * jnp.linalg.inv(A).T))"}  # fmt: skip
    arguments = f"prior={text(problem.prior)}"
    if problem.function in ("optimize", "select_pairs"):
        arguments += f", tol={problem.tol!r}"
    if problem.solver:
        arguments += f", solver={problem.solver!r}"
    if problem.annotators is not None:
        arguments += f", annotators=jd.Annotators(**{text(problem.annotators)})"
    return "\n".join([
        f"# seed {problem.seed}: {problem.family}, {problem.limits}, {problem.function}" + ", x64" * problem.wide,
        "import jax, jax.numpy as jnp, numpy as np, jaxdesign as jd", "nan, inf = np.nan, np.inf",
        f"jax.config.update('jax_enable_x64', {problem.wide})",
        f"pool = jd.CompletionPool({text(problem.features)}, {text(problem.scores)}, {text(problem.mask)})",
        f"crit = {criterion.get(problem.criterion) or f'jd.Trace({target})'}",
        f"budget = jd.Budget({budget})",
        f"x = jd.{problem.function}(pool, crit, budget, {arguments})  # evaluate: pairs and labels from the harness",
    ])  # fmt: skip
