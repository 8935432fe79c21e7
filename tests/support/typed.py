"""The package's annotations, shapes of arrays included, held against every call: what JAXDESIGN_TYPES=1 switches on.

NumPy arrays may stand wherever JAX's are annotated, and scalars of either wherever Python's numbers are. A test that
hands over what annotations forbid, to see it refused, is skipped: the annotation refuses it first.
"""

import jax
import jaxtyping
import numpy as np
import pytest
from beartype import BeartypeConf, FrozenDict, beartype
from beartype.roar import BeartypeDecorHintPepUnsupportedException

WHOLE = int | np.integer | np.floating | jaxtyping.Int[jax.Array, ""]  # data frames make floats of whole numbers
REAL = WHOLE | float | jaxtyping.Float[jax.Array, ""]
beartyped = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({int: WHOLE, float: REAL})))


def checked(function):
    """With its calls held against its annotations, where beartype knows them: not those that name a `Certificate`."""
    try:
        return beartyped(function)
    except BeartypeDecorHintPepUnsupportedException:  # named tuples that are generic
        return function


class _Raises:
    """`pytest.raises` that skips the test where annotations raise."""

    def __init__(self, own):
        self.own = own

    def __enter__(self):
        return self.own.__enter__()

    def __exit__(self, kind, error, traceback):
        if isinstance(error, jaxtyping.TypeCheckError):
            pytest.skip("refused by annotations")
        return self.own.__exit__(kind, error, traceback)


def switch_on():
    """To be called before anything imports the package."""
    own = pytest.raises
    pytest.raises = lambda *arguments, **more: _Raises(own(*arguments, **more))
    jaxtyping.Array = jax.Array | np.ndarray | np.generic
    jaxtyping.install_import_hook("jaxdesign", f"{__name__}.checked")
