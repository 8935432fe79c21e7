"""Types: what a type checker, and with it an editor, says of the package and of code that uses it."""

import dataclasses
import importlib
import importlib.util
import json
import pkgutil
import subprocess
import sys
import types
import typing
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxdesign

PACKAGE = Path(jaxdesign.__file__).parent
ROOMS = ("", "preference", "solvers", "baselines", "io")

USER = '''
import jax
import jax.numpy as jnp
import numpy as np

import jaxdesign as jd
from jaxdesign import preference as pf

features = np.zeros((2, 3, 4), np.float32)
pool = jd.CompletionPool(features, scores=np.zeros((2, 3)), mask=np.ones((2, 3), bool), ids=["a", "b"])
pool, basis = jd.restrict_to_range(jd.CompletionPool(jnp.asarray(features)))
budget = jd.Budget(5, per_pair=1, per_prompt=np.ones(2), cost=np.ones((2, 3)), cost_total=7)
budget = jd.Budget(total=5.0, quotas=(jd.Quota(["x", "y"], at_least=1, at_most={"x": 2.0}),))
annotators = jd.Annotators([0.1, 0.2], cost=[1, 2], names=["expert", "crowd"])

for crit in (jd.LogDet(), jd.Trace(np.eye(4)), jd.Trace(jnp.eye(4)), jd.WorstCase({"a": np.eye(4)})):
    design = jd.optimize(pool, crit, budget, prior=1e-3, solver="frank_wolfe", callback=lambda row: row.gap < 1)
    batch = jd.select_pairs(pool, crit, budget, prior=np.eye(4), progress=print, annotators=annotators)
    again = jd.evaluate(pool, crit, budget, batch.pairs, batch.labels)
value: float = batch.certificate.value + batch.certificate.relative_gap()
rows: list[list[int]] = batch.pairs.tolist()
best = jd.optimize(pool, jd.Criterion(lambda A: -jnp.linalg.slogdet(A)[1]), budget, solver=jd.solvers.FrankWolfe())

pairs, labels = jd.greedy(pool, jd.LogDet(), size=3)
allocation, certificate = jd.solvers.frank_wolfe(pool, jd.LogDet(), budget)
traced: jax.Array = jnp.minimum(certificate.efficiency, labels.sum())
A = jd.pair_information(pool, np.ones((2, 3, 3))) + jd.pair_information(pool, allocation)
b = jd.pair_sensitivities(pool, np.eye(4)) + jd.pair_sensitivities(pool, jnp.eye(4))
c = jd.label_information(pool, batch.pairs) + jd.label_information(pool, pairs)
H = jd.policy_target(pool, np.zeros((2, 3))) + jd.policy_target(pool, jnp.zeros((2, 3)))
curve = jd.label_curve(pool, jd.LogDet(), budget, [10, 20], rules=["random"])
saved: float = jd.label_curve(pool, jd.LogDet(), budget, np.arange(1, 3)).labels_saved(2)
chance = jd.baselines.random(pool, jd.LogDet(), budget)

loss = pf.dpo_loss(np.zeros(3), np.zeros(3), jnp.zeros(3), np.zeros(3), beta=0.1)
mean: jax.Array = pf.weighted_mean(loss, np.ones(3))
given = pf.as_labels(batch.pairs, np.zeros(len(batch.pairs), int))
posterior = pf.fit_posterior(pool, given, 1.0)
scored = pf.scored_pool(pool, pf.posterior_draws(posterior, 3, 0))
targets = pf.posterior_targets(scored, posterior.parameter, 0.1)


class Even:
    """A solver of one's own."""

    max_passes = 3
    patience = 2

    def init(self, problem, start):
        return jd.solvers.SolverState(np.zeros((1, 3), np.int32), np.ones(1), 0)

    def step(self, problem, state: jd.solvers.SolverState, scored, tol: float):
        return state


own = jd.optimize(pool, jd.LogDet(), budget, solver=Even())
'''


@pytest.fixture
def checked(tmp_path):
    """What pyright says of a text, as (severity, message) in order of lines."""
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed")

    def run(text: str) -> list[tuple[str, str]]:
        (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(PACKAGE.parent)]}))
        (tmp_path / "user.py").write_text(text)
        command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(tmp_path)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
        assert found["summary"]["filesAnalyzed"] == 1
        return [(each["severity"], each["message"]) for each in found["generalDiagnostics"]]

    return run


@pytest.mark.slow
def test_every_public_name_has_a_type(checked):
    """Names load lazily, so that an editor has nothing but `TYPE_CHECKING` to complete them from."""
    lines = ["import jaxdesign", *(f"import jaxdesign.{room}" for room in ROOMS if room)]
    for room in ROOMS:
        package = importlib.import_module(f"jaxdesign.{room}".strip("."))
        names = [name for name in dir(package) if not name.startswith("_") and _is_public(package, name)]
        lines += [f"reveal_type({package.__name__}.{name})" for name in names]
    found = checked("\n".join(lines))
    assert len(found) > 150 and [message for severity, message in found if severity != "information"] == []
    untyped = [message for _, message in found if "Unknown" in message or '" is "Any"' in message]
    generic = {"jaxdesign.Certificate": "Certificate", "jaxdesign.preference.Trained": "Trained"}  # of what: see there
    assert untyped == [f'Type of "{name}" is "type[{own}[Unknown]]"' for name, own in generic.items()]


def _is_public(package, name):
    """Whether a name is a room or is defined in the package: no file, nothing that the file imports for itself."""
    value = getattr(package, name)
    of_ours = getattr(value, "__module__", "jaxdesign").startswith("jaxdesign")
    return name in ROOMS or (of_ours and not isinstance(value, types.ModuleType))


@pytest.mark.slow
def test_code_as_users_write_it_has_no_type_errors(checked):
    assert checked(USER) == []


@pytest.mark.slow
def test_misuse_is_found(checked):
    """So that the two tests above can fail."""
    found = checked("import jaxdesign\njaxdesign.optimise\njaxdesign.Budget(total='many')\n")
    assert [severity for severity, _ in found] == ["error", "error"], found


# why a dataclass that may hold arrays compares by value all the same
BY_VALUE = {
    "jaxdesign.preference.features.nnx_policy.PolicyFunction": "structure of a model, which NNX compares by value",
}


def _may_hold_arrays(kind) -> bool:
    if kind is typing.Any:
        return True
    if dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"):
        names = getattr(kind, "_fields", None) or [field.name for field in dataclasses.fields(kind)]
        return any(_may_hold_arrays(typing.get_type_hints(kind)[name]) for name in names)
    if isinstance(kind, type) and not typing.get_args(kind):
        return issubclass(kind, jax.Array | np.ndarray) or hasattr(kind, "array_type")  # jaxtyping's
    if typing.get_origin(kind) in (typing.ClassVar, importlib.import_module("collections.abc").Callable):
        return False
    return any(_may_hold_arrays(part) for part in typing.get_args(kind))


def test_dataclasses_that_may_hold_arrays_compare_by_identity():
    """Arrays have no one truth value, so that comparing field by field would raise, and no hash."""
    seen = 0
    for found in pkgutil.walk_packages([str(PACKAGE)], "jaxdesign."):
        for kind in vars(importlib.import_module(found.name)).values():
            if not (isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__ == found.name):
                continue
            if _may_hold_arrays(kind) and f"{found.name}.{kind.__name__}" not in BY_VALUE:
                seen += 1
                assert not kind.__dataclass_params__.eq and kind.__hash__ is object.__hash__, kind
    assert seen >= 10
