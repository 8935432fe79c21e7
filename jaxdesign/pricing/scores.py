"""Sources that can be given scores: whose margins a belief with a mean sets."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float


@runtime_checkable
class Scorable(Protocol):
    """A source that can be given scores, as by a belief with a mean; no source has to."""

    @property
    def scored(self) -> bool:
        """Whether it has scores."""
        ...

    def with_scores(self, scores: Float[np.ndarray, "p k"]) -> Any:
        """The same source with these scores in place of any it has."""
        ...


def has_scores(source: Any) -> bool:
    """Whether a source has scores; False for one that does not say."""
    return bool(getattr(source, "scored", False))


def with_scores(source: Any, scores: Float[np.ndarray, "p k"]) -> Any:
    """The same source with these scores in place of any it has; ValueError where it has no way to be given scores."""
    if not isinstance(source, Scorable):
        raise ValueError(
            "prior: a belief with a mean sets the margins of what has no scores, and there is no way to give "
            f"{type(source).__name__} any; let its chunks have the scores phi . mean and pass prior=belief.precision, "
            "or add the property scored and the method with_scores(scores)"
        )
    return source.with_scores(scores)
