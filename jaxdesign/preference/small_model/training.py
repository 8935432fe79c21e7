"""The loop that trains a policy: minibatches, an optax optimiser, one compiled step, a callback for progress."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxdesign.preference._extras import needed_for

Policy = TypeVar("Policy", bound=nnx.Module)  # a LanguageModel, or any model in Flax NNX


class Trained(NamedTuple, Generic[Policy]):
    """A trained policy with what is needed to train it on.

    Args:
        model: the policy.
        optimiser_state: of the optimiser, after the last step.
        losses: (steps,) float32, of every step's minibatch before the step.
    """

    model: Policy
    optimiser_state: Any
    losses: Float[np.ndarray, " steps"]


def train(
    model: Policy,
    data: Any,
    objective: Callable[[Policy, Any], Array],
    optimiser: optax.GradientTransformation,
    *,
    steps: int,
    batch_size: int,
    seed: int = 0,
    optimiser_state: Any = None,
    first_step: int = 0,
    trainable: Sequence[str] | None = None,
    callback: Callable[[int, float], Any] | None = None,
) -> Trained[Policy]:
    """Minimise the mean of an objective over minibatches of `data`; the model passed stays as it is.

    The step is compiled once for each combination of model shape, data shapes, objective, optimiser and batch size, and
    again only where one of these is new: pass the same objects to train several policies with one compilation.

    Args:
        model: where to start.
        data: pytree of arrays with one row per example.
        objective: (model, minibatch) -> scalar; hashable (a function, or a frozen dataclass with `__call__`).
        optimiser: from optax.
        steps: number of minibatches.
        batch_size: examples of a minibatch, drawn by `batch_rows`.
        seed: of the order of the examples.
        optimiser_state: to go on with; None starts afresh.
        first_step: steps that were taken before with this seed (`Checkpoint.step`): the examples go on from there, and
            training in two parts is training in one.
        trainable: patterns on the paths of the parameters to train, such as ["head/*"] or ["blocks/1/*", "norm/*"], as
            for `gradients.projected_gradients`; the others stay. None: all.
        callback: called after every step with its number, from first_step + 1, and its loss; a true result stops.

    Returns:
        Trained: a new model, the optimiser's state, losses (steps,) float32.

    Raises:
        TypeError: an objective that cannot be hashed, trainable no list.
        ValueError: no data, steps or batch_size below 1, first_step below 0, a pattern that matches no parameter.

    Source: derived; checked by tests/preference/small_model/test_policy_training.py.
    """
    if not isinstance(objective, Hashable):
        raise TypeError(f"objective: {type(objective).__name__} cannot be hashed; use a function or a frozen dataclass")
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(data)}
    if len(sizes) != 1:
        raise ValueError(f"data: arrays of {sorted(sizes)} rows found; each must have one row per example")
    if isinstance(first_step, bool) or int(first_step) != first_step or first_step < 0:
        raise ValueError(f"first_step={first_step}: must be a whole number of at least 0")
    rows = batch_rows(sizes.pop(), batch_size, steps, seed, first_step)
    data = jax.tree.map(jnp.asarray, data)
    definition, parameters, frozen = nnx.split(model, filter_of(trainable), ...)
    _check_patterns(trainable, model)
    state = optimiser.init(parameters) if optimiser_state is None else optimiser_state
    losses = []
    for number, row in enumerate(rows, first_step + 1):
        parameters, state, loss = _step(definition, objective, optimiser, parameters, frozen, state, data, row)
        losses.append(loss)
        if callback is not None and callback(number, float(loss)):
            break
    return Trained(nnx.merge(definition, parameters, frozen), state, np.asarray(jax.device_get(losses), np.float32))


@partial(jax.jit, static_argnames=("definition", "objective", "optimiser"))
def _step(definition, objective, optimiser, parameters, frozen, state, data, row):
    batch = jax.tree.map(lambda array: array[row], data)

    def of(values):
        return objective(nnx.merge(definition, values, frozen), batch)

    loss, slope = jax.value_and_grad(of)(parameters)
    change, state = optimiser.update(slope, state, parameters)
    return optax.apply_updates(parameters, change), state, loss


def batch_rows(
    size: int, batch_size: int, steps: int, seed: int, first_step: int = 0
) -> Int[np.ndarray, "steps batch"]:
    """Rows of every minibatch from first_step on: permutations of all examples in turn, cut into pieces of equal size.

    Every example has been used k or k + 1 times at any moment, and no piece is smaller than the others, whatever the
    number of examples: a remainder would be a shape of its own, and so a compilation.
    """
    for name, value in (("data", size), ("batch_size", batch_size), ("steps", steps)):
        if value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
    rng = np.random.default_rng(seed)
    until = batch_size * (first_step + steps)
    passes = -(-until // size)
    order = np.concatenate([rng.permutation(size) for _ in range(passes)])
    return order[batch_size * first_step : until].reshape(steps, batch_size).astype(np.int32)


@dataclass(frozen=True)
class _Named:
    """NNX filter: variables whose path, "blocks/1/attention/read/kernel", matches one of the patterns."""

    patterns: tuple[str, ...]

    def __call__(self, path, value) -> bool:
        return any(fnmatchcase("/".join(map(str, path)), pattern) for pattern in self.patterns)


def filter_of(trainable: Sequence[str] | None) -> Any:
    """The NNX filter of patterns on paths; None means every parameter. TypeError for a string."""
    if trainable is None:
        return nnx.Param
    if isinstance(trainable, str):
        raise TypeError(f"trainable={trainable!r}: must be a list of patterns, not a string")
    return _Named(tuple(trainable))


def _check_patterns(trainable: Sequence[str] | None, model: nnx.Module) -> None:
    """ValueError for a pattern that matches nothing: a misspelt one would silently leave its parameters as they are."""
    paths = ["/".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.split(model)[1])]
    for pattern in [] if trainable is None else trainable:
        if not any(fnmatchcase(path, pattern) for path in paths):
            raise ValueError(f"trainable: {pattern!r} matches no parameter; the first path is {paths[0]}")
    if trainable is not None and not len(trainable):
        raise ValueError(f"trainable: no pattern found, so nothing to train; the first path is {paths[0]}")


class ProgressBar:
    """A tqdm bar as a callback of `train`: steps done and the loss, smoothed; close it, or use it in a `with`.

    Args:
        steps: how many there will be.
        label: what stands before the bar.

    Raises:
        ImportError: tqdm is not installed (pip install 'jaxdesign[preference]').

    Source: derived; checked by tests/preference/small_model/test_policy_training.py.
    """

    def __init__(self, steps: int, label: str = "training"):
        with needed_for("ProgressBar"):
            from tqdm.auto import tqdm

        self._bar = tqdm(total=steps, desc=label, dynamic_ncols=True)
        self._loss = None

    def __call__(self, step: int, loss: float) -> None:
        self._loss = loss if self._loss is None else 0.95 * self._loss + 0.05 * loss
        self._bar.set_postfix(loss=f"{self._loss:.3f}", refresh=False)
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_) -> None:
        self.close()
