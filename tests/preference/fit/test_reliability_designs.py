"""Estimated reliability back in designs: crews, flip noise of pools, and the information of noisy labels."""

import numpy as np
import pytest

from jaxdesign import Budget, LogDet, label_information, select_pairs
from jaxdesign.preference.fit.reliability import estimate_reliability, flip_of, reliable_annotators, with_estimated_flip
from jaxdesign.preference.labels.labels import SECOND
from tests.support.crowds import a_pool, a_truth, judged, log_likelihood


def test_an_adversarial_annotator_is_noticed_and_kept_out_of_designs():
    pool = a_pool(5)
    truth = a_truth(pool, 5)
    labels = judged(pool, truth, [0.95, 0.9, 0.9, 0.9], 3)
    turned = (labels.annotators == 2) & (labels.choices <= SECOND)
    labels = labels._replace(choices=np.where(turned, 1 - labels.choices, labels.choices).astype(np.int8))
    found = estimate_reliability(pool, labels)
    assert abs(found.eta[2] - 0.1) < 0.06 and abs(found.eta[0] - 0.95) < 0.06
    assert flip_of(found.eta)[2] == 0.49 and abs(flip_of(found.eta)[0] - (1 - found.eta[0])) < 1e-12


def test_the_next_crew_has_the_estimated_noise():
    crew = reliable_annotators([0.97, 0.6, np.nan, 0.2], names=["ann", "bob", "carl", "dan"], cost=[3, 1, 1, 1])
    np.testing.assert_allclose(crew.flip, [0.03, 0.4, 0.49, 0.49])
    assert crew.names == ("ann", "bob", "carl", "dan") and crew.cost.tolist() == [3, 1, 1, 1]


@pytest.mark.slow
def test_the_next_design_buys_from_the_reliable():
    pool = a_pool(8, prompts=20)
    crew = reliable_annotators([0.97, 0.6, np.nan], names=["ann", "bob", "carl"])
    np.testing.assert_allclose(crew.flip, [0.03, 0.4, 0.49])
    design = select_pairs(pool, LogDet(), Budget(40, per_pair=1), prior=0.1, annotators=crew)
    assert np.bincount(design.annotators, design.labels, 3).tolist() == [40, 0, 0]


def test_label_information_takes_the_estimated_noise():
    pool = with_estimated_flip(a_pool(9), [0.9, 0.7], shares=[3, 1])
    np.testing.assert_allclose(label_information(pool, np.array([[0, 0, 1]])), (1 - 2 * 0.15) ** 2 / 4, rtol=1e-6)
    np.testing.assert_allclose(with_estimated_flip(a_pool(9), [0.9, 0.7]).flip, 0.2, rtol=1e-6)


def test_information_is_that_of_the_noisy_labels(crowd):
    """Against the curvature of the likelihood in w at the estimate, which it is the mean of."""
    pool, _, labels, found = crowd
    step, dim = 1e-4, pool.dim
    curvature = np.empty((dim, dim))
    for a in range(dim):
        for b in range(dim):
            ea, eb = step * np.eye(dim)[a], step * np.eye(dim)[b]
            values = [
                log_likelihood(pool, labels, found.parameter + s * ea + t * eb, found.eta)
                for s, t in ((1, 1), (1, -1), (-1, 1), (-1, -1))
            ]
            curvature[a, b] = -(values[0] - values[1] - values[2] + values[3]) / (4 * step**2)
    np.testing.assert_allclose(curvature, found.information, atol=0.12 * np.abs(found.information).max())
