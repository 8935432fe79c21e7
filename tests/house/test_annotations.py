"""Annotations are true: tests run with every call of the package held against them, shapes of arrays included.

`JAXDESIGN_TYPES=1 pytest ...` runs any tests that way (`tests/support/typed.py`).
"""

import os
import subprocess
import sys

import jaxtyping
import numpy as np
import pytest

from jaxdesign.information import laplacian_information
from tests.support import CHECKOUT

ON = "JAXDESIGN_TYPES" in os.environ
DAILY = ["tests/test_rank_updates.py", "tests/preference/labels/test_labels.py"]


@pytest.mark.skipif(not ON, reason="runs where annotations are held against calls: within the tests below")
def test_a_wrong_shape_is_seen():
    seen = False
    laplacian_information(np.ones((2, 3, 4)), np.ones((2, 3, 3)), np.ones((2, 3, 3)))
    try:
        laplacian_information(np.ones((2, 3, 4)), np.ones((2, 5, 5)), np.ones((2, 5, 5)))
    except jaxtyping.TypeCheckError:  # not `pytest.raises`, which skips the test there
        seen = True
    assert seen


@pytest.mark.skipif(ON, reason="this is such a run")
@pytest.mark.parametrize(
    ("paths", "tiers"),
    [
        pytest.param(DAILY, "not slow and not thorough", marks=pytest.mark.thorough, id="some"),
        pytest.param(["tests"], "not slow", marks=pytest.mark.slow, id="all"),
    ],
)
def test_no_call_contradicts_them(paths, tiers):
    here = "tests/house/test_annotations.py::test_a_wrong_shape_is_seen"
    command = [sys.executable, "-m", "pytest", "--tb=short", "-p", "no:cacheprovider", "-m", tiers, here, *paths]
    done = subprocess.run(
        command, cwd=CHECKOUT, env=os.environ | {"JAXDESIGN_TYPES": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert "passed" in done.stdout
