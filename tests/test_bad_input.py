"""Bad input: each call raises the right kind of error, with a text that names the argument, what was found, what is
allowed and what to do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign import reference
from jaxdesign.analysis import check_rank
from jaxdesign.basis import restrict_to_range
from jaxdesign.budget.budget import Budget
from jaxdesign.certificates.evaluate import evaluate
from jaxdesign.criteria.log_det import LogDet
from jaxdesign.criteria.trace import Trace
from jaxdesign.door import make_problem
from jaxdesign.information import label_information, pair_information, pair_sensitivities
from jaxdesign.pool import CompletionPool
from jaxdesign.solvers import frank_wolfe
from jaxdesign.solvers.optimize import optimize
from jaxdesign.targets import policy_target
from tests.support.problems import DIM, PROMPTS, random_arrays, random_pool, random_spd

FEATURES, SCORES, MASK = random_arrays(0, ragged=False)
POOL = random_pool(0)
PAIRS, LABELS = [[0, 0, 2], [3, 1, 2], [4, 0, 3], [5, 1, 2]], [1.0, 2, 3, 4]
SPD = random_spd(0)


def changed(array, index, value):
    array = np.array(array)
    array[index] = value
    return array


def pool(features=FEATURES, **more):
    return CompletionPool(features, **more)


def prepared(crit=None, budget=None, prior=None, of=POOL):
    return make_problem(of, crit or LogDet(), budget or Budget(10), prior)


def judged(pairs=PAIRS, labels=LABELS, budget=None, prior=None):
    return evaluate(POOL, LogDet(), budget or Budget(10), pairs, labels, prior)


def same_completions():
    return CompletionPool(np.ones((PROMPTS, 5, DIM), np.float32))


def flat_pool():
    return CompletionPool(FEATURES * np.float32([1, 1, 0]))


ONES = np.ones((PROMPTS, 5, 5))
ONLY_ONE_EACH = np.zeros((PROMPTS, 5), bool)
ONLY_ONE_EACH[:, 0] = True

# what is called, the kind of error, fragments its text must hold
CASES = {
    # ---- optimize
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
    # ---- features
    "NaN in features": (
        lambda: pool(changed(FEATURES, (3, 1, 2), np.nan)),
        ValueError,
        ["features", "nan", "prompt 3", "completion 1", "dimension 2", "mask"],
    ),
    "inf in features": (
        lambda: pool(changed(FEATURES, (2, 0, 0), -np.inf)),
        ValueError,
        ["features", "-inf", "prompt 2", "completion 0", "dimension 0", "1 such"],
    ),
    "NaN in float16 features": (
        lambda: pool(jnp.asarray(changed(FEATURES, (1, 4, 0), np.nan), jnp.bfloat16)),
        ValueError,
        ["features", "nan", "prompt 1", "completion 4"],
    ),
    "float64 features too large for float32": (
        lambda: pool(changed(FEATURES.astype(np.float64), (1, 1, 1), 1e300)),
        ValueError,
        ["features", "inf", "prompt 1"],
    ),
    "NaN in an existing completion": (
        lambda: pool(changed(FEATURES, (3, slice(None), 0), np.nan), mask=changed(MASK, (3, [0, 1, 3, 4]), False)),
        ValueError,
        ["features", "nan", "prompt 3", "completion 2", "1 such"],
    ),
    "two axes": (
        lambda: pool(FEATURES[0]),
        ValueError,
        ["features", "shape (5, 3)", "prompts P, completions K, dimension d"],
    ),
    "four axes": (lambda: pool(FEATURES[None]), ValueError, ["features", "shape (1, 6, 5, 3)"]),
    "integer features": (lambda: pool(FEATURES.astype(int)), TypeError, ["features", "int64", "float32", "astype"]),
    "complex features": (lambda: pool(FEATURES.astype(complex)), TypeError, ["features", "complex128"]),
    "features of strings": (lambda: pool([[["a"], ["b"]]]), TypeError, ["features", "<U1"]),
    "ragged lists": (
        lambda: pool([[[1.0], [2.0]], [[1.0]]]),
        TypeError,
        ["features", "expected a NumPy or JAX array", "list"],
    ),
    "no features": (lambda: pool(None), TypeError, ["features", "object"]),
    "no prompts": (lambda: pool(FEATURES[:0]), ValueError, ["features", "(0, 5, 3)", "at least one prompt"]),
    "one completion slot": (
        lambda: pool(FEATURES[:, :1]),
        ValueError,
        ["features", "(6, 1, 3)", "two completion slots"],
    ),
    "no dimension": (lambda: pool(FEATURES[..., :0]), ValueError, ["features", "(6, 5, 0)", "one feature dimension"]),
    # ---- scores, mask, ids
    "NaN in scores": (
        lambda: pool(scores=changed(SCORES, (4, 2), np.nan)),
        ValueError,
        ["scores", "nan", "prompt 4", "completion 2"],
    ),
    "inf in a draw of scores": (
        lambda: pool(scores=changed(np.stack([SCORES] * 2), (1, 0, 3), np.inf)),
        ValueError,
        ["scores", "inf", "draw 1", "prompt 0", "completion 3"],
    ),
    "scores of another shape": (lambda: pool(scores=SCORES[:, :2]), ValueError, ["scores", "(6, 2)", "(6, 5)"]),
    "scores with one axis": (
        lambda: pool(scores=SCORES[0]),
        ValueError,
        ["scores", "(5,)", "(P, K)", "(draws R, P, K)"],
    ),
    "scores without draws": (
        lambda: pool(scores=SCORES[None][:0]),
        ValueError,
        ["scores", "(0, 6, 5)", "at least one parameter draw"],
    ),
    "integer scores": (lambda: pool(scores=np.ones((6, 5), int)), TypeError, ["scores", "int64"]),
    "a mask of numbers": (lambda: pool(mask=np.ones((6, 5))), TypeError, ["mask", "float64", "bool"]),
    "a mask of another shape": (lambda: pool(mask=MASK[:3]), ValueError, ["mask", "(3, 5)", "(6, 5)"]),
    "single completions only": (
        lambda: pool(mask=ONLY_ONE_EACH),
        ValueError,
        ["mask", "no prompt has two completions"],
    ),
    "nothing exists": (lambda: pool(mask=~MASK), ValueError, ["mask", "no prompt has two completions"]),
    "too few ids": (lambda: pool(ids=["a", "b"]), ValueError, ["ids", "2 found", "6"]),
    "ids that repeat": (lambda: pool(ids=["a", *"bcde", "a"]), ValueError, ["ids", "'a' found 2 times", "its own"]),
    "ids written alike": (lambda: pool(ids=[1, *"bcde", "1"]), ValueError, ["ids", "'1' found 2 times"]),
    # ---- the range of a pool
    "identical completions": (
        lambda: restrict_to_range(same_completions()),
        ValueError,
        ["features", "identical", "dimension 0"],
    ),
    "rtol of one": (lambda: restrict_to_range(POOL, rtol=1.0), ValueError, ["rtol=1", "[0, 1)"]),
    "negative rtol": (lambda: restrict_to_range(POOL, rtol=-0.1), ValueError, ["rtol=-0.1"]),
    # ---- kernels
    "weights of another shape": (
        lambda: pair_information(POOL, ONES[:, :4]),
        ValueError,
        ["weights", "(6, 4, 5)", "(6, 5, 5)"],
    ),
    "G of another shape": (lambda: pair_sensitivities(POOL, np.eye(2)), ValueError, ["G", "(2, 2)", "(3, 3)"]),
    "G with draws for a pool without": (
        lambda: pair_sensitivities(POOL, np.stack([SPD] * 2)),
        ValueError,
        ["G", "(2, 3, 3)", "(3, 3)"],
    ),
    "log_weights of another shape": (
        lambda: policy_target(POOL, np.ones((6, 4))),
        ValueError,
        ["log_weights", "(6, 4)", "(6, 5)"],
    ),
    "pairs outside of the pool": (
        lambda: label_information(POOL, [[0, 0, 1], [6, 0, 1]]),
        ValueError,
        ["pairs", "row 1", "(6, 0, 1)", "(6, 5, 5)"],
    ),
    "a negative index": (lambda: label_information(POOL, [[0, -1, 1]]), ValueError, ["pairs", "row 0", "(0, -1, 1)"]),
    # ---- budget
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
    # ---- evaluate
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
    call, kind, fragments = CASES[name]
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    text = str(caught.value)
    missing = [fragment for fragment in fragments if fragment not in text]
    assert not missing, f"{missing} not in: {text}"


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


def test_numbers_of_numpy_are_numbers():
    given = {"tol": np.float32(0.01), "max_passes": np.float64(40)}
    assert optimize(POOL, LogDet(), Budget(np.int64(10)), **given).certificate.efficiency >= 0.99
