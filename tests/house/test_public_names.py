"""The index of public names is what its script makes of the package, extras included."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / ".github" / "public_names.py"


@pytest.mark.thorough
def test_the_index_is_up_to_date():
    """The script also fails where a name that needs an extra does not say what to install."""
    done = subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "extra"), [("LanguageModel", "preference"), ("split_model", "preference"), ("LabelStore", None)]
)
def test_the_index_says_which_names_need_an_extra(name, extra):
    line = next(line for line in SCRIPT.with_name("PUBLIC_NAMES.md").read_text().splitlines() if f"`{name}`" in line)
    assert ("*(" in line) == (extra is not None) and (extra is None or f"*({extra})*" in line)
