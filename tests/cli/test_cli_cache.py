"""Compiled programs are kept for the command alone, in the user's cache folder, and never stand in its way."""

import os
import re
import sys
from pathlib import Path

import pytest

from jaxdesign.cli import cache
from tests.support.command import finished

STUB = """
import sys, types, jaxdesign.cli
def select(chosen, writing):
    import jax
    jax.jit(lambda x: jax.numpy.linalg.svd(x @ x.T))(jax.numpy.ones((8, 8)))[0].block_until_ready()
    print(jax.config.jax_compilation_cache_dir)
    return 0
sys.modules["jaxdesign.cli.selecting"] = types.SimpleNamespace(select=select)
"""
ARGUMENTS = ("select", "--labels", "1", "--output", "x.csv")


def compiled(folder, *more, first=""):
    """The program, compiling one function in place of its work, with this cache folder."""
    return finished(*ARGUMENTS, *more, first=first + STUB, environment={"XDG_CACHE_HOME": str(folder)})


@pytest.mark.thorough
def test_programs_are_kept_and_read_back(tmp_path):
    code, out, err = compiled(tmp_path)
    (folder,) = tmp_path.glob("jaxdesign/programs-*")
    assert (code, out, err) == (0, f"{folder}\n", "")
    kept = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert any("lambda" in name for name in kept)
    assert compiled(tmp_path)[::2] == (0, "")
    # a program that took too little time to be kept may take more in another run
    assert kept.items() <= {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}.items()


def test_an_option_turns_it_off(tmp_path):
    assert compiled(tmp_path, "--no-cache") == (0, "None\n", "")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_told_once(tmp_path):
    (tmp_path / "jaxdesign").write_text("no folder")
    code, out, err = compiled(tmp_path)
    assert (code, out) == (0, "None\n")
    assert err.startswith("jaxdesign: compilation cache: cannot be written (") and err.count("\n") == 1
    assert "--no-cache" in err


@pytest.mark.thorough
def test_programs_cut_short_are_told_once_and_replaced(tmp_path):
    """As a machine that lost power leaves them."""
    compiled(tmp_path)
    (folder,) = tmp_path.glob("jaxdesign/programs-*")
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:100])
    code, _, err = compiled(tmp_path)
    assert code == 0 and "held a damaged program (" in err and err.count("\n") == 1
    assert compiled(tmp_path)[::2] == (0, "")


def test_a_disk_that_is_full_is_told_once(tmp_path):
    """Several programs are compiled, and none of them fits."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))"
    code, _, err = compiled(tmp_path, first=limit)
    assert code == 0 and err.count("\n") == 1
    assert re.match(r"jaxdesign: compilation cache: \S+ cannot be written \(OSError: .*File too large", err)


def test_the_user_s_own_folder_is_left_alone(monkeypatch):
    monkeypatch.delitem(sys.modules, "jax")
    before = {"JAX_COMPILATION_CACHE_DIR": "/of/the/user"}
    monkeypatch.setattr(os, "environ", dict(before))
    cache.switch_on()
    assert os.environ == before


def test_nothing_is_set_in_a_process_that_has_jax(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "environ", {"XDG_CACHE_HOME": str(tmp_path)})
    assert "jax" in sys.modules
    cache.switch_on()
    assert os.environ == {"XDG_CACHE_HOME": str(tmp_path)} and os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("platform", "environment", "folder"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x/cache"}, "/x/cache"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "~/.cache"),
        ("linux", {}, "~/.cache"),
        ("darwin", {}, "~/Library/Caches"),
        ("win32", {}, "~/AppData/Local"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local"),
    ],
)
def test_the_folder_is_the_user_s(monkeypatch, platform, environment, folder):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/somebody"))
    found = cache.cache_folder()
    assert str(found.parent.parent) == folder.replace("~", "/home/somebody") and found.parent.name == "jaxdesign"
    assert re.fullmatch(r"programs-[0-9a-f]{12}", found.name)


def test_the_oldest_programs_make_room(tmp_path):
    for age in range(5):
        file = tmp_path / f"{age}-cache"
        file.write_bytes(bytes(10))
        os.utime(file, (1e9 - age, 1e9 - age))
    cache.keep_small(tmp_path, 30)
    assert sorted(os.listdir(tmp_path)) == ["0-cache", "1-cache", "2-cache"]
    cache.keep_small(tmp_path, 30)
    assert len(os.listdir(tmp_path)) == 3
