"""The experiment on weighted labels, small: its laws, its limits, and the same rows from the same seed."""

import json

import numpy as np
import pytest

from bench.experiments import weighted_labels as wl
from bench.experiments.files import plain
from jaxdesign.dynamics import importance_weights, sampler_shift

pytestmark = pytest.mark.slow

SMALL = {"prompts": 30, "completions": 5, "dim": 3}


def test_a_reward_that_is_nearly_linear_is_learnt_from_any_law():
    of = wl.world(1e6, **SMALL)
    for law in wl.laws(of):
        assert law.sum() == pytest.approx(1) and (law > 0).all()
        assert of.gap(of.limit(law)) < 1e-9


def test_the_design_moves_the_limit_and_weights_undo_it():
    of = wl.world(2.0, **SMALL)
    target, law = wl.laws(of)
    weights = importance_weights(of.pairs, law, np.zeros(of.reward.shape))
    np.testing.assert_allclose(of.limit(law * weights), of.limit(target), atol=1e-9)
    assert np.abs(of.limit(law) - of.limit(target)).max() > 0.05
    labels = of.drawn(law, 400_000, np.random.default_rng(0))
    shift = sampler_shift(of.pool, labels, np.zeros(of.reward.shape), beta=of.beta, drawn_law=of.masses(law))
    np.testing.assert_allclose(shift.plain, of.limit(law), atol=0.05)
    np.testing.assert_allclose(shift.weighted, of.limit(target), atol=0.05)
    assert shift.p_value < 1e-6


def test_rows_of_a_seed_come_again_and_are_drawn(tmp_path):
    of = wl.world(2.0, **SMALL)
    found = wl.experiment(of, [100, 400], seeds=3, tell=lambda *_, **__: None)
    assert plain(found) == plain(wl.experiment(of, [100, 400], seeds=3, tell=lambda *_, **__: None))
    assert found["limits"]["trace_drawn"] > found["limits"]["random"] >= -1e-12 and 0 < found["effective"] < 1
    excess = {rule: row[400]["excess"] for rule, row in found["rows"].items()}
    assert excess["trace_best_temper"] <= min(excess["trace_drawn"], excess["trace_weighted"])
    assert found["rows"]["random"][400]["ratio"] == [1, 1, 1]
    wl.plot_excess({"saturated": json.loads(json.dumps(plain(found)))}, str(tmp_path / "excess.png"))
    assert (tmp_path / "excess.png").stat().st_size > 5_000
