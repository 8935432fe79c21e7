"""Methods declare the kinds of limits they obey: of several the first that will do is taken, others are refused."""

from typing import Any, NamedTuple

import numpy as np
import pytest

import jaxdesign
from jaxdesign import Budget, Constraint, LogDet, Quota, solvers
from jaxdesign.budget.kinds import EVERY_KIND, LAMINAR, check_obeyed, obeying
from jaxdesign.door import make_problem
from jaxdesign.exact.candidates import CANDIDATES
from jaxdesign.solvers.optimize import SOLVERS, solver_for
from tests.support.coupled import DOMAIN, coupled_case
from tests.support.problems import random_pool

ONES = np.ones((6, 5))
KINDS: dict[str, dict[str, Any]] = {
    "per_pair": {"per_pair": 1},
    "per_prompt": {"per_prompt": 4},
    "per_prompt_min": {"per_prompt_min": 1},
    "quotas": {"quotas": Quota(DOMAIN, at_most=8)},
    "cost_total": {"cost": ONES, "cost_total": 44.0},
    "constraints": {"constraints": Constraint(1, high=6, per="completion")},
}


def limits_of(**limits):
    return make_problem(random_pool(0, "no", ragged=False, copies=False), LogDet(), Budget(12, **limits), 0.1).limits


class Own(NamedTuple):
    """A solver of a user's own that knows nothing but caps."""

    max_passes: int = 1
    patience: int = 1
    obeys = frozenset({"per_pair"})

    def init(self, problem, start):
        return solvers.ColumnGeneration().init(problem, start)

    def step(self, problem, state, scored, tol):
        return state


@pytest.mark.parametrize("kind", KINDS)
def test_each_field_of_a_budget_is_a_kind_of_its_own(kind):
    kinds = limits_of(**KINDS[kind]).kinds
    assert kind in kinds and kinds - {kind} <= {"per_pair"}  # no pair may have more labels than its prompt
    assert limits_of(**KINDS[kind]).laminar == (kind in LAMINAR)


def test_no_limit_is_no_kind():
    assert not limits_of().kinds
    assert limits_of(**{name: value for one in KINDS.values() for name, value in one.items()}).kinds == EVERY_KIND


def test_the_first_that_obeys_all_kinds_is_taken():
    assert isinstance(solver_for(limits_of(per_pair=1, per_prompt=4), None), solvers.ColumnGeneration)
    for kind in EVERY_KIND - LAMINAR:
        assert isinstance(solver_for(limits_of(per_pair=1, **KINDS[kind]), None), solvers.CoupledAtoms)


@pytest.mark.parametrize("solver", [*sorted(SOLVERS), solvers.ColumnGeneration(), Own()])
def test_a_solver_asked_for_is_refused_by_the_kinds_it_does_not_obey(solver):
    limits = limits_of(per_prompt_min=1, **KINDS["cost_total"])
    words = "only, and the budget has least numbers per prompt and a spend limit; use solver=None"
    with pytest.raises(ValueError, match=words) as error:
        solver_for(limits, solver)
    assert str(error.value).startswith(f"solver={solver!r}: knows caps per pair")
    assert solver_for(limits_of(per_pair=1), solver) is not None


def test_a_solver_that_declares_nothing_is_taken_to_obey_everything():
    class Silent:
        init, step, max_passes, patience = Own.init, Own.step, 1, 1

    assert isinstance(solver_for(limits_of(**KINDS["quotas"]), Silent()), Silent)


def test_what_is_known_and_what_is_not_is_named():
    with pytest.raises(ValueError, match=r"^It knows the total only, and the budget has caps per pair; do not$"):
        check_obeyed(frozenset({"per_pair"}), frozenset(), "It", "do not")
    check_obeyed(LAMINAR, EVERY_KIND, "It", "do not")


def test_whole_labels_can_be_chosen_under_every_budget_in_some_way():
    names = [[candidate.name for candidate in row] for row in CANDIDATES]
    assert len({name for row in names for name in row}) == sum(len(set(row)) for row in names)
    for kinds in (LAMINAR, EVERY_KIND):
        taken = [found[0].name for row in CANDIDATES if (found := obeying(kinds, row))]
        assert taken[0] == ("best_set" if kinds == LAMINAR else "rounded") and "dependent" in taken


@pytest.mark.slow
def test_select_pairs_tries_what_obeys_the_budget():
    case = coupled_case(3)
    tried = jaxdesign.select_pairs(case.pool, LogDet(), case.budget, prior=0.1, tol=0.0).report["candidates"]
    assert {"rounded", "dependent"} <= set(tried) and not {"best_set", "greedy", "adams"} & set(tried)
    tried = jaxdesign.select_pairs(case.pool, LogDet(), Budget(12, 1), prior=0.1, tol=0.0).report["candidates"]
    assert {"best_set", "dependent", "greedy"} <= set(tried) and not {"rounded", "adams"} & set(tried)
