"""Selectors by quadratic forms of differences (distance, APO, ArmFI): picks by hand and by plain NumPy."""

import numpy as np
import pytest

from jaxdesign.baselines import adpo, apo, arm_fi, bait, largest_distance
from tests.support.by_hand import by_hand, first, picks
from tests.support.problems import DIM, information_of, random_pool, random_spd, sensitivities_of, written_out

HELD = random_spd(2) + 0.1 * np.eye(DIM)


def test_largest_distance_by_hand():
    pool = by_hand([[3, 0], [0, 4], [3, 4], [5, 0], [0, 1]])  # |z| = 3, 4, 5, 5, 1
    assert picks(largest_distance, pool, 1) == first(2)
    assert picks(largest_distance, pool, 3) == first(2, 3, 1)
    assert picks(largest_distance, pool, 4, prior=np.diag([100.0, 1.0, 1.0])) == first(2, 3, 1, 0)
    pool = by_hand([[[0], [1], [3]], [[0], [2], [2]]])
    assert picks(largest_distance, pool, 2) == {(0, 0, 2), (0, 1, 2)}
    assert picks(largest_distance, pool, 2, per_prompt=1) == {(0, 0, 2), (1, 0, 1)}


@pytest.mark.thorough
def test_the_batch_rules_differ_as_their_papers_say():
    # long differences along one axis, short ones along the other; c = 1/4, held information I
    pool = by_hand([[3, 0], [2.9, 0], [2.8, 0], [0, 2]])
    assert picks(largest_distance, pool, 2) == first(0, 1)
    assert picks(apo, pool, 2) == first(0, 1)  # 9, 8.41, 7.84, 4: the second label is thought as good as the first
    assert picks(adpo, pool, 2) == first(0, 3)  # after (3, 0) the others have leverage 8.41 / 13, the last one 1
    assert picks(apo, pool, 2, prior=np.diag([9.0, 1.0, 1.0])) == first(3, 0)  # 1, 0.93, 0.87, 4
    # all together diag(1 + 25.25 / 4, 1 + 1): c z^2 / that is 0.308, 0.288, 0.268, 0.5
    assert picks(arm_fi, pool, 1) == first(3)
    assert picks(arm_fi, pool, 2) == first(3, 0)


def test_label_information_counts_where_the_rule_says_so():
    pool = by_hand([[3.0], [2], [2.5]], [[6.0, 0], [0, 0], [0, 0]])  # c = 0.0025 for the first pair, a hundredth
    for select in (largest_distance, apo):
        assert picks(select, pool, 2) == first(0, 2)
    for select in (arm_fi, adpo, bait):
        assert picks(select, pool, 2) == first(1, 2)


@pytest.mark.parametrize("scores", ["no", "yes", "draws"])
def test_apo_and_arm_fi_take_the_largest_forms(scores):
    for seed in range(3):
        pool = random_pool(seed, scores, copies=False)
        pairs, z, c = written_out(pool)
        held = np.broadcast_to(HELD, (len(c), DIM, DIM))
        ridge = 1e-5 * np.trace(HELD) / DIM * np.eye(DIM)
        by_apo = np.einsum("sd,de,se->s", z, np.linalg.inv(HELD + ridge), z)
        everything = information_of(z, c, np.ones(len(pairs)), held)
        ridge = 1e-6 * np.trace(everything - held, axis1=1, axis2=2)[:, None, None] / DIM * np.eye(DIM)
        by_arm_fi = sensitivities_of(z, c, np.linalg.inv(everything + ridge))
        for select, forms in ((apo, by_apo), (arm_fi, by_arm_fi)):
            best = pairs[np.argsort(-forms, kind="stable")[:9]]
            assert picks(select, pool, 9, HELD) == set(map(tuple, best.tolist()))


def test_a_singular_prior_still_ranks():
    pool = by_hand([[3, 0], [2, 2], [0, 1]])
    assert picks(apo, pool, 2, np.diag([1.0, 0, 0])) == first(1, 2)  # what has a part along the second axis
