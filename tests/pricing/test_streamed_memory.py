"""A longer file takes no more memory than a few numbers a prompt: features are never held, for whole labels neither.

But for greedy choice, which holds the prompts it looks at: as many as `exact.candidates.GREEDY_MEMORY` allows.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bench.streamed import COMPLETIONS, DIM
from jaxdesign.exact.candidates import GREEDY_MEMORY
from tests.support import CHECKOUT
from tests.support.streamed_peak import CALLS, SIZES

A_PROMPT = 200  # bytes: existence of K = 32 completions, about twenty numbers of eight bytes
MORE = SIZES["large"] - SIZES["small"]
WORKING = {"exchange": 8, "greedy": 8}  # bytes of a number in passes: searches that must see all look in float64
HELD = 12  # bytes for each entry that greedy may hold: features as stored and in float32, joined of parts, and forms


@pytest.fixture(scope="module")
def folder():
    """Where the pools lie, which are not to be kept as pytest keeps its own folders."""
    with tempfile.TemporaryDirectory() as found:
        yield found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no anonymous memory to read here")
@pytest.mark.parametrize("name", CALLS)
def test_memory_is_two_chunks_and_a_few_numbers_a_prompt(folder, name):
    """Beyond what a pool of a sixteenth of the size takes: the floor, d x d matrices, listed pairs, the hot start.

    A chunk takes its features as stored, in the working dtype, centred and times F, and a few tables of its pairs.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path])}
    command = [sys.executable, "-m", "tests.support.streamed_peak", folder, name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found, size = json.loads(done.stdout), WORKING.get(name, 4)
    scratch = found["chunk"] * COMPLETIONS * ((2 + 3 * size) * DIM + 6 * size * COMPLETIONS)
    allowed = 2 * scratch + A_PROMPT * MORE
    assert found["file"] > 4 * allowed
    if name == "greedy":
        entries = MORE * COMPLETIONS * (DIM + COMPLETIONS)
        assert entries < GREEDY_MEMORY
        allowed += HELD * entries
    assert found["large"] - found["small"] < allowed, found
    assert found["held"] - found["large"] > found["file"] / 2, found  # features that are held are seen
