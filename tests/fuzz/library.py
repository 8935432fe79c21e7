"""The library as the harness calls it: its objects from plain data, its exceptions marked, its warnings noted."""

from __future__ import annotations

import warnings
from typing import Any

import jax.numpy as jnp

import jaxdesign as jd

from .judge import Judge
from .outcomes import Fault
from .problems import Problem


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


def library_budget(budget: dict) -> jd.Budget:
    quotas = [jd.Quota(**quota) for quota in budget.get("quotas", ())]
    constraints = [jd.Constraint(**constraint) for constraint in budget.get("constraints", ())]
    plain = {k: v for k, v in budget.items() if k not in ("quotas", "constraints")}
    return jd.Budget(**plain, quotas=quotas, constraints=constraints)


class Raised(Exception):
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
                raise Raised(error) from error
            finally:
                for warning in heard:
                    place = f"{warning.filename.rsplit('/jaxdesign/', 1)[-1]}:{warning.lineno}"
                    self.told[f"{warning.category.__name__} {str(warning.message)[:80]} at {place}"] = place
