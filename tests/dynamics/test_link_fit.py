"""The fit of features to a loop's preferences: where it exists, and what separates labels."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign._arrays import float64
from jaxdesign.dynamics.link_fit import fitted_parameter
from jaxdesign.dynamics.links import LINKS
from jaxdesign.preference import fit_bradley_terry


def fitted(rows, wins, masses=None, link="dpo"):
    with float64():
        given = (jnp.asarray(a) for a in (rows, wins, np.ones(len(rows)) if masses is None else masses))
        parameter, converged = fitted_parameter(*given, LINKS[link])
        return np.asarray(parameter), bool(converged)


@pytest.fixture
def heavy():
    """Rows of which some are three hundred times as long, and single labels of them."""
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((400, 2)) * np.where(np.arange(400) < 20, 300.0, 1.0)[:, None]
    chances = 1 / (1 + np.exp(-rows @ [0.5, -0.3]))
    return rows, (rng.random(400) < chances).astype(float)


@pytest.mark.slow
def test_long_pairs_whose_answers_are_certain_are_not_taken_for_separation(heavy):
    rows, wins = heavy
    parameter, converged = fitted(rows, wins)
    assert converged and np.abs(rows @ parameter).max() > 50
    np.testing.assert_allclose(parameter, fit_bradley_terry(rows, wins, np.ones(400)).parameter, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("along", [(1.0, 0.0), (0.6, -0.8)])
def test_labels_that_a_plane_separates_have_no_fit(heavy, along):
    rows, wins = heavy
    assert not fitted(rows, (rows @ along > 0).astype(float))[1]
    quasi = np.where(np.abs(rows[:, 0]) > 1, rows[:, 0] > 0, wins > 0).astype(float)
    flat = np.where((np.abs(rows[:, 0]) > 1)[:, None], rows, rows * [0, 1])  # undecided across, never along
    assert not fitted(flat, quasi)[1]


@pytest.mark.slow
def test_least_squares_always_exists(heavy):
    rows, wins = heavy
    parameter, converged = fitted(rows, (rows[:, 0] > 0).astype(float), link="ipo")
    assert converged
    np.testing.assert_allclose(parameter, np.linalg.lstsq(rows, (rows[:, 0] > 0) - 0.5, rcond=None)[0], rtol=1e-9)
    again, _ = fitted(np.concatenate([rows, 9 * rows]), np.r_[wins, wins], np.r_[np.ones(400), np.zeros(400)], "ipo")
    np.testing.assert_allclose(again, fitted(rows, wins, link="ipo")[0], rtol=1e-12)
