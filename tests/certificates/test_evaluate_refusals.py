"""Labels that `evaluate` refuses, by the name of the argument: against the budget, and as arrays."""

import numpy as np
import pytest

from jaxdesign.budget.budget import Budget
from jaxdesign.certificates.evaluate import evaluate
from jaxdesign.criteria.log_det import LogDet
from tests.support.refusals import POOL, check_refusal

PAIRS, LABELS = [[0, 0, 2], [3, 1, 2], [4, 0, 3], [5, 1, 2]], [1.0, 2, 3, 4]


def judged(pairs=PAIRS, labels=LABELS, budget=None, prior=None):
    return evaluate(POOL, LogDet(), budget or Budget(10), pairs, labels, prior)


# what is called, the kind of error, fragments its text must hold
CASES = {
    "labels above the total": (
        lambda: judged(labels=[1, 2, 3, 5]),
        ValueError,
        ["labels", "sum to 11", "budget.total=10"],
    ),
    "labels below the total": (
        lambda: judged(labels=[1, 2, 3, 3]),
        ValueError,
        ["labels", "sum to 9", "budget.total=10"],
    ),
    "labels above the cap": (
        lambda: judged(budget=Budget(10, per_pair=3)),
        ValueError,
        ["labels", "(5, 1, 2)", "4 labels", "budget.per_pair=3"],
    ),
    "labels above the quota": (
        lambda: judged([[0, 0, 2], [0, 0, 3]], [5, 5], Budget(10, per_prompt=6)),
        ValueError,
        ["labels", "prompt 0", "10 labels", "budget.per_prompt=6"],
    ),
    "a repeated pair above the cap": (
        lambda: judged([[0, 0, 2], [0, 2, 0], [3, 0, 1]], [3, 3, 4], Budget(10, per_pair=5)),
        ValueError,
        ["labels", "(0, 0, 2)", "6 labels"],
    ),
    "negative labels": (lambda: judged(labels=[1, 2, -3, 10]), ValueError, ["labels", "-3 at row 2", "at least 0"]),
    "NaN labels": (lambda: judged(labels=[1, np.nan, 3, 6]), ValueError, ["labels", "nan at row 1", "finite"]),
    "too few labels": (lambda: judged(labels=[5, 5]), ValueError, ["labels", "(2,)", "(4,)"]),
    "pairs with two columns": (lambda: judged(pairs=[[0, 1]] * 4), ValueError, ["pairs", "(4, 2)", "(S, 3)"]),
    "pairs of floats": (lambda: judged(pairs=np.array(PAIRS, float)), TypeError, ["pairs", "float64", "integers"]),
    "a pair with itself": (
        lambda: judged(pairs=[*PAIRS[:3], [5, 1, 1]]),
        ValueError,
        ["pairs", "row 3", "(5, 1, 1)", "different"],
    ),
    "a pair with a masked completion": (
        lambda: judged(pairs=[[1, 0, 2], *PAIRS[1:]]),
        ValueError,
        ["pairs", "row 0", "(1, 0, 2)", "existing"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_named_with_what_is_allowed(name):
    check_refusal(*CASES[name])
