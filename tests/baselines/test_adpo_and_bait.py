"""Selectors that pick in a loop: ADPO against `greedy`; BAIT by hand and with every value from a fresh inverse."""

import numpy as np
import pytest

from jaxdesign import Budget, LogDet, Trace, greedy
from jaxdesign.baselines import adpo, bait
from jaxdesign.baselines.bait import backward
from tests.support.by_hand import by_hand, first, picks
from tests.support.problems import DIM, criterion_of, information_of, random_pool, random_spd, written_out

H, HELD = random_spd(1), random_spd(2) + 0.1 * np.eye(DIM)


def test_adpo_makes_the_picks_of_greedy():
    for prior, crit in ((HELD, LogDet()), (None, Trace(H))):
        pool = random_pool(8)
        expected, _ = greedy(pool, LogDet(), size=16, per_pair=1, prior=prior)
        assert picks(adpo, pool, 16, prior, crit) == set(map(tuple, np.asarray(expected).tolist()))


def forward_backward(pool, target, total, prior):
    """BAIT written out: every value from a fresh inverse. Pairs as a set of tuples."""
    pairs, z, c = written_out(pool)

    def value(chosen):
        labels = np.isin(np.arange(len(pairs)), chosen).astype(float)
        return criterion_of(information_of(z, c, labels, prior), target)

    chosen = []
    for _ in range(min(2 * total, len(pairs))):
        open_pairs = [k for k in range(len(pairs)) if k not in chosen]
        chosen.append(min(open_pairs, key=lambda k: value([*chosen, k])))
    forward = set(map(tuple, pairs[chosen[:total]].tolist()))
    while len(chosen) > total:
        chosen.remove(min(chosen, key=lambda k: value([other for other in chosen if other != k])))
    return set(map(tuple, pairs[chosen].tolist())), forward


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("scores", ["no", "yes", "draws"])
def test_bait_goes_forward_and_back(scores):
    for seed in range(4):
        pool = random_pool(seed, scores, copies=False)
        _, z, c = written_out(pool)
        everything = information_of(z, c, np.ones(len(z))).mean(axis=0)
        assert picks(bait, pool, 9, HELD, Trace(H)) == forward_backward(pool, H, 9, HELD)[0]
        assert picks(bait, pool, 9, HELD, LogDet()) == forward_backward(pool, everything, 9, HELD)[0]
        named = bait(pool, Trace(H), Budget(9, per_pair=1), prior=HELD, target=everything)
        assert set(map(tuple, named.pairs.tolist())) == forward_backward(pool, everything, 9, HELD)[0]


def test_bait_by_hand():
    # c z z^T = diag(1, 0), diag(0, 1), 0.6 in each entry of the third; held I. tr A^-1 of the first two dimensions:
    # one label 1.5, 1.5, 3.2 / 2.2 = 1.45; the third and the first 4.2 / 3.8 = 1.11; all three taken, then going back
    # without the third 1, without the first 1.11
    pool = by_hand([[2, 0], [0, 2], [2 * 0.6**0.5] * 2])
    assert picks(bait, pool, 2, 1.0, Trace(np.eye(DIM))) == first(0, 1)
    assert forward_backward(pool, np.eye(DIM), 2, np.eye(DIM)) == (first(0, 1), first(2, 0))


def test_going_back_takes_the_label_of_least_loss_each_time():
    rng = np.random.default_rng(0)
    z, c, labels = rng.standard_normal((60, DIM)), rng.random((2, 60)), rng.integers(1, 6, 60).astype(float)
    start = information_of(z, c, labels, HELD)
    expected = labels.copy()
    for left in range(int(labels.sum()) - 1, 9, -1):  # some 170 labels: past two refactorisations
        values = [criterion_of(information_of(z, c, expected - one, HELD), H) for one in np.eye(60)]
        expected[np.argmin(np.where(expected > 0, values, np.inf))] -= 1
        if left % 25 == 0:
            np.testing.assert_array_equal(backward(start, H, z, c, labels, left), expected)


def test_bait_refuses_a_target_that_is_none():
    with pytest.raises(ValueError, match=r"target: shape \(2, 2\) found; expected \(3, 3\)"):
        bait(random_pool(0), LogDet(), Budget(5), target=np.eye(2))
