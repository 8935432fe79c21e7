"""Designs of one problem, however its pool is kept."""

import numpy as np


def agree(found, expected):
    """The same pairs; labels and certificates to ten digits."""
    np.testing.assert_array_equal(found.pairs, expected.pairs)
    np.testing.assert_allclose(found.labels, expected.labels, rtol=1e-10)
    np.testing.assert_allclose(found.certificate, expected.certificate, rtol=1e-10, atol=1e-12)
    assert found.status == expected.status and found.skipped_prompts == expected.skipped_prompts
