"""Flax NNX models as pure functions of their parameters, the form in which features are taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxdesign.preference._extras import needed_for


@dataclass(frozen=True)
class PolicyFunction:
    """(params, example) -> log_probability(model, example), `model` put together anew from its structure and params.

    Equal for models of the same structure, so that new parameters, or a copy of the model, do not compile again.
    """

    log_probability: Callable[[Any, Any], Any]
    graphdef: Any
    rest: _Held | None

    def __call__(self, params: Any, example: Any) -> Any:
        from flax import nnx

        states = (params,) if self.rest is None else (params, self.rest.state)
        return self.log_probability(nnx.merge(self.graphdef, *states), example)


@dataclass(frozen=True, eq=False)
class _Held:
    """Variables that are no parameters; compared by identity, because arrays have no hash."""

    state: Any


def split_model(model: Any, log_probability: Callable[[Any, Any], Any]) -> tuple[PolicyFunction, Any]:
    """A pure function and its parameters, as `gradients` takes them, from an NNX model.

    Args:
        model: a `flax.nnx.Module`. Its `nnx.Param` variables become params; everything else (random streams,
            statistics) stays as it is now inside of the function. Switch dropout off first: `model.eval()`.
        log_probability: (model, example) -> scalar, the log-probability of one completion of one example.

    Returns:
        function and params, function(params, example) = log_probability(model, example). Later parameters of the same
        model are `nnx.state(model, nnx.Param)`; paths of the leaves are those of the model's attributes.

    Raises:
        TypeError: model is no NNX module.
        ImportError: flax is not installed (pip install 'jaxdesign[preference]').

    Source: derived; checked by tests/preference/features/test_gradient_features.py.
    """
    with needed_for("split_model"):
        from flax import nnx

    if not isinstance(model, nnx.Module):
        raise TypeError(f"model: expected a flax.nnx.Module, found {type(model).__name__}")
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    held = _Held(rest) if nnx.to_flat_state(rest) else None
    return PolicyFunction(log_probability, graphdef, held), params
