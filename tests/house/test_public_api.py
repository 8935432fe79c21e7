"""The front door: names, signatures, documentation, what importing costs, and which file may import which."""

import ast
import graphlib
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


# ---- imports run downward only

# a file imports from lines above its own and from its own room; those on one line know nothing of each other
LAYERS = [
    ["_gathering"],
    ["_arrays", "_files", "_lazy", "_centring", "design"],
    ["_checks", "_coarse", "_linalg"],
    ["residual", "_forecast_words"],
    ["pool"],
    ["_pairs", "_scoring"],
    ["information", "criteria", "belief"],
    ["rank_updates", "methods", "budget", "expected_gaps"],
    ["pricing"],
    ["targets", "units", "annotators"],
    ["basis", "residual_metric"],
    ["problem"],
    ["analysis"],
    ["door"],
    ["certificates"],
    ["solvers", "reference"],
    ["exact"],
    ["baselines", "forecasts"],
    ["forecasts_by_completions", "label_curves"],
    ["io", "report", "preference"],
    ["dynamics"],
    ["cli"],
    ["__main__"],
]
# the same inside of rooms that have an order of their own
ROOMS = {
    "criteria": [
        ["protocol", "anchors"],
        ["log_det", "trace", "of_function", "adapted"],
        ["power_mean"],
        ["worst_case"],
    ],
    "budget": [
        ["family", "kinds"],
        ["quota"],
        ["constraint"],
        ["budget", "linear_program", "feasibility"],
        ["limits", "required"],
        ["oracle"],
    ],
    "pricing": [
        ["ceilings", "copies", "rows_on_host", "scores", "source", "stored"],
        ["checked", "ends", "host_fold", "layout"],
        ["listed", "memory"],
        ["owned"],
        ["projected", "widened"],
        ["believed"],
        ["adapted", "in_basis", "passes", "sharded", "streamed"],
        ["annotated", "largest", "some_prompts", "streamed_source"],
        ["sweep"],
    ],
    "certificates": [
        ["allowed", "separable"],
        ["coupled", "label_sums"],
        ["worst_case", "lifted_prior"],
        ["whole", "evaluate"],
    ],
    "solvers": [
        ["states"],
        ["fingerprint"],
        ["checkpoint"],
        ["driver"],
        ["dense"],
        ["column_generation"],
        ["atoms"],
        ["worst_case"],
        ["optimize"],
        ["low_rank"],
    ],
    "exact": [
        ["integer_programs", "rounding", "greedy"],
        ["by_score", "exchange"],
        ["candidates"],
        ["random_pairs", "choices"],
        ["select"],
    ],
    "dynamics": [
        ["links", "graphs", "comparison_graph", "proportions", "ratio_of_means", "labels_to_see_cycle"],
        ["preferences"],
        ["link_fit", "plan", "tournaments", "cyclic_share"],
        ["one_round", "round_optimum", "weighted_fits", "importance_weights", "loop_gain", "misfit"],
        ["fixed_point", "certificates", "iterate", "sampler_shift", "best_temper", "fastest_plan"],
        ["stability", "round_noise", "win_tables", "boundary_score", "stage_value", "estimate_preferences"],
        ["check_round"],
    ],
    "preference": [
        ["_extras", "_loss_inputs", "log_linear", "ranking_metrics"],
        ["losses", "list_losses", "label_posteriors", "posterior_labels", "rejection_sampling"],
        ["labels"],
        ["small_model", "targets"],
        ["features", "simulation", "fit"],
        ["round_notes", "round_residuals"],
        ["round_plan"],
        ["llama", "rounds"],
    ],
}
LEVELS = {
    room: {name: level for level, names in enumerate(layers) for name in names}
    for room, layers in {None: LAYERS, **ROOMS}.items()
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(tree, file):
    """Every module of the package imported anywhere in a file, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from (
                f"{node.module}.{alias.name}" if node.module == "jaxdesign" else node.module for alias in node.names
            )


def parts_of(file):
    """Rooms and name of a file: solvers/dense/host.py is ("solvers", "dense", "host")."""
    return file.relative_to(PACKAGE).with_suffix("").parts


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_run_downward(file):
    own = parts_of(file)
    if own[-1] == "__init__":
        return
    for module in imported(ast.parse(file.read_text()), file):
        other = tuple(module.split("."))[1:] if module.split(".")[0] == "jaxdesign" else ()
        shared = next((k for k, (a, b) in enumerate(zip(own, other, strict=False)) if a != b), None)
        room = None if shared == 0 else own[0]
        if shared is None or shared > 1 or room not in LEVELS:
            continue
        levels = LEVELS[room]
        for name in (own[shared], other[shared]):
            assert name in levels, f"{module}: give {name} its place among the layers of {room or 'the package'}"
        assert levels[other[shared]] < levels[own[shared]], f"{'.'.join(own)} imports {module}, which is not below it"


def test_no_file_imports_itself_by_a_detour():
    arrows = {}
    for file in FILES:
        found = {tuple(module.split("."))[1:] for module in imported(ast.parse(file.read_text()), file)}
        homes = {parts_of(other) for other in FILES}
        arrows[parts_of(file)] = {path[:n] for path in found for n in range(1, len(path) + 1) if path[:n] in homes}
    list(graphlib.TopologicalSorter(arrows).static_order())  # raises where there is a circle


# why a file may have more than 250 lines beside its docstrings, and how many
LONG = {
    "preference/__init__.py": ("one list of names, told twice: to imports and to editors", 390),
    "preference/fit/reliability.py": ("one fit: the model, its starts, the iteration and its standard errors", 300),
    "preference/labels/store.py": ("one class, whose methods share the file on disk", 300),
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_files_stay_short_and_open_with_what_they_are_for(file):
    text = file.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "no docstring"
    told = [
        node.body[0].end_lineno - node.body[0].lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
    ]
    assert len(text.splitlines()) <= 400
    _, most = LONG.get(str(file.relative_to(PACKAGE)), ("", 250))
    assert len(text.splitlines()) - sum(told) <= most


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_nobody_flips_a_global_switch(file):
    """The caller's precision, seeds and warnings are the caller's."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("jax.config.update", "np.random.seed", "warnings.filterwarnings", "np.seterr"), called


# files of preference that are a Flax model or train one, and load on first use only, by their room
FLAX = {
    "small_model": [
        "array_folders",
        "checkpoints",
        "dpo_training",
        "fine_tuning",
        "language_model",
        "posterior_training",
        "sampled_value",
        "sampling",
        "training",
    ],
    "llama": ["assembly", "blocks", "cached", "checkpoints", "model", "pair_training", "policies", "sampling"],
}


def test_heavy_libraries_are_imported_inside_functions_only():
    """Files of the preference package load on first use and may name what they train with; see the test above."""
    for file in FILES:
        if parts_of(file)[0] == "preference" and file.stem in FLAX.get(parts_of(file)[1], ()):
            continue
        for node in ast.parse(file.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {*HEAVY, "orbax"}, file
