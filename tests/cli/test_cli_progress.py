"""Progress on stderr: plain lines, or one line a phase on a terminal; never a reason to stop."""

import sys
import time

import jax
import jax.numpy as jnp
import pytest

import jaxdesign
from jaxdesign.cli import progress
from jaxdesign.cli.progress import Meter
from jaxdesign.design import TraceRow

ROW = TraceRow(3, 1.0, 0.5, 0.5, 2.0)


def on_a_terminal(monkeypatch, answer=True):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: answer, raising=False)


def work(meter):
    meter.phase("reading", "pool.npy")
    meter.phase("optimising")
    meter.solver_pass(ROW)
    meter.solver_pass(ROW._replace(passes=4))


def test_plain_lines_where_stderr_is_no_terminal(capsys):
    with Meter() as meter:
        work(meter)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "reading: pool.npy",
        "optimising",
        "optimising: pass 3, criterion 1, gap 5.00e-01, 2.0 s",
        "optimising: pass 4, criterion 1, gap 5.00e-01, 2.0 s",
    ]


def test_a_terminal_sees_a_line_a_phase(capsys, monkeypatch):
    on_a_terminal(monkeypatch)
    with Meter() as meter:
        work(meter)
    first, second, rest = capsys.readouterr().err.split("\n")
    assert first.split("\r")[-1].rstrip() == "reading: pool.npy  [0 s]" and rest == ""
    assert second.split("\r")[-1].rstrip() == "optimising: pass 4, criterion 1, gap 5.00e-01, 2.0 s  [0 s]"


def test_a_long_line_is_cut_to_the_terminal(capsys, monkeypatch):
    on_a_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "40")
    with Meter() as meter:
        meter.phase("reading", "x" * 500)
        meter.phase("reading", "y")
    assert max(map(len, capsys.readouterr().err.strip("\n").split("\r"))) == 39


def test_the_clock_goes_on_where_nothing_is_told(capsys, monkeypatch):
    on_a_terminal(monkeypatch)
    monkeypatch.setattr(progress, "TICK", 0.01)
    with Meter() as meter:
        meter.phase("choosing greedily")
        wait_until(lambda: meter._began and capsys.readouterr().err.count("choosing greedily") >= 1)


@pytest.mark.parametrize("terminal_too", [False, True])
def test_compilation_is_told(capsys, monkeypatch, terminal_too):
    """A program that takes long to compile: many different steps."""
    monkeypatch.setattr(progress, "TICK", 0.002)
    monkeypatch.setattr(progress, "LONG", 0.0)
    on_a_terminal(monkeypatch, terminal_too)

    def steps(x):
        for k in range(30):
            x = jnp.sin(x * (time.perf_counter() + k)) @ x
        return x

    with Meter() as meter:
        meter.phase("optimising", "a design")
        with meter.compilations():
            jax.block_until_ready(jax.jit(steps)(jnp.ones((3, 3))))
    said = capsys.readouterr().err
    assert said.count("optimising: compiling") == 1 if not terminal_too else "optimising: compiling" in said


def test_nobody_listens_afterwards():
    from jax._src import monitoring

    before = len(monitoring.get_event_duration_listeners())
    with Meter().compilations():
        assert len(monitoring.get_event_duration_listeners()) == before + 1
    assert len(monitoring.get_event_duration_listeners()) == before


def test_progress_that_cannot_be_written_stops_nothing(monkeypatch):
    def gone(text):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys.stderr, "write", gone)
    with Meter() as meter:
        work(meter)


@pytest.mark.slow
def test_select_pairs_tells_its_phases_in_order():
    import numpy as np

    pool = jaxdesign.CompletionPool(np.random.default_rng(0).standard_normal((10, 4, 3)).astype(np.float32))
    told = []
    design = jaxdesign.select_pairs(
        pool, jaxdesign.LogDet(), jaxdesign.Budget(24, per_pair=1), prior=1.0, progress=lambda *what: told.append(what)
    )
    phases = list(dict.fromkeys(phase for phase, _ in told))
    assert phases[0] == "optimise" and set(phases[1:]) >= set(design.report["candidates"])
    assert [phase for phase in phases[1:] if phase in design.report["candidates"]] == list(design.report["candidates"])
    searches = [detail for phase, detail in told if phase.startswith("exchange")]
    assert all(detail.startswith("search ") and detail.endswith("swaps so far") for detail in searches)


def wait_until(happened):
    for _ in range(3000):
        if happened():
            return
        time.sleep(0.01)
    pytest.fail("did not happen within 30 seconds")
