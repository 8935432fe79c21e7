"""The crowd that tests of reliability share."""

import pytest

from jaxdesign.preference.fit.reliability import estimate_reliability
from tests.support.crowds import ETA, a_pool, a_truth, judged


@pytest.fixture(scope="module")
def crowd():
    pool = a_pool()
    truth = a_truth(pool)
    labels = judged(pool, truth, ETA, 4)
    return pool, truth, labels, estimate_reliability(pool, labels)
