"""Arguments to spoil, and the check that a refusal is the right kind of error and says what it must."""

import numpy as np
import pytest

from jaxdesign.budget.budget import Budget
from jaxdesign.criteria.log_det import LogDet
from jaxdesign.door import make_problem
from jaxdesign.pool import CompletionPool
from tests.support.problems import DIM, PROMPTS, random_arrays, random_pool, random_spd

FEATURES, SCORES, MASK = random_arrays(0, ragged=False)
POOL = random_pool(0)
SPD = random_spd(0)


def changed(array, index, value):
    array = np.array(array)
    array[index] = value
    return array


def same_completions():
    return CompletionPool(np.ones((PROMPTS, 5, DIM), np.float32))


def prepared(crit=None, budget=None, prior=None, of=POOL):
    return make_problem(of, crit or LogDet(), budget or Budget(10), prior)


def check_refusal(call, kind, fragments):
    """The call raises this very kind of error, in words that hold every fragment."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    text = str(caught.value)
    missing = [fragment for fragment in fragments if fragment not in text]
    assert not missing, f"{missing} not in: {text}"
