"""Pairs are never materialised: what a function needs at its peak stays far below one difference a pair."""

import json
import os
import subprocess
import sys

import pytest

from tests.support import CHECKOUT
from tests.support.peaks import COMPLETIONS, DIM, PROMPTS, SET_BACK

ALL_DIFFERENCES = 4 * PROMPTS * COMPLETIONS**2 * DIM  # bytes of (P, K, K, d) in float32; those of i < j take half
ALLOWED = ALL_DIFFERENCES / 4  # the most that a function takes is about an eighth

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(not os.access(SET_BACK, os.W_OK), reason="no peak of memory to read here"),
]


def peaks(*names):
    """Bytes at the peak of each function, in a process of their own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path])}
    command = [sys.executable, "-m", "tests.support.peaks", *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_no_pass_does_and_a_function_that_does_is_seen():
    found = peaks("materialised", "pair_information", "pair_sensitivities", "evaluate", "annotators")
    assert found.pop("materialised") > ALL_DIFFERENCES
    assert max(found.values()) < ALLOWED, found


@pytest.mark.slow
def test_no_function_does():
    found = peaks("policy_target", "optimize", "greedy", "frank_wolfe")
    assert max(found.values()) < ALLOWED, found
