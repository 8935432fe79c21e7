"""A problem as lines of Python that call the library."""

from __future__ import annotations

import numpy as np

from .problems import Problem


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
