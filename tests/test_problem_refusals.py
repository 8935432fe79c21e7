"""Problems that are refused, by the name of the argument: pool, criterion and budget together, targets, priors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign import reference
from jaxdesign.analysis import check_rank
from jaxdesign.budget.budget import Budget
from jaxdesign.criteria.log_det import LogDet
from jaxdesign.criteria.trace import Trace
from jaxdesign.pool import CompletionPool
from tests.support.problems import random_pool
from tests.support.refusals import FEATURES, POOL, SPD, changed, check_refusal, prepared, same_completions


def flat_pool():
    return CompletionPool(FEATURES * np.float32([1, 1, 0]))


# what is called, the kind of error, fragments its text must hold
CASES = {
    # ---- arguments of a solver, against each other
    "no pool": (lambda: prepared(of=FEATURES), TypeError, ["pool", "CompletionPool", "ndarray"]),
    "no criterion": (lambda: prepared(crit="logdet"), TypeError, ["crit", "LogDet()", "'logdet'"]),
    "a criterion's class": (lambda: prepared(crit=LogDet), TypeError, ["crit", "LogDet()", "class"]),
    "no budget": (lambda: prepared(budget=100), TypeError, ["budget", "Budget", "int"]),
    "all pairs identical": (lambda: prepared(of=same_completions()), ValueError, ["features", "identical", "z = 0"]),
    "a traced pool": (
        lambda: jax.jit(lambda p: prepared(of=p).prior)(POOL),
        TypeError,
        ["pool", "traced", "greedy", "frank_wolfe"],
    ),
    # ---- target and prior
    "H not symmetric": (
        lambda: Trace(SPD + np.triu(np.ones((3, 3)), 1)),
        ValueError,
        ["H", "not symmetric", "allowed", "H.T"],
    ),
    "H indefinite": (
        lambda: Trace(np.diag([1.0, 2, -1])),
        ValueError,
        ["H", "indefinite", "smallest eigenvalue -1", "semidefinite"],
    ),
    "H just beyond the tolerance": (
        lambda: Trace(np.diag([1.0, -1.1e-6])),
        ValueError,
        ["H", "indefinite", "-1.1e-06"],
    ),
    "H negative": (lambda: Trace(-np.eye(3)), ValueError, ["H", "indefinite"]),
    "H with NaN": (lambda: Trace(changed(SPD, (0, 0), np.nan)), ValueError, ["H", "NaN"]),
    "H not square": (lambda: Trace(np.ones((2, 3))), ValueError, ["H", "(2, 3)", "square"]),
    "H of integers": (lambda: Trace(np.eye(3, dtype=int)), TypeError, ["H", "int64"]),
    "H of another size": (lambda: prepared(crit=Trace(np.eye(4))), ValueError, ["H", "(4, 4)", "(3, 3)"]),
    "prior of another shape": (lambda: prepared(prior=np.eye(4)), ValueError, ["prior", "(4, 4)", "(3, 3)"]),
    "prior as a vector": (lambda: prepared(prior=np.ones(3)), ValueError, ["prior", "(3,)", "(3, 3)"]),
    "prior indefinite": (lambda: prepared(prior=np.diag([1.0, 1, -1])), ValueError, ["prior", "indefinite", "-1"]),
    "prior not symmetric": (
        lambda: prepared(prior=SPD + np.triu(np.ones((3, 3)), 1)),
        ValueError,
        ["prior", "not symmetric"],
    ),
    "prior with inf": (lambda: prepared(prior=changed(SPD, (1, 1), np.inf)), ValueError, ["prior", "inf"]),
    "a negative ridge": (lambda: prepared(prior=-0.1), ValueError, ["prior=-0.1", "ridge", "at least 0"]),
    "a NaN ridge": (lambda: prepared(prior=np.nan), ValueError, ["prior=nan", "finite"]),
    "prior in words": (lambda: prepared(prior="small"), TypeError, ["prior", "'small'"]),
    "singular information": (
        lambda: check_rank(prepared(of=flat_pool())),
        ValueError,
        ["rank 2 of 3", "restrict_to_range", "ridge"],
    ),
    "singular information, reference": (
        lambda: reference.optimize(flat_pool(), LogDet(), Budget(10)),
        ValueError,
        ["rank 2 of 3", "restrict_to_range", "ridge"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_named_with_what_is_allowed(name):
    check_refusal(*CASES[name])


def test_what_is_only_unusual_is_taken():
    ragged = random_pool(0)
    assert prepared(of=ragged).skipped_prompts == 1  # prompts with fewer than two completions are counted, not refused
    prepared(prior=0)
    prepared(prior=np.zeros((3, 3)))
    prepared(prior=np.float32(0.5) * np.eye(3, dtype=np.float32))
    prepared(budget=Budget(0.5))
    prepared(budget=Budget(np.float32(5), per_pair=np.int64(1), per_prompt=jnp.float32(3)))
    prepared(budget=Budget(36, per_pair=1))
    prepared(budget=Budget(5, per_pair=np.inf))
