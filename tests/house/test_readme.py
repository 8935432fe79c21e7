"""The README does what it says: its Python runs, its index is the front door, its commands are those of CI."""

import re

import pytest

import jaxdesign
from tests.support import CHECKOUT

README = CHECKOUT / "README.md"
CI = CHECKOUT / ".ci" / "run"

pytestmark = pytest.mark.skipif(not README.exists(), reason="README.md is not beside tests/: not a checkout")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_its_python_runs(capsys, tmp_path, monkeypatch):
    text = blocks("python")
    monkeypatch.chdir(tmp_path)  # what it stores
    names = {}  # later blocks go on where earlier ones stopped
    for code in text:
        exec(compile(code, "README.md", "exec"), names)
    efficiency, *pairs = capsys.readouterr().out.split("\n", 1)
    assert 0.5 < float(efficiency) <= 1 and pairs


def test_its_index_names_every_public_name():
    index = README.read_text(encoding="utf-8").split("## Public names")[1].split("\n## ")[0]
    named = set(re.findall(r"`([A-Za-z_.]+)`", index))
    missing = [name for name in jaxdesign.__all__ if not any(entry.split(".")[0] == name for entry in named)]
    assert not missing


def test_its_two_commands_are_those_of_ci():
    if not CI.exists():
        pytest.skip("no .ci/run in this checkout")
    script = CI.read_text(encoding="utf-8")
    first, second = (block.strip() for block in blocks("")[:2])
    assert first.startswith("pip install . && jaxdesign select --labels ")
    assert second == "pip install '.[test]' && pytest -n auto"
    assert (
        "'.[test]'" in script
        and "jaxdesign select --labels" in script
        and re.search(r"^pytest -n auto$", script, re.MULTILINE)
    )
