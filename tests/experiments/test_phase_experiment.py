"""The phase diagrams' experiment from end to end, small; what it counts is what was simulated."""

import json

import numpy as np
import pytest

from bench.experiments import phase_diagrams, phase_plots
from bench.loops import loops
from jaxdesign.dynamics import LoopPlan, Regime, iterate, stability

pytestmark = pytest.mark.slow


def test_from_end_to_end(tmp_path):
    file, picture = tmp_path / "phases.json", tmp_path / "phases.png"
    given = ["--alphas", "6", "--strengths", "8", "--rounds", "900", "--json", str(file), "--plot", str(picture)]
    found = phase_diagrams.main(given)
    assert picture.stat().st_size > 10_000
    stored = json.loads(file.read_text())
    assert stored["panels"].keys() == found["panels"].keys() == phase_diagrams.preferences().keys()
    panel = stored["panels"]["cyclic"]["1"]
    matrix = phase_diagrams.preferences()["cyclic"]
    alpha, strength = stored["alphas"][2], stored["strengths"][5]
    alone = iterate(matrix, LoopPlan(alpha, strength), np.array([0.3, 0, 0, 0]), steps=900)
    assert int(panel["regime"][2][5]) == alone.regime
    assert phase_plots.grid(panel["rho"])[2, 5] == pytest.approx(
        float(stability(matrix, LoopPlan(alpha, strength)).rho), rel=5e-3
    )
    for by_share in stored["panels"].values():
        for panel in by_share.values():
            assert panel["false_certificates"] == 0 and panel["rho_above_1_at_rest"] == 0
    assert {int(digit) for row in stored["panels"]["transitive"]["1"]["regime"] for digit in row} <= {
        Regime.RESTING,
        Regime.SETTLING,
    }


def test_speed_of_loops_runs_small():
    assert all(row["median"] > 0 for row in loops(small=True).values())
