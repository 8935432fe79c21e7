"""An explicit sampler mu that puts the Smith set on top of A mu exists for every P: a linear program finds it."""

import numpy as np
import pytest
from scipy.optimize import linprog

from jaxdesign.dynamics.tournaments import condorcet_winner, smith_set
from tests.support.preference_tables import completed


def widest_margin(preferences, top):
    """max over mu of min over i in top, j not in top of (A_i - A_j) mu, and the mu that reaches it."""
    size = len(preferences)
    a = preferences - 0.5
    rows = (a[top][:, None] - a[~top][None]).reshape(-1, size)
    found = linprog(
        np.append(np.zeros(size), -1),
        A_ub=np.column_stack([-rows, np.ones(len(rows))]),
        b_ub=np.zeros(len(rows)),
        A_eq=np.append(np.ones(size), 0)[None],
        b_eq=[1],
        bounds=[(0, 1)] * size + [(None, None)],
    )
    assert found.status == 0
    return -found.fun, found.x[:-1]


@pytest.mark.parametrize("seed", range(8))
def test_some_sampler_puts_the_smith_set_on_top(seed):
    rng = np.random.default_rng(seed)
    proper = 0
    for _ in range(25):
        size = int(rng.integers(3, 8))
        above = rng.random(size * (size - 1) // 2)
        preferences = completed(np.where(rng.random(above.shape) < 0.1, 0.5, above), size)
        top = smith_set(preferences)
        if top.all():
            continue
        proper += 1
        margin, sampler = widest_margin(preferences, top)
        assert margin > 1e-6
        scores = (preferences - 0.5) @ sampler
        assert scores[top].min() > scores[~top].max()
    assert proper >= 5


def test_no_sampler_puts_answers_on_top_that_are_beaten_by_all_others():
    preferences = completed([0.9, 0.8, 0.7], 3)  # 2 is beaten by both
    assert widest_margin(preferences, np.array([False, False, True]))[0] <= 1e-12


def test_a_point_mass_on_a_condorcet_winner_puts_it_on_top():
    rng = np.random.default_rng(0)
    for _ in range(20):
        preferences = completed(rng.random(10), 5)
        preferences[2], preferences[:, 2] = 0.6, 0.4
        preferences[2, 2] = 0.5
        assert condorcet_winner(preferences)[2]
        assert ((preferences - 0.5) @ np.eye(5)[2]).argmax() == 2
