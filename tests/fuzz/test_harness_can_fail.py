"""The harness finds what it is there for: each fault that the library once had, fed to it again.

A to J are the kinds of the list that the harness was written for; the library's answers are replaced by false ones.
"""

import dataclasses
import functools
import time
import warnings

import jax
import numpy as np
import pytest

import jaxdesign as jd

from . import harness, outcomes, problems, programs, refusals, workers
from .judge import Judge

HONEST = {name: getattr(jd, name) for name in ("optimize", "evaluate", "select_pairs", "CompletionPool")}


@functools.cache
def sound(criterion="logdet", function="optimize", limits="both", scored=False, family="gaussian"):
    """A problem of a kind without a fault."""
    program = programs.Program((5, 4, 4), (criterion,), function, limits=(limits,), scored=scored)
    for seed in range(4_000):
        problem = problems.draw(seed, (program,))
        if problem.family == family and problem.mask is None and 4 < problem.budget["total"] < 20:
            problem = dataclasses.replace(problem, tol=1e-3)
            if not [fault for fault in harness.run(problem).faults if fault.kind != "warning"]:
                return problem
    raise AssertionError("no such problem")


def kinds(problem):
    return {fault.kind for fault in harness.run(problem).faults}


def spoiled(monkeypatch, spoil, *names):
    """The library's functions with something done to what they return."""
    for name in names:
        monkeypatch.setattr(jd, name, lambda *a, of=HONEST[name], **k: spoil(of(*a, **k)))


def certified(design, **changes):
    return dataclasses.replace(design, certificate=design.certificate._replace(**changes))


def perfect(design):
    value = design.certificate.value
    return dataclasses.replace(
        certified(design, lower_bound=value, gap=0.0, efficiency=1.0), status=jd.Status.CERTIFIED
    )


def test_a_nan_that_is_accepted(monkeypatch):
    from jaxdesign import _checks

    monkeypatch.setattr(_checks, "finite", lambda *a, **k: None)
    found = {refusals.refuse(seed).family for seed in range(64) if refusals.refuse(seed).faults}
    assert {"bad features, small", "bad features, large", "bad scores, large", "bad scores of draws"} <= found


@pytest.mark.parametrize("criterion", ["logdet", "trace", "worst"])
def test_b_certified_though_far_from_best(monkeypatch, criterion):
    problem = sound(criterion, "evaluate", "total")
    spoiled(monkeypatch, perfect, "evaluate")
    seeds = [dataclasses.replace(problem, seed=seed) for seed in range(12)]  # some of these allocations are poor ones
    assert {"false bound", "false efficiency"} <= set().union(*map(kinds, seeds))


@pytest.mark.parametrize("too_high", [1e-2, 1e-5, 3e-9])  # C: scores; D: rounding at ill-conditioned A
@pytest.mark.parametrize("family", ["gaussian", "rank_deficient", "far_scores"])
def test_c_d_a_bound_a_little_too_high(monkeypatch, too_high, family):
    problem = sound(family=family, scored=family == "far_scores")
    pool = jd.CompletionPool(problem.features, problem.scores)
    judge = Judge(problem, pool)
    judge.look_for_better(np.random.default_rng(0))
    lowest = judge.best()[0]
    spoiled(monkeypatch, lambda design: certified(design, lower_bound=lowest + too_high), "optimize")
    assert "false bound" in kinds(problem)


def test_d_a_value_that_is_not_the_criterion(monkeypatch):
    problem = sound()
    spoiled(monkeypatch, lambda x: certified(x, value=x.certificate.value + 1e-4), "optimize")
    assert "false value" in kinds(problem)


@pytest.mark.parametrize("changes", [
    {"lower_bound": np.nan, "gap": np.nan, "efficiency": np.nan}, {"efficiency": np.nan}, {"efficiency": 1.0000001},
    {"efficiency": -1e-3}, {"efficiency": -np.inf}, {"lower_bound": -np.inf, "gap": np.inf}, {"gap": 0.5},
])  # fmt: skip
def test_e_no_number(monkeypatch, changes):
    problem = sound()
    spoiled(monkeypatch, lambda design: certified(design, **changes), "optimize")
    assert "no number" in kinds(problem)


