"""The gap predicted by (beta/2) tr(H F^-1) is the mean gap of simulated training, for every kind of design."""

import numpy as np
import pytest

import jaxdesign as jd
from bench.experiments import simulated_gap as sim
from bench.experiments.log_linear import experiment, log_linear, scaled, tabular
from jaxdesign._arrays import float64

LABELS = 60_000
REPEATS = 3000  # the gap is about a chi-square of 4: its mean is then known to sqrt(2/4/3000) = 1.3 per cent


@pytest.fixture(scope="module")
def truth():
    return log_linear(prompts=12, completions=4, dim=4, spread=0.8, seed=3)


@pytest.fixture(scope="module")
def random_design(truth):
    with float64():
        return jd.baselines.random(truth.pool, jd.LogDet(), jd.Budget(30, per_pair=1))


def design_of(name, truth):
    H = truth.target(np.zeros(4))
    with float64():
        informed = jd.CompletionPool(truth.pool.features, truth.scores())
        return {
            "trace at the reference": lambda: jd.optimize(truth.pool, jd.Trace(H), jd.Budget(30)),
            "trace at the truth": lambda: jd.optimize(informed, jd.Trace(truth.target()), jd.Budget(30)),
            "log det": lambda: jd.optimize(truth.pool, jd.LogDet(), jd.Budget(30)),
        }[name]()


SOLVED = ["trace at the reference", "trace at the truth", "log det"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*[pytest.param(name, marks=pytest.mark.slow) for name in SOLVED], "random"])
def test_prediction_is_the_mean_gap_of_maximum_likelihood_policies(truth, random_design, name):
    design = random_design if name == "random" else design_of(name, truth)
    labels = scaled((design.pairs, design.labels / 30), LABELS)
    predicted = sim.predicted_gap(truth, labels)
    gaps = sim.simulated_gaps(truth, labels, REPEATS, seed=0)
    assert np.isfinite(gaps).all()  # a maximum exists in every repeat
    error = gaps.std(ddof=1) / np.sqrt(REPEATS)
    assert abs(gaps.mean() - predicted) < 4 * error
    for wrong in (0.8, 1.2):  # so that the comparison above has the power to tell a prediction 20 per cent off
        assert abs(gaps.mean() - wrong * predicted) > 4 * error


def test_prediction_matches_the_formula_written_out_pair_by_pair(truth, random_design):
    design = random_design
    features, w, beta = np.asarray(truth.pool.features), truth.parameter, truth.beta
    F = np.zeros((4, 4))
    for p, i, j in design.pairs:
        z = features[p, i] - features[p, j]
        chance = 1 / (1 + np.exp(-z @ w))
        F += beta**2 * 2 * chance * (1 - chance) * np.outer(z, z)  # two labels a pair
    H = np.zeros((4, 4))
    for rows, reference in zip(features, truth.log_reference, strict=True):
        pi = np.exp(reference + rows @ w / beta)
        H += np.cov(rows.T, aweights=pi / pi.sum(), ddof=0) / len(features)
    labels = scaled((design.pairs, design.labels / 30), 60)
    assert np.isclose(sim.predicted_gap(truth, labels), beta / 2 * np.trace(H @ np.linalg.inv(F)), rtol=1e-10)


def test_labels_that_leave_a_direction_open_predict_an_infinite_gap(truth):
    assert sim.predicted_gap(truth, sim.collect(np.array([[0, 0, 1], [1, 0, 1]]), [500, 500])) == np.inf


@pytest.mark.slow
@pytest.mark.parametrize("problem", ["log_linear", "tabular"])
def test_every_design_of_the_experiment_agrees_with_its_prediction(problem):
    """All selectors, floor, averaging and two rounds: within 10 per cent or three standard errors at a large n."""
    small = log_linear(prompts=20, completions=5, dim=5, spread=0.6, seed=1)
    truth = small if problem == "log_linear" else tabular(completions=8, spread=0.5, seed=1)
    found = experiment(truth, 28, [4_000, 40_000, 200_000], repeats=300, seeds=2, tell=lambda *_, **__: None)
    assert set(found["rows"]) > {"random", "trace_two_rounds", "trace_floor", "trace_averaged", *jd.baselines.SELECTORS}
    assert found["disagree_at_largest_n"] == []
    assert len(found["skipped_singular"]) < 4
    saved = found["labels_saved_simulated"]
    assert saved["trace_oracle"][40_000] > 1 and saved["trace_two_rounds"][40_000] > 1
