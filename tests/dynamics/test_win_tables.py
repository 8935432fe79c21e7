"""Labels counted into tables."""

import numpy as np
import pytest

from jaxdesign.dynamics import estimate_preferences, win_tables
from jaxdesign.preference import as_labels


def test_wins_losses_ties_and_skips():
    pairs = [(0, 0, 2)] * 4 + [(1, 1, 2)] * 2
    wins, counts = win_tables(as_labels(pairs, [0, 0, 1, 2, 1, 3]), 2, 3)
    assert wins.shape == counts.shape == (2, 3, 3)
    assert (wins[0, 0, 2], wins[0, 2, 0], counts[0, 0, 2]) == (2.5, 1.5, 4)
    assert (wins[1, 1, 2], wins[1, 2, 1], counts[1, 2, 1]) == (0, 1, 1)
    assert wins.sum() == 5 and counts.sum() == 10
    np.testing.assert_array_equal(wins + wins.swapaxes(1, 2), counts)
    assert estimate_preferences(wins, counts).observed[0].sum() == 2


def test_no_labels_make_empty_tables():
    wins, counts = win_tables(as_labels(np.zeros((0, 3), int), np.zeros(0, int)), 2, 3)
    assert not wins.any() and not counts.any()


@pytest.mark.parametrize(("prompts", "completions"), [(1, 3), (2, 2)])
def test_labels_beyond_the_tables_are_named(prompts, completions):
    with pytest.raises(ValueError, match=r"labels: pair \(.*1, 1, 2.*\) found; tables have"):
        win_tables(as_labels([(0, 0, 1), (1, 1, 2)], [0, 1]), prompts, completions)
