"""Labels needed to see a three-cycle: the given figures, the noncentral chi-square law, refusals."""

import numpy as np
import pytest
from scipy.stats import chi2, ncx2

from jaxdesign.dynamics.labels_to_see_cycle import labels_to_see_cycle


def test_the_figures_given():
    """They are those of ncp = 7.848861, a rounded number."""
    size = np.array([0.05, 0.1, 0.2, 0.4])
    found = labels_to_see_cycle(size)
    np.testing.assert_allclose(12 * size**2 * found, 7.848861, rtol=0, atol=5e-7)
    np.testing.assert_allclose(found, [261.6287, 65.407175, 16.35179375, 4.087948437], rtol=7e-8)


@pytest.mark.parametrize(("level", "power"), [(0.05, 0.8), (0.01, 0.9), (0.2, 0.21), (0.001, 0.999), (0.6, 0.61)])
def test_power_is_that_of_the_noncentral_chi_square_law(level, power):
    noncentrality = 12 * 0.3**2 * labels_to_see_cycle(0.3, level=level, power=power)
    assert ncx2.sf(chi2.isf(level, 1), 1, noncentrality) == pytest.approx(power, rel=1e-7)


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ({"size": 0.0}, "size=0: must be above 0"),
        ({"size": [0.1, 0.6]}, "size=0.6: must be above 0 and at most 1/2"),
        ({"size": np.nan}, "size=nan"),
        ({"size": 0.1, "level": 0.0}, "level=0: must be"),
        ({"size": 0.1, "level": 1.0}, "level=1: must be"),
        ({"size": 0.1, "power": 0.05}, "power=0.05: must be above level=0.05"),
        ({"size": 0.1, "power": 1.0}, "power=1: must be"),
    ],
)
def test_refusals(arguments, fragment):
    with pytest.raises(ValueError, match=fragment):
        labels_to_see_cycle(**arguments)
