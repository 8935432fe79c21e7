"""The wheel, installed where no checkout can be imported: whole, importable by every public name, and it runs."""

import importlib.metadata
import json
import os
import subprocess
import sys
import zipfile

import pytest

from tests.support import CHECKOUT

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(not (CHECKOUT / "pyproject.toml").exists(), reason="not a checkout"),
]

EVERY_NAME = """
import importlib, json, pkgutil, sys
import jaxdesign, jaxdesign.io, jaxdesign.preference
for package in (jaxdesign, jaxdesign.preference):
    for name in package.__all__:
        getattr(package, name)
for module in pkgutil.walk_packages(jaxdesign.__path__, "jaxdesign."):
    importlib.import_module(module.name)
files = {name: module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "jaxdesign"}
print(json.dumps({"files": files, "demo": str(jaxdesign.io.demo_pool_path())}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built by the backend of pyproject.toml, as `pip wheel` does, without asking a package index."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    subprocess.run([*command, str(wheel)], capture_output=True, text=True, check=True)
    return folder


def run(installed, folder, *command):
    """A program that finds `installed` before any checkout, in an empty folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["PYTHONPATH"] = str(installed)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_it_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "jaxdesign").rglob("*") if path.is_file()}
    package = {name for name in package if "__pycache__" not in name}
    assert {"jaxdesign/py.typed", "jaxdesign/data/demo_pool.jsonl"} <= package
    assert {name for name in names if ".dist-info/" not in name} == package
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_every_public_name_and_module_comes_from_it(installed, tmp_path):
    done = run(installed, tmp_path, sys.executable, "-W", "error", "-c", EVERY_NAME)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["files"]) > 100
    assert all(file.startswith(f"{installed}{os.sep}") for file in [*found["files"].values(), found["demo"]])
    (there,) = importlib.metadata.distributions(name="jaxdesign", path=[str(installed)])
    assert there.version == importlib.metadata.version("jaxdesign")


def test_its_command_runs(installed, tmp_path):
    program = installed / "bin" / "jaxdesign"
    done = run(installed, tmp_path, str(program), "select", "--labels", "20", "--output", "pairs.jsonl")
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "pairs.jsonl").read_text(encoding="utf-8").splitlines()) == 20
