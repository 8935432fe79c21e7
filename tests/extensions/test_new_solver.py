"""A solver of a user's own: two pure functions, `init` and `step`, passed as an object; by public names only."""

from typing import Any, NamedTuple

import numpy as np
import pytest

import jaxdesign as jd
from jaxdesign.solvers import ColumnGeneration, Scored, SolverState


class Wynn(NamedTuple):
    """Frank-Wolfe in its first form (Wynn 1970): a step 1 / (k + 2) towards the answer of the linear oracle."""

    max_passes: int = 400
    patience: int = 400

    def init(self, problem: Any, start: jd.Design | None) -> SolverState:
        return ColumnGeneration().init(problem, start)

    def step(self, problem: Any, state: SolverState, scored: Scored, tol: float) -> SolverState:
        length = 1 / (state.passes + 2)
        oracle = scored.priced.oracle.labels
        pairs = np.concatenate([state.pairs, scored.priced.pairs])
        labels = np.concatenate([(1 - length) * state.labels, length * oracle * problem.limits.total / oracle.sum()])
        pairs, place = np.unique(pairs, axis=0, return_inverse=True)
        labels = np.bincount(place.ravel(), labels)
        return state._replace(pairs=pairs[labels > 0].astype(np.int32), labels=labels[labels > 0])


class WithoutSteps(NamedTuple):
    """What no solver is."""

    def init(self, problem, start):
        raise NotImplementedError


@pytest.fixture(scope="module")
def pool():
    return jd.CompletionPool(np.random.default_rng(0).standard_normal((12, 4, 3)).astype(np.float32))


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("limits", [{}, {"per_pair": 1, "per_prompt": 3}], ids=["repeats", "caps"])
def test_it_is_driven_and_certified_like_any_other(pool, limits):
    budget, rows = jd.Budget(20.0, **limits), []
    design = jd.optimize(pool, jd.LogDet(), budget, solver=Wynn(), tol=2e-3, callback=rows.append)
    assert design.status is jd.Status.CERTIFIED and tuple(rows) == design.trace
    best = jd.optimize(pool, jd.LogDet(), budget, tol=1e-7).certificate
    assert design.certificate.lower_bound <= best.value
    assert design.certificate.value >= best.lower_bound
    assert jd.evaluate(pool, jd.LogDet(), budget, design.pairs, design.labels).certificate.efficiency > 0.997


def test_what_is_no_solver_is_named(pool):
    with pytest.raises(TypeError, match="solver: expected a name or an object with init and step, found WithoutSteps"):
        jd.optimize(pool, jd.LogDet(), jd.Budget(20.0), solver=WithoutSteps())
