"""How often the tests of fit say no where the model holds, and yes where a cycle is of the size asked for."""

import numpy as np
import pytest
from scipy.special import expit

from jaxdesign.dynamics.labels_to_see_cycle import labels_to_see_cycle
from jaxdesign.dynamics.misfit import additivity_misfit, bradley_terry_misfit
from tests.support.preference_tables import completed, sampled

RUNS = 3_000  # standard error of a size of 0.05: 0.004
LOGISTIC = [(0, 0, 0), (1, 0, -0.5), (1, 0.6, 0.2, -0.3), (1.5, 0.9, 0.3, -0.3, -0.9, -1.5), (0,) * 8]
ADDITIVE = [(0, 0, 0), (0.2, 0.05, -0.1, -0.15), (0.2, 0.12, 0.04, -0.04, -0.12, -0.2), (0.2, 0.1, 0, 0, 0, -0.1, -0.2)]
NEAR_THE_ENDS = [(0.25, 0.1, -0.1, -0.24), (0.5, 0, 0, 0)]  # chances of 0.99 and 1


def p_values_of(test, preferences, labels):
    size = len(preferences)
    counts = np.broadcast_to(labels * (1 - np.eye(size)), (RUNS, size, size))
    found = test(sampled(preferences, counts, np.random.default_rng(0)), counts)
    p_values = found.p_value[found.fitted]
    return p_values, np.mean(found.fitted)


def differences(scores):
    scores = np.array(scores, float)
    return scores[:, None] - scores[None]


@pytest.mark.thorough(cases=4)
@pytest.mark.parametrize("labels", [10, 20, 50, 200])
@pytest.mark.parametrize("scores", LOGISTIC, ids=str)
def test_size_of_the_bradley_terry_test(scores, labels):
    p_values, fitted = p_values_of(bradley_terry_misfit, expit(differences(scores)), labels)
    assert fitted > 0.98
    assert 0.035 <= np.mean(p_values < 0.05) <= 0.085 and np.mean(p_values < 0.01) <= 0.02


@pytest.mark.thorough(cases=4)
@pytest.mark.parametrize("labels", [10, 20, 50, 200])
@pytest.mark.parametrize("scores", ADDITIVE, ids=str)
def test_size_of_the_additivity_test(scores, labels):
    p_values, fitted = p_values_of(additivity_misfit, 0.5 + differences(scores), labels)
    assert fitted == 1
    assert 0.03 <= np.mean(p_values < 0.05) <= 0.07 and np.mean(p_values < 0.01) <= 0.02


@pytest.mark.thorough(cases=2)
@pytest.mark.parametrize("labels", [5, 20, 50])
@pytest.mark.parametrize("scores", NEAR_THE_ENDS, ids=str)
def test_chances_near_0_and_1_make_the_additivity_test_cautious_not_wrong(scores, labels):
    p_values, fitted = p_values_of(additivity_misfit, 0.5 + differences(scores), labels)
    assert fitted == 1 and np.mean(p_values < 0.05) <= 0.06


@pytest.mark.thorough
@pytest.mark.parametrize("size", [0.05, 0.1])
def test_labels_to_see_cycle_have_the_power_asked_for(size):
    labels = np.ceil(labels_to_see_cycle(size))
    p_values, _ = p_values_of(additivity_misfit, completed(0.5 + size * np.array([1, -1, 1]), 3), labels)
    assert np.mean(p_values < 0.05) == pytest.approx(0.8, abs=0.035)
