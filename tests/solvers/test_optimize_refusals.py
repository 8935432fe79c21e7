"""Options of solvers that are refused, by the name of the argument."""

import numpy as np
import pytest

from jaxdesign.budget.budget import Budget
from jaxdesign.criteria.log_det import LogDet
from jaxdesign.solvers import frank_wolfe
from jaxdesign.solvers.optimize import optimize
from tests.support.refusals import POOL, check_refusal

PAIRS = [[0, 0, 2], [3, 1, 2], [4, 0, 3], [5, 1, 2]]
# what is called, the kind of error, fragments its text must hold
CASES = {
    "an unknown solver": (
        lambda: optimize(POOL, LogDet(), Budget(10), solver="simplex"),
        ValueError,
        ["solver='simplex'", "unknown", "column_generation", "matrix_atoms"],
    ),
    "a solver's class": (
        lambda: optimize(POOL, LogDet(), Budget(10), solver=3),
        TypeError,
        ["solver", "a name or an object with init and step", "int"],
    ),
    "tol of one": (lambda: optimize(POOL, LogDet(), Budget(10), tol=1), ValueError, ["tol=1", "below 1"]),
    "negative tol": (lambda: optimize(POOL, LogDet(), Budget(10), tol=-1e-3), ValueError, ["tol=-0.001", "at least 0"]),
    "NaN tol": (lambda: optimize(POOL, LogDet(), Budget(10), tol=np.nan), ValueError, ["tol=nan", "at least 0"]),
    "tol as a list": (lambda: optimize(POOL, LogDet(), Budget(10), tol=[1e-3]), TypeError, ["tol", "list"]),
    **{
        f"max_passes={value!r}": (
            lambda value=value: optimize(POOL, LogDet(), Budget(10), max_passes=value),
            kind,
            ["max_passes", fragment],
        )
        for value, kind, fragment in (
            (np.nan, ValueError, "whole number of at least 1"),
            (np.inf, ValueError, "whole number of at least 1"),
            (True, TypeError, "bool"),
            ("3", TypeError, "'3'"),
            ([3], TypeError, "list"),
        )
    },
    "NaN passes": (lambda: frank_wolfe(POOL, LogDet(), Budget(10), passes=np.nan), ValueError, ["passes=nan", "whole"]),
    "tol in words": (lambda: optimize(POOL, LogDet(), Budget(10), tol="tight"), TypeError, ["tol", "number", "str"]),
    "no passes": (
        lambda: optimize(POOL, LogDet(), Budget(10), max_passes=0),
        ValueError,
        ["max_passes=0", "at least 1"],
    ),
    "half a pass": (
        lambda: optimize(POOL, LogDet(), Budget(10), max_passes=1.5),
        ValueError,
        ["max_passes=1.5", "whole"],
    ),
    "a start that is no design": (
        lambda: optimize(POOL, LogDet(), Budget(10), start=PAIRS),
        TypeError,
        ["start", "Design", "list"],
    ),
    "a callback that is none": (
        lambda: optimize(POOL, LogDet(), Budget(10), callback=True),
        TypeError,
        ["callback", "function", "bool"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_named_with_what_is_allowed(name):
    check_refusal(*CASES[name])


def test_numbers_of_numpy_are_numbers():
    given = {"tol": np.float32(0.01), "max_passes": np.float64(40)}
    assert optimize(POOL, LogDet(), Budget(np.int64(10)), **given).certificate.efficiency >= 0.99
