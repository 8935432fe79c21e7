"""Pools that are refused, by the name of the argument: features, scores, mask, ids; and arguments of kernels."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign.basis import restrict_to_range
from jaxdesign.information import label_information, pair_information, pair_sensitivities
from jaxdesign.pool import CompletionPool
from jaxdesign.targets import policy_target
from tests.support.problems import PROMPTS
from tests.support.refusals import FEATURES, MASK, POOL, SCORES, SPD, changed, check_refusal, same_completions

ONES = np.ones((PROMPTS, 5, 5))
ONLY_ONE_EACH = np.zeros((PROMPTS, 5), bool)
ONLY_ONE_EACH[:, 0] = True


def pool(features=FEATURES, **more):
    return CompletionPool(features, **more)


# what is called, the kind of error, fragments its text must hold
CASES = {
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
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_named_with_what_is_allowed(name):
    check_refusal(*CASES[name])
