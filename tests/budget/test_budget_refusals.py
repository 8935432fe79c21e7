"""Budgets that are refused, by the name of the argument, alone and for a pool."""

import numpy as np
import pytest

from jaxdesign.budget.budget import Budget
from tests.support.refusals import check_refusal, prepared

# what is called, the kind of error, fragments its text must hold
CASES = {
    "total of zero": (lambda: Budget(0), ValueError, ["budget.total=0", "positive and finite"]),
    "negative total": (lambda: Budget(-5), ValueError, ["budget.total=-5", "positive and finite"]),
    "infinite total": (lambda: Budget(np.inf), ValueError, ["budget.total=inf", "positive and finite"]),
    "NaN total": (lambda: Budget(np.nan), ValueError, ["budget.total=nan", "positive and finite"]),
    "no total": (lambda: Budget(None), TypeError, ["budget.total=None", "number"]),
    "a total in words": (lambda: Budget("many"), TypeError, ["budget.total='many'", "number"]),
    "a total that is a list": (lambda: Budget([1, 2]), TypeError, ["budget.total", "number", "list"]),
    "per_pair of zero": (lambda: Budget(5, per_pair=0), ValueError, ["budget.per_pair=0", "at least 1", "mask"]),
    "per_pair below one for a prompt": (
        lambda: Budget(5, per_pair=[1, 0.5, 1]),
        ValueError,
        ["budget.per_pair=0.5", "at least 1"],
    ),
    "NaN per_pair": (lambda: Budget(5, per_pair=np.nan), ValueError, ["budget.per_pair=nan", "at least 1"]),
    "per_pair in words": (lambda: Budget(5, per_pair="one"), TypeError, ["budget.per_pair", "'one'"]),
    "per_pair with two axes": (
        lambda: Budget(5, per_pair=np.ones((6, 5))),
        ValueError,
        ["budget.per_pair", "(6, 5)", "(P,)"],
    ),
    "negative per_prompt": (lambda: Budget(5, per_prompt=-1), ValueError, ["budget.per_prompt=-1", "at least 1"]),
    "a cost without a spend limit": (
        lambda: Budget(5, cost=np.ones((6, 5))),
        ValueError,
        ["budget.cost_total", "missing", "may cost"],
    ),
    "per_pair of another length": (
        lambda: prepared(budget=Budget(5, per_pair=[1, 1])),
        ValueError,
        ["budget.per_pair", "(2,)", "(6,)"],
    ),
    "per_prompt of another length": (
        lambda: prepared(budget=Budget(5, per_prompt=[1] * 7)),
        ValueError,
        ["budget.per_prompt", "(7,)", "(6,)"],
    ),
    "total above the caps": (
        lambda: prepared(budget=Budget(37, per_pair=1)),
        ValueError,
        ["budget.total=37", "at most 36", "36 candidate pairs"],
    ),
    "total above the quotas": (
        lambda: prepared(budget=Budget(30, per_prompt=2)),
        ValueError,
        ["budget.total=30", "at most 10", "per_prompt"],
    ),
    "quotas as a number": (lambda: Budget(10, quotas=5), TypeError, ["budget.quotas", "Quota", "int"]),
    "ragged required pairs": (
        lambda: Budget(10, required=[(0, 0, 1), (0, 1)]),
        ValueError,
        ["budget.required", "different lengths", "(S, 3)"],
    ),
    "excluded pairs of fractions": (
        lambda: Budget(10, exclude=[(0, 0, 1.5)]),
        TypeError,
        ["budget.exclude", "float64"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_named_with_what_is_allowed(name):
    check_refusal(*CASES[name])