@pytest.mark.parametrize("error", [
    ValueError("zero-size array to reduction operation minimum which has no identity"),  # F
    np.linalg.LinAlgError("Singular matrix"),  # G
    FloatingPointError("information: no mixture of allowed allocations was found regular"),  # H
    TypeError("'float' object is not iterable"), KeyError("prior"), IndexError("budget.total"),
])  # fmt: skip
@pytest.mark.parametrize("function", ["optimize", "select_pairs"])
def test_f_g_h_exceptions(monkeypatch, error, function):
    problem = sound(function=function)

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(jd, function, fail)
    assert kinds(problem) == {"exception"}


def test_refusals_of_what_can_be_solved(monkeypatch):
    problem = sound()

    def refuse(*args, **kwargs):
        raise ValueError("prior: the information of all pairs has rank 3 of 4")

    monkeypatch.setattr(jd, "optimize", refuse)
    assert kinds(problem) == {"refused wrongly"}


def asleep(seed, programs):
    """What a problem without end looks like from outside."""
    if seed == 1:
        time.sleep(600)
    return outcomes.Outcome(seed, "none", "none", "done", 0, [])


def test_i_no_end(monkeypatch, tmp_path):
    from . import __main__ as command

    monkeypatch.setattr(workers, "outcome_of", asleep)
    out = tmp_path / "found.jsonl"
    assert command.main(["--seeds", "0:4", "--processes", "2", "--limit", "3", "--out", str(out)]) == 1
    lines = out.read_text().splitlines()
    assert len(lines) == 4 and sum("no end" in line for line in lines) == 1
    assert command.main(["--seeds", "0:4", "--out", str(out)]) == 1  # nothing is run again
    assert len(out.read_text().splitlines()) == 4


def bad(name):
    """Whether a fault is found in the cases of one kind."""
    first = list(refusals.CASES).index(name)
    return any(refusals.refuse(seed).faults for seed in range(first, 30 * len(refusals.CASES), len(refusals.CASES)))


def test_j_arguments_refused_in_other_words(monkeypatch):
    from jaxdesign import _checks

    monkeypatch.setattr(_checks, "whole_number", lambda value, name, least: int(value))
    assert bad("max_passes")
    monkeypatch.setattr(_checks, "number", lambda value, name: 0.5 if name == "tol" else value)
    assert bad("tol")


@pytest.mark.parametrize(
    ("limits", "function"), [("both", "optimize"), ("groups", "optimize"), ("costs", "select_pairs")]
)
def test_budgets_broken_by_the_library(monkeypatch, limits, function):
    problem = sound(limits=limits, function=function)
    for spoil in (
        lambda x: dataclasses.replace(x, labels=x.labels * (1 + 1e-8)),
        lambda x: dataclasses.replace(x, labels=np.r_[x.labels.sum() - x.labels[1:].sum() + 40, x.labels[1:] - 40]),
        lambda x: dataclasses.replace(x, labels=np.full_like(x.labels, np.nan)),
        lambda x: dataclasses.replace(x, pairs=np.add(x.pairs, [0, 0, 4])),
    ):
        spoiled(monkeypatch, spoil, function)
        assert "broken budget" in kinds(problem)


def test_warnings_on_the_way(monkeypatch):
    def warn(design):
        warnings.warn("overflow encountered in cast", RuntimeWarning, stacklevel=1)
        return design

    problem = sound()
    spoiled(monkeypatch, warn, "optimize")
    assert "warning" in kinds(problem)


def test_nothing_is_found_in_an_honest_answer():
    assert jax.config.jax_enable_x64 is False
    for function in ("optimize", "evaluate", "select_pairs"):
        assert not kinds(sound(function=function)) - {"warning"}


pytestmark = pytest.mark.slow
