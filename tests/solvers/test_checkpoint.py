"""A run that is written down goes on from there, to the same design to the last bit; other runs' files are refused."""

import os
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import jaxdesign as jd
from jaxdesign.pricing import streamed_source
from jaxdesign.solvers import ColumnGeneration
from tests.support import CHECKOUT
from tests.support.stored import COMPLETIONS, DIM, ragged

PROMPTS = 150
GIVEN = ragged(np.float16, PROMPTS)
TRACE = np.diag([1.0, 1, 1, 0, 0, 0])
RUNS = {
    "caps": (jd.LogDet(), jd.Budget(60, per_pair=1), {"tol": 1e-9}),
    "coupled": (jd.LogDet(), jd.Budget(60, quotas=jd.Quota(np.arange(PROMPTS) % 2, at_least=20, at_most=40)), {}),
    "matrix_atoms": (jd.Trace(np.eye(DIM)), jd.Budget(60), {"solver": "matrix_atoms"}),
    "interior_point": (jd.LogDet(), jd.Budget(60), {"solver": "interior_point", "tol": 1e-9}),
    "frank_wolfe": (jd.LogDet(), jd.Budget(60), {"solver": "frank_wolfe", "tol": 1e-2}),
    "multiplicative": (jd.LogDet(), jd.Budget(60), {"solver": "multiplicative", "tol": 1e-4}),
    "worst case": (jd.WorstCase({"a": TRACE, "b": np.eye(DIM) - TRACE}), jd.Budget(60), {}),
    "function": (jd.Criterion(lambda A: jnp.trace(jnp.linalg.inv(A))), jd.Budget(60), {}),
}


def pool_of(name):
    whole = name in ("matrix_atoms", "frank_wolfe", "multiplicative")
    return jd.CompletionPool(**GIVEN) if whole else streamed_source(chunk=40, **GIVEN)


def same(found, expected):
    np.testing.assert_array_equal(found.pairs, expected.pairs)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.certificate, expected.certificate)
    assert found.status == expected.status
    assert [row[:4] for row in found.trace] == [row[:4] for row in expected.trace]  # all but the seconds


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_is_stopped_after_every_pass_ends_in_the_same_design(name, tmp_path):
    crit, budget, options = RUNS[name]
    arguments = pool_of(name), crit, budget
    options = {"prior": 0.1, "tol": 1e-5} | options
    expected = jd.optimize(*arguments, **options)
    assert len(expected.trace) > 1
    passes = 1
    for _ in range(3 * len(expected.trace)):
        found = jd.optimize(*arguments, checkpoint=tmp_path / "run.npz", max_passes=passes, **options)
        if found.status is jd.Status.CERTIFIED:
            break
        passes = found.passes + 1
    assert passes > 1
    same(found, expected)


class Straying(ColumnGeneration):
    """Every step but the first is away from the optimum."""

    def step(self, problem, state, scored, tol):
        if state.passes < 10:
            return super().step(problem, state, scored, tol)
        even = problem.limits.total / len(state.labels)
        return state._replace(labels=(state.labels + even) / 2)


@pytest.mark.thorough
def test_the_best_of_the_passes_before_is_still_the_best(tmp_path):
    arguments = streamed_source(chunk=40, **GIVEN), jd.LogDet(), jd.Budget(60)
    options = {"prior": 0.1, "tol": 1e-12, "solver": Straying()}
    expected = jd.optimize(*arguments, max_passes=13, **options)
    for passes in (8, 11, 12, 13):
        found = jd.optimize(*arguments, checkpoint=tmp_path / "run.npz", max_passes=passes, **options)
    assert len(expected.trace) > 3 and expected.trace[-1].value == expected.trace[-2].value
    same(found, expected)


def test_a_run_that_is_over_is_certified_again_in_one_pass(tmp_path):
    rows, path = [], tmp_path / "run.npz"
    options = {"prior": 0.1, "tol": 1e-9, "checkpoint": path}
    arguments = streamed_source(chunk=40, **GIVEN), jd.LogDet(), jd.Budget(60, per_pair=1)
    first = jd.optimize(*arguments, **options)
    held = path.read_bytes()
    same(jd.optimize(*arguments, callback=rows.append, **options), first)
    assert len(rows) == 1 and path.read_bytes() == held and os.listdir(tmp_path) == ["run.npz"]


