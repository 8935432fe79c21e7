"""Files of the package: which may import which, how long they are, and what they must leave alone."""

import ast
import graphlib
from pathlib import Path

import pytest

import jaxdesign
from tests.house.test_public_api import HEAVY

PACKAGE = Path(jaxdesign.__file__).parent

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
