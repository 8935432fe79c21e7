"""What a proxy is worth: against simulation of the linear world, and in its limits."""

import numpy as np
import pytest

from jaxdesign import Budget, CompletionPool, policy_target
from jaxdesign.preference import proxy_belief, proxy_worth
from tests.support.problems import random_pool

POOL, RIDGE, BUDGET = random_pool(0, scores="no"), 0.5, Budget(1, per_pair=1)
MASK = np.asarray(POOL.mask)
FEATURES = np.where(MASK[..., None], np.asarray(POOL.features, np.float64), 0)
DIRECTION = np.array([1.0, -0.5, 2.0])
H = np.asarray(policy_target(POOL), np.float64)


@pytest.fixture(scope="module")
def found():
    return proxy_worth(POOL, FEATURES @ DIRECTION, BUDGET, [4, 30], prior=RIDGE, correlations=(0, 0.5, 0.9), draws=16)


def test_with_no_label_nothing_is_left_out_and_labels_help(found):
    spread = np.sum(H * np.eye(3)) / RIDGE
    assert found.explained == pytest.approx(1.0)
    np.testing.assert_allclose(found.nothing, spread / 2, rtol=1e-6)  # the spread of rewards is the prior's at any rho
    for gaps in found.gaps.values():
        assert (gaps[1] < gaps[0]).all() and (gaps > 0).all()


def test_a_proxy_that_is_right_helps_at_few_labels_and_a_useless_one_costs_little(found):
    plain, helped = found.gaps["random"], found.gaps["random with proxy"]
    share = helped / plain
    assert (np.diff(share[0]) < 0).all() and share[0, 2] < 0.9
    assert 1 - 1e-6 < share[0, 0] < 1.2
    assert (abs(share[1] - 1) < abs(share[0] - 1) + 0.01).all()  # labels take over


@pytest.mark.thorough
def test_in_a_linear_world_fits_with_and_without_the_proxy_have_these_gaps():
    told = proxy_worth(POOL, FEATURES @ DIRECTION, BUDGET, [6], prior=RIDGE, correlations=(0.8,), draws=200)
    rng = np.random.default_rng(0)
    p, i, j = np.nonzero(np.triu(MASK[:, :, None] & MASK[:, None, :], 1))
    z = FEATURES[p, i] - FEATURES[p, j]
    z = z[np.abs(z).max(axis=1) > 0]
    size = np.sqrt(np.sum(H * np.eye(3)) / RIDGE)
    unit = DIRECTION / np.sqrt(DIRECTION @ H @ DIRECTION)
    precisions = {
        "random": RIDGE * np.eye(3),
        "random with proxy": np.linalg.inv(np.eye(3) / RIDGE + size**2 * np.outer(unit, unit)),
    }
    gaps = {way: [] for way in precisions}
    for _ in range(20_000):
        w = 0.8 * size * unit + 0.6 * rng.standard_normal(3) / np.sqrt(RIDGE)
        some = z[rng.choice(len(z), 6, replace=False)]
        y = some @ w + 2 * rng.standard_normal(6)
        for way, precision in precisions.items():
            off = np.linalg.solve(precision + some.T @ some / 4, some.T @ y / 4) - w
            gaps[way].append(off @ H @ off / 2)
    for way, own in gaps.items():
        assert told.gaps[way][0, 0] == pytest.approx(np.mean(own), rel=0.05)


def test_figures_are_averaged_over_how_likely_correlations_are(found):
    averaged = found.averaged([1, 0, 3])
    np.testing.assert_allclose(averaged["design"], found.gaps["design"] @ [0.25, 0, 0.75])
    for chances in ([1, 2], [-1, 1, 1], [0, 0, 0]):
        with pytest.raises(ValueError, match="chances="):
            found.averaged(chances)
    said = found.summary()
    assert "the features explain 100% of the proxy" in said and "4 labels" in said and "design with proxy" in said


def test_the_proxy_is_that_of_its_belief(found):
    """The direction that is trusted is that of `proxy_belief`, whatever the unit and the sign of the proxy."""
    other = proxy_worth(
        POOL, 3 - 7 * FEATURES @ DIRECTION, BUDGET, [4, 30], prior=RIDGE, correlations=(0, 0.5, 0.9), draws=16
    )
    for way, gaps in found.gaps.items():
        np.testing.assert_allclose(other.gaps[way], gaps, rtol=1e-5)
    assert proxy_belief(POOL, FEATURES @ DIRECTION, RIDGE).explained == pytest.approx(found.explained)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correlations": (0.5, 1.0)}, r"correlations=\[0.5, 1.0\]: expected numbers above -1"),
        ({"correlations": ()}, r"correlations=\[\]"),
        ({"draws": 0}, "draws=0"),
        ({"prior": 0.0}, "precision: singular"),
        ({"totals": [4, 2]}, "totals="),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"totals": [4], "prior": RIDGE, **change}
    with pytest.raises(ValueError, match=message):
        proxy_worth(POOL, FEATURES @ DIRECTION, BUDGET, **arguments)


def test_a_prior_with_a_mean_is_refused():
    from jaxdesign import Belief

    with pytest.raises(ValueError, match="prior: has a mean"):
        proxy_worth(POOL, FEATURES @ DIRECTION, BUDGET, [4], prior=Belief(DIRECTION, np.eye(3)))
    assert isinstance(POOL, CompletionPool)
