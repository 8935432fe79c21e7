"""Pictures and tables of experiments show every rule under one name, in one colour, with its limits."""

import json
from pathlib import Path

import pytest

from bench import pictures
from bench.experiments import phase_plots, plots
from bench.rules import PROBLEMS, RULES, in_order

pytestmark = pytest.mark.thorough

RESULTS = Path(pictures.__file__).parent / "results"


@pytest.fixture(scope="module")
def figures():
    """The figures that `pictures.main` saves, by the end of their file's name, kept from the disk."""
    kept = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "save", lambda figure, file: kept.update({Path(file).stem: figure}))
        pictures.main()
    yield kept
    for figure in kept.values():
        plots._pyplot().close(figure)


def test_names_and_colours_are_one_to_one():
    for field in zip(*RULES.values(), strict=True):
        assert len(set(field)) == len(RULES)
    assert len(set(PROBLEMS.values())) == len(PROBLEMS)


def test_a_rule_without_a_name_is_told():
    with pytest.raises(KeyError, match=r"guess.*bench/rules\.py"):
        in_order(["trace", "guess"])


def test_every_rule_of_the_results_is_drawn_with_limits_or_says_why_not(figures):
    assert set(figures) == {path.stem for path in RESULTS.glob("*.png")}
    for name, figure in figures.items():
        if name in ("phase-diagrams", "growth"):  # of plans and sizes, not of rules
            continue
        lines = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert len(set(lines)) == len(lines)
        for axis in figure.axes:
            words = {round(text.get_position()[1]) for text in axis.texts}
            points = {}
            for drawn in axis.containers:
                (place,) = drawn.lines[0].get_ydata()
                points.setdefault(round(float(place)), []).append(drawn)
                assert drawn.has_xerr
                assert drawn.lines[0].get_color() == {r.name: r.colour for r in RULES.values()}[lines[round(place)]]
            assert words.isdisjoint(points) and words | set(points) == set(range(len(lines))), name


def test_pictures_of_real_pools_have_all_its_arms(figures):
    cases = json.loads((RESULTS / "real-pools.json").read_text())["cases"]
    arms = {arm for case in cases.values() for arm in case["given"]}
    lines = {
        label.get_text()
        for name in ("real-pools", "real-pools-proxies")
        for label in figures[name].axes[0].get_yticklabels()
    }
    assert lines == {RULES[arm].name for arm in arms}


def test_numbers_of_labels_that_were_not_measured_keep_their_place_and_nothing_is_not_drawn():
    row = {"ratio": {"64": [0.5, 0.4, 0.6]}}
    assert plots.ratios(row, [32, 64]) == [None, plots.Point(0.5, 0.4, 0.6)]
    assert plots.ratios(row, [32]) == "not run"
    assert plots.ratios({"ratio": {"64": [0.0, 0.0, 0.0]}}, [64]) == "no gap"


def test_labels_saved_have_limits_on_both_sides():
    """A gap of n^-1 that is half of random's saves 2; 10% relative errors of both move it by 1.96 x 14%."""
    rows = {
        rule: {str(n): {"simulated": gap / n, "standard_error": 0.1 * gap / n, "fitted": 1.0} for n in (50, 100, 400)}
        for rule, gap in (("random", 2.0), ("trace", 1.0))
    }
    (point,) = plots.saved(rows, "trace", 100)
    half = 1.96 * 0.1 * 2**0.5
    assert point.value == pytest.approx(2)
    assert point.low == pytest.approx(2 / (1 + half)) and point.high == pytest.approx(2 / (1 - half))


def test_phase_diagrams_show_every_panel_its_circling_plans_and_the_lines_that_cross_it(figures):
    figure = figures["phase-diagrams"]
    found = json.loads((RESULTS / "phase-diagrams.json").read_text())
    panels = {axis.get_title(): axis for axis in figure.axes if axis.get_title()}
    assert len(panels) == len(found["panels"]) * len(found["shares"])
    for name, by_share in found["panels"].items():
        for share, panel in by_share.items():
            axis = panels[f"{name}, {float(share):.0%} the policy's own answers"]
            circling = any(digit in "23" for line in panel["regime"] for digit in line)
            hatched = [drawn for drawn in axis.collections if any(getattr(drawn, "hatches", None) or [])]
            assert bool(hatched) == circling
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()][:4] == [name for name, *_ in phase_plots.LINES.values()]


def test_growth_is_drawn_beside_its_model(figures):
    found = json.loads((RESULTS / "cpu-2-cores-growth.json").read_text())
    upper, lower = figures["growth"].axes[:4], figures["growth"].axes[4:]
    for key, above, below in zip("PKdm", upper, lower, strict=True):
        (call,) = above.containers
        assert list(call.lines[0].get_ydata()) == [row["seconds"]["median"] for row in found[key]]
        folds, model = (line for line in above.lines if line.get_label() in ("its folds", "operations / rate"))
        assert list(folds.get_ydata()) == [row["seconds_of_folds"] for row in found[key]]
        assert list(model.get_ydata()) == [row["operations"] / found["rate"]["flops"] for row in found[key]]
        assert [line.get_label() for line in below.lines] == ["measured", "model"]
