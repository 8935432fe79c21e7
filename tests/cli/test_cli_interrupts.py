"""An interrupt ends the program at any moment, with exit code 130, one sentence and no half of a file."""

import os
import signal
import subprocess
import threading
import time

import pytest

from tests.support.command import ROOT, start

SENTENCE = "jaxdesign: interrupted; nothing was written"
PATIENCE = 30  # seconds until a test gives up: it ends within a fraction of one on an idle machine
READY = """
import os
install = signal.signal
def installed(*handler):
    install(*handler)
    os.write(1, b"ready\\n")
signal.signal = installed
"""  # said once the program's handler is there: before that, an interrupt is Python's own
CHATTY = "import jaxdesign.cli.progress as progress; progress.LONG = progress.TICK = 0.01"  # any compilation is told


def interrupted(process):
    """Interrupt a running program and return what it said on stderr in the end."""
    process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 130, (process.returncode, err)
    assert err.count("interrupted") == 1 and "Traceback" not in err
    return err.splitlines()


def started(folder, first="", environment=None):
    """The program, just begun; without a cache of compiled programs unless the environment says where it is."""
    arguments = ["select", "--labels", "50", *([] if environment else ["--no-cache"]), "--output", folder / "x.jsonl"]
    process = start(*arguments, first=f"{first}\n{READY}", environment=environment)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("seconds", [0.001, 0.02, 0.1])
def test_at_the_first_moments(tmp_path, seconds):
    with started(tmp_path) as process:
        time.sleep(seconds)
        assert interrupted(process)[-1] == SENTENCE
    assert os.listdir(tmp_path) == []


@pytest.mark.thorough
@pytest.mark.parametrize("phase", ["reading", "preparing", "preparing: compiling"])
def test_in_a_phase(tmp_path, phase):
    with started(tmp_path, CHATTY) as process:
        for line in process.stderr:
            if line.startswith(phase):
                break
        else:
            pytest.fail(f"no such phase: {phase}")
        assert interrupted(process)[-1] == SENTENCE
    assert os.listdir(tmp_path) == []


def told(lines):
    """Those that come with a cache of compiled programs and without."""
    return [line for line in lines if not line.strip().endswith(": compiling")]


@pytest.mark.slow
def test_at_twenty_moments(tmp_path):
    """Spread evenly over the lines of progress of a whole run, and up to a second later; half of them with a cache."""
    with started(tmp_path, CHATTY) as process:
        _, err = process.communicate(timeout=600)
    assert process.returncode == 0 and err.splitlines()[-1].startswith("writing")
    lines = len(told(err.splitlines())) - 2  # the last ones are too close to the end
    assert lines >= 20
    for moment in range(20):
        folder = tmp_path / str(moment)
        folder.mkdir()
        with started(folder, CHATTY, {"XDG_CACHE_HOME": str(tmp_path / "cache")} if moment % 2 else None) as process:
            seen = []
            while len(told(seen)) < lines * moment // 20:
                seen.append(process.stderr.readline())
            if moment % 2 == 0 and moment < 10:  # where compilation takes longer than this
                time.sleep(max(moment / 10, 0.01))  # at the first, until the program has begun
            assert process.poll() is None
            assert interrupted(process)[-1] == SENTENCE
        assert os.listdir(folder) == []


STUB = """
import os, sys, time
import jaxdesign.cli
def main(writing):
    {body}
    return 0
jaxdesign.cli.main = main
"""


def stubbed(body):
    """The program with another main function."""
    process = start(first=STUB.format(body="\n    ".join(body.strip().splitlines())))
    assert process.stdout.readline() == "ready\n"
    return process


def test_work_that_swallows_exceptions_is_ended():
    """As a callback of JAX does."""
    with stubbed(
        """
print("ready", flush=True)
while True:
    try:
        time.sleep(0.01)
    except BaseException:
        pass
"""
    ) as process:
        assert interrupted(process) == [SENTENCE]


def test_work_that_does_not_come_back_to_python_is_ended():
    """A matrix product of minutes stands for compiled work."""
    with stubbed(
        """
import numpy as np
matrix = np.zeros((12_000, 12_000))
print("ready", flush=True)
while True:
    matrix @ matrix
"""
    ) as process:
        time.sleep(0.5)
        assert interrupted(process) == [SENTENCE]


def test_files_under_way_are_finished_first(tmp_path):
    """Whoever interrupts while files are written finds both, and is told so."""
    with stubbed(
        f"""
with writing:
    print("ready", flush=True)
    time.sleep(0.5)
    open({str(tmp_path / "a")!r}, "w").close()
    time.sleep(0.5)
    open({str(tmp_path / "b")!r}, "w").close()
time.sleep(60)
"""
    ) as process:
        time.sleep(0.1)
        assert interrupted(process) == ["jaxdesign: interrupted after the files were written"]
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_second_interrupt_does_not_wait_for_files():
    with stubbed(
        """
with writing:
    print("ready", flush=True)
    time.sleep(600)
"""
    ) as process:
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        assert interrupted(process) == ["jaxdesign: interrupted while files were written"]


def test_no_file_is_begun_after_an_interrupt():
    """The handler holds what guards the files until the process is gone."""
    from jaxdesign.cli.writing import Writing

    writing, written = Writing(), []
    assert writing.settled() is False

    def late():
        with writing:
            written.append(1)

    thread = threading.Thread(target=late, daemon=True)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive() and not written


def test_an_ignored_interrupt_stays_ignored():
    """A job that a shell runs in the background with interrupts off is not ended by one."""
    with start(
        first="import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
        + STUB.format(body='print("ready", flush=True); time.sleep(1)')
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=PATIENCE) == ("", "") and process.returncode == 0


def test_the_console_script_is_this_program():
    import tomllib

    project = ROOT / "pyproject.toml"
    if not project.exists():
        pytest.skip("no checkout")
    assert tomllib.loads(project.read_text())["project"]["scripts"] == {"jaxdesign": "jaxdesign.__main__:program"}
