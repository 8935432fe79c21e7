"""A longer file takes no more memory than a few numbers a prompt: features are never held."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.streamed import COMPLETIONS, DIM
from tests.support import CHECKOUT
from tests.support.streamed_peak import BUDGETS, LARGE, SMALL

A_PROMPT = 200  # bytes: existence of K = 32 completions, about twenty numbers of eight bytes


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no anonymous memory to read here")
def test_memory_is_two_chunks_and_a_few_numbers_a_prompt(tmp_path):
    """Beyond what a pool of a sixteenth of the size takes: the floor, d x d matrices, the working set, the hot start.

    A chunk takes its features as stored, in float32, centred and times F, and a few tables of its pairs.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path])}
    command = [sys.executable, "-m", "tests.support.streamed_peak", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    scratch = found["chunk"] * COMPLETIONS * ((2 + 3 * 4) * DIM + 6 * 4 * COMPLETIONS)
    allowed = 2 * scratch + A_PROMPT * (LARGE - SMALL)
    assert found["file"] > 6 * allowed
    for name in BUDGETS:
        assert found[name]["large"] - found[name]["small"] < allowed, found
    assert found["held"] - found["repeats"]["small"] > found["file"] / 2  # features that are held are seen
