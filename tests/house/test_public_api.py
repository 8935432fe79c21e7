"""The front door: names, signatures, documentation, and what importing costs."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxdesign
from jaxdesign.criteria.protocol import CriterionLike

PACKAGE = Path(jaxdesign.__file__).parent

# names of DESIGN's front door with their parameters; more may stand beside them
SIGNATURES = {
    "CompletionPool": ["features", "scores", "mask", "ids"],
    "Budget": ["total", "per_pair", "per_prompt", "cost"],
    "LogDet": [],
    "Trace": ["H"],
    "Criterion": ["function"],
    "pair_information": ["pool", "weights"],
    "pair_sensitivities": ["pool", "G"],
    "pair_differences": ["pool", "pairs"],
    "label_information": ["pool", "pairs"],
    "policy_target": ["pool", "log_weights"],
    "restrict_to_range": ["pool", "rtol"],
    "optimize": ["pool", "crit", "budget", "prior", "tol", "solver", "max_passes", "start", "callback"],
    "select_pairs": ["pool", "crit", "budget", "prior", "seed"],
    "evaluate": ["pool", "crit", "budget", "pairs", "labels", "prior"],
    "greedy": ["pool", "crit", "size", "per_pair", "prior"],
}
FIELDS = ["pairs", "labels", "certificate", "status", "passes", "trace", "skipped_prompts", "report", "annotators"]


def public(name):
    """A public name, or a skip where its file is not there yet."""
    home = jaxdesign._HOMES.get(name, name)
    if importlib.util.find_spec(f"jaxdesign.{home}") is None:
        pytest.skip(f"jaxdesign.{home} is not there yet")
    return getattr(jaxdesign, name)


@pytest.mark.parametrize("name", jaxdesign.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = public(name)
    assert value is getattr(jaxdesign, name)
    assert name in dir(jaxdesign)
    documentation = inspect.getdoc(value)
    assert documentation and len(documentation.split()) >= 8
    if inspect.isfunction(value) and len(inspect.signature(value).parameters) > 2:
        assert "Args:" in documentation and "Returns:" in documentation and "Raises:" in documentation
    if inspect.isclass(value):
        assert documentation != inspect.getdoc(value.__mro__[1])
        for method, function in inspect.getmembers(value, inspect.isfunction):
            # methods of a protocol are documented there, those of pytrees and tuples by JAX and Python
            defined = method in vars(value) and not method.startswith(("_", "tree_"))
            if defined and method not in vars(CriterionLike):
                assert inspect.getdoc(function), f"{name}.{method}"


@pytest.mark.parametrize(("name", "expected"), SIGNATURES.items())
def test_signatures_are_those_promised(name, expected):
    found = list(inspect.signature(public(name)).parameters)
    assert [parameter for parameter in found if parameter in expected] == expected
    assert found[: min(3, len(expected))] == expected[:3]


@pytest.mark.parametrize("name", ["optimize", "select_pairs", "greedy"])
def test_options_are_given_by_name(name):
    parameters = list(inspect.signature(public(name)).parameters.values())
    first = 2 if name == "greedy" else 3
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters[first:])


def test_fields_of_results():
    assert list(jaxdesign.Design.__dataclass_fields__)[: len(FIELDS)] == FIELDS
    assert jaxdesign.Certificate._fields == ("value", "lower_bound", "gap", "efficiency")
    for status in jaxdesign.Status:
        assert str(status).endswith(".") and len(str(status).split()) > 4


def test_the_reference_is_called_like_optimize():
    parameters = list(inspect.signature(public("reference").optimize).parameters)
    assert parameters[:4] == ["pool", "crit", "budget", "prior"]


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="has no attribute 'optimise'"):
        jaxdesign.optimise  # noqa: B018


# ---- what importing costs

HEAVY = ["cvxpy", "flax", "optax", "matplotlib", "pandas", "scipy.optimize", "pyarrow", "torch", "transformers"]
HEAVY += ["gguf", "tokenizers", "safetensors", "jinja2"]


def test_importing_pulls_in_jax_and_numpy_only():
    """Also after every name that works without extras has been touched."""
    lines = [
        "import sys, jaxdesign",
        "import importlib.util",
        "for name in jaxdesign.__all__:",
        "    if importlib.util.find_spec('jaxdesign.' + jaxdesign._HOMES.get(name, name)) is not None:",
        "        getattr(jaxdesign, name)",
        f"print([name for name in {HEAVY} if name in sys.modules])",
    ]
    for script in ("\n".join([lines[0], lines[-1]]), "\n".join(lines)):
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        assert result.stdout.strip() == "[]"


def test_importing_the_preference_package_needs_no_extras():
    script = f"import sys, jaxdesign.preference; print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.parametrize(
    ("missing", "statement", "what"),
    [
        ("flax", "from jaxdesign.preference import train", "jaxdesign.preference.train"),
        ("flax", "import jaxdesign.preference as pf; pf.LanguageModel", "jaxdesign.preference.LanguageModel"),
        ("optax", "from jaxdesign.preference import Checkpoint", "jaxdesign.preference.Checkpoint"),
        ("tqdm", "from jaxdesign.preference import ProgressBar; ProgressBar(3)", "ProgressBar"),
        ("orbax", "from jaxdesign.preference import restore_checkpoint; restore_checkpoint('.')", "restore_checkpoint"),
        ("flax", "from jaxdesign.preference import split_model; split_model(1, len)", "split_model"),
        ("flax", "from jaxdesign.preference import load_llama", "jaxdesign.preference.load_llama"),
    ],
)
def test_without_the_extra_it_is_said_what_to_install(missing, statement, what):
    script = f"import sys; sys.modules[{missing!r}] = None; {statement}"
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False)
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ModuleNotFoundError: {what} needs {missing}"), last
    assert last.endswith("which is not installed; pip install 'jaxdesign[preference]'")


def test_what_a_label_team_needs_needs_no_extras():
    missing = "".join(f"sys.modules[{name!r}] = None; " for name in ("flax", "optax", "orbax", "tqdm"))
    script = f"import sys; {missing}from jaxdesign.preference import *; print(LabelStore.__name__)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "LabelStore", result.stderr


ROOMS_OF_PREFERENCE = ["features", "fit", "labels", "llama", "simulation", "small_model"]


@pytest.mark.parametrize("room", ["", *ROOMS_OF_PREFERENCE])
def test_editors_and_imports_know_the_same_names_of_preference(room):
    """What type checkers are told is what `__getattr__` finds; all names of a room can be had from preference too."""
    package = importlib.import_module(".".join(filter(None, ["jaxdesign.preference", room])))
    told = {}
    for node in ast.walk(ast.parse(Path(package.__file__).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.startswith(f"{package.__name__}."):
            home = node.module.removeprefix(f"{package.__name__}.")
            told |= {alias.asname: home for alias in node.names if alias.asname}
    assert told == package._HOMES
    assert set(package.__all__) <= set(package._HOMES) <= set(jaxdesign.preference._HOMES)
    for name in package._HOMES:
        assert getattr(package, name) is getattr(jaxdesign.preference, name)


def test_types_are_shipped():
    assert (PACKAGE / "py.typed").is_file()


def test_dataclasses_with_arrays_compare_by_identity():
    """Arrays have no one truth value, so that comparing field by field would raise."""
    caps = np.ones(3)
    budget = jaxdesign.Budget(3.0, per_pair=caps)
    assert budget == budget and budget != jaxdesign.Budget(3.0, per_pair=caps) and len({budget}) == 1
    design = jaxdesign.Design(
        np.zeros((0, 3), int), np.zeros(0), jaxdesign.Certificate(0, 0, 0, 1), jaxdesign.Status.EXACT
    )
    assert design == design and len({design}) == 1


def test_what_is_missing_for_other_reasons_is_not_put_down_to_the_extra():
    script = "import sys; sys.modules['jaxdesign.pool'] = None; from jaxdesign.preference import as_labels"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "jaxdesign.pool" in result.stderr and "pip install" not in result.stderr


def test_importing_starts_no_computation_and_sets_no_flag():
    script = (
        "import jax; before = dict(jax.config.values); import jaxdesign; jaxdesign.optimize; "
        "assert dict(jax.config.values) == before; "
        "from jax._src import xla_bridge; assert not xla_bridge.backends_are_initialized()"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