OTHERS = {
    "pool": {"features": np.where(np.isfinite(GIVEN["features"]), 2 * GIVEN["features"], 0)},
    "pool ": {"scores": np.random.default_rng(0).standard_normal((PROMPTS, COMPLETIONS))},
    "crit": jd.Criterion(lambda A: -2 * jnp.linalg.slogdet(A)[1]),
    "budget": jd.Budget(60, per_pair=2),
    "prior": {"prior": 0.2},
    "tol": {"tol": 1e-4},
    "solver": {"solver": "interior_point"},
    "start": {"start": jd.Design(np.array([[1, 0, 1]], np.int32), np.ones(1), None, jd.Status.EVALUATED)},
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run.npz"
    options = {"prior": 0.1, "checkpoint": path}
    own = jd.Criterion(lambda A: -jnp.linalg.slogdet(A)[1])
    jd.optimize(streamed_source(**GIVEN), own, jd.Budget(60, per_pair=1), **options)
    return path


@pytest.mark.parametrize("name", OTHERS)
def test_the_file_of_another_problem_is_refused(name, begun):
    change, pool = OTHERS[name], name.strip() == "pool"
    source = streamed_source(**GIVEN | (change if pool else {}))
    crit = change if name == "crit" else jd.Criterion(lambda A: -jnp.linalg.slogdet(A)[1])
    budget = change if name == "budget" else jd.Budget(60, per_pair=1)
    options = {"prior": 0.1, "checkpoint": begun} | (change if isinstance(change, dict) and not pool else {})
    with pytest.raises(ValueError, match=rf"run\.npz is of another problem: {name.strip()} differ; pass what it was"):
        jd.optimize(source, crit, budget, **options)


def test_a_damaged_file_is_refused(begun, tmp_path):
    whole, damaged = begun.read_bytes(), tmp_path / "damaged.npz"
    own = jd.Criterion(lambda A: -jnp.linalg.slogdet(A)[1])
    arguments = streamed_source(**GIVEN), own, jd.Budget(60, per_pair=1)
    expected = jd.optimize(*arguments, prior=0.1)
    places, refused = np.linspace(0, len(whole) - 1, 40).astype(int), 0
    for place in places:
        for data in (whole[:place], whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]):
            damaged.write_bytes(data)
            try:
                found = jd.optimize(*arguments, prior=0.1, checkpoint=damaged)
            except ValueError as error:
                assert "damaged.npz" in str(error) and "remove it" in str(error)
                refused += 1
            else:  # a byte that says nothing, such as a date in the archive
                same(found, expected)
    assert refused > 1.7 * len(places)


class Remembering:
    """A solver with a memory that cannot be written down."""

    max_passes, patience = 60, 6

    def init(self, problem, start):
        return ColumnGeneration().init(problem, start)._replace(memory=1)

    def step(self, problem, state, scored, tol):
        raise AssertionError("nothing is stepped before it is written down")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"checkpoint": 3}, TypeError, "checkpoint: expected a path, found int"),
        ({"checkpoint": "nowhere/run.npz"}, FileNotFoundError, "checkpoint: the folder nowhere does not exist"),
        (
            {"checkpoint": "run.npz", "solver": Remembering()},
            ValueError,
            "checkpoint: Remembering has a memory, and no",
        ),
    ],
)
def test_what_cannot_be_written_is_said(options, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        jd.optimize(streamed_source(**GIVEN), jd.LogDet(), jd.Budget(60), prior=0.1, **options)
    assert os.listdir(tmp_path) == []


def lives(lines):
    """What runs say that are killed as the lines ask for."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path])}
    command = [sys.executable, "-W", "ignore", "-m", "tests.support.killed_run"]
    done = subprocess.run(command, input="\n".join(lines), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("kills", [pytest.param(4, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_ends_in_the_same_design(kills, tmp_path):
    """At moments all over the run, each one going on from the file of the one before every other time."""
    for number in range(kills + 1):
        (tmp_path / str(number)).mkdir()
    said, finished = lives([f"{tmp_path / '0'} {10**9}"])
    moments, _, expected = said.partition(" ")
    assert finished == "finished" and int(moments) > 20
    shutil.rmtree(tmp_path / "0")
    dies = np.random.default_rng(kills).permutation(np.linspace(0, int(moments) - 1, kills).astype(int))
    lines = []
    for number, die in enumerate(dies, 1):
        folder = tmp_path / str(number)
        lines += [f"{folder} {die}", f"{folder} {die // 2}", f"{folder} {10**9}"][:: 1 if number % 2 else 2]
    said = iter(lives(lines))
    killed = ended = 0
    for line in said:
        if line == "killed":
            killed += 1
        else:
            assert line.partition(" ")[2] == expected
            assert next(said) == "finished"
            ended += 1
    assert killed >= kills and ended >= kills
