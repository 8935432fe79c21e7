"""Training what is not frozen of a Llama on labelled pairs, soft labels included, from cached streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxdesign._arrays import AnyArray
from jaxdesign._checks import rows_of_three, same_shape
from jaxdesign.preference.llama.policies import Frozen, HeadEdit, Tail, check_kind
from jaxdesign.preference.llama.sampling import ROWS, in_batches
from jaxdesign.preference.losses import soft_label_dpo_loss
from jaxdesign.preference.small_model.training import Trained, filter_of, train

PREFIX = "policy/"


class _OnCache(nnx.Module):
    """A policy beside the cache it is trained on, which minibatches name rows of: arguments of the step, not data."""

    def __init__(self, policy: HeadEdit | Tail, cache: Any):
        self.policy = policy
        self.kind = type(cache)
        self.arrays = nnx.List([Frozen(jnp.asarray(array)) for array in cache])

    def pairs(self, pairs: AnyArray) -> Array:
        """log pi of both completions of pairs (n, 3), (n, 2)."""
        cache = self.kind(*(array[...] for array in self.arrays))
        return self.policy.log_probability(cache.picked(pairs[:, 0], pairs[:, 1:]))


class _Labelled(NamedTuple):
    pairs: AnyArray
    label: AnyArray
    beta: AnyArray
    reference: AnyArray


@dataclass(frozen=True)
class _SoftLabelObjective:
    """Mean of the soft-label loss of DPO; one object is equal to another, so that a step compiles once."""

    def __call__(self, model: _OnCache, batch: _Labelled) -> Float[Array, ""]:
        first, second = model.pairs(batch.pairs).T
        return jnp.mean(soft_label_dpo_loss(first, second, *batch.reference.T, beta=batch.beta, label=batch.label))


def train_on_cache(
    policy: HeadEdit | Tail,
    cache: Any,
    pairs: Int[AnyArray, "n 3"],
    label: Float[AnyArray, " n"],
    *,
    beta: float,
    optimiser: optax.GradientTransformation,
    steps: int,
    batch_size: int = 50,
    seed: int = 0,
    reference: Float[AnyArray, "p k"] | None = None,
    optimiser_state: Any = None,
    first_step: int = 0,
    trainable: Sequence[str] | None = None,
    callback: Callable[[int, float], Any] | None = None,
) -> Trained[HeadEdit | Tail]:
    """DPO on labels in [0, 1]: l = w l(u) + (1 - w) l(-u), u = beta times the log-ratio gap of a pair.

    Args:
        policy: where to start, a HeadEdit or a Tail; it stays as it is.
        cache: of the pool's completions: a HeadCache for a HeadEdit, a TailCache for a Tail.
        pairs: (n, 3) prompt and the two completions, as designs give them.
        label: (n,) w, the probability that the first is the better of the two: 1, 0, 1/2 for a tie, or that of a fitted
            model.
        beta: above 0, the price of KL.
        optimiser: from optax; the same object for several trainings compiles once.
        steps: minibatches.
        batch_size: pairs of each.
        seed: of the order of the pairs.
        reference: (P, K) log pi_ref of the pool's completions from the same cache; None: the policy as it is passed.
        optimiser_state: to go on with; None starts afresh.
        first_step: steps taken before with this seed, as in `train`.
        trainable: patterns on paths of the policy's parameters, such as ["write"] or ["*/adapter_out"]; None: all.
        callback: `ProgressBar(steps)`, or any function of step and loss.

    Returns:
        Trained: a new policy, the optimiser's state, losses (steps,).

    Raises:
        TypeError, ValueError: pairs, labels or references that do not fit the cache; as `train` and the loss.

    Source: arXiv 2305.18290 for DPO; soft labels, arXiv 2509.24159; checked by
    tests/preference/llama/test_llama_training.py.
    """
    check_kind(policy, cache)
    pairs = rows_of_three(pairs, "pairs")
    label = np.asarray(label, np.float32)
    pool = np.shape(cache.tokens)[:2]
    if pairs.ndim != 2 or pairs.shape[1] != 3 or not len(pairs):
        raise ValueError(f"pairs: shape {pairs.shape} found; expected (n, 3), one row (prompt, i, j) per pair")
    same_shape(label.shape, (len(pairs),), "label", "one per pair")
    if (pairs < 0).any() or (pairs >= np.array([pool[0], pool[1], pool[1]])).any():
        raise ValueError(f"pairs: a prompt or completion outside of the {pool[0]} x {pool[1]} of the cache found")
    zeros = jnp.zeros(len(pairs))
    soft_label_dpo_loss(zeros, zeros, zeros, zeros, beta=beta, label=label)  # inside of the step nothing is
    model = _OnCache(policy, cache)
    if reference is None:
        held = _pair_log_probabilities(policy, cache, pairs)
    else:
        reference = np.asarray(reference, np.float32)
        same_shape(reference.shape, pool, "reference", "(prompts, completions) of the cache")
        held = reference[pairs[:, :1], pairs[:, 1:]]
    data = _Labelled(pairs.astype(np.int32), label, np.full(len(pairs), beta, np.float32), held)
    done = train(
        model,
        data,
        _SoftLabelObjective(),
        optimiser,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        optimiser_state=optimiser_state,
        first_step=first_step,
        trainable=_prefixed(trainable),
        callback=callback,
    )
    return Trained(done.model.policy, done.optimiser_state, done.losses)


def trained_of(policy: HeadEdit | Tail, trainable: Sequence[str] | None) -> Any:
    """The state that an optimiser of `train_on_cache` sees."""
    return nnx.split(_OnCache(policy, ()), filter_of(_prefixed(trainable)), ...)[1]


def _prefixed(trainable: Sequence[str] | None) -> Sequence[str] | None:
    """Patterns on paths of a policy as patterns on those of `_OnCache`; a string is left for `train` to refuse."""
    if trainable is None or isinstance(trainable, str):
        return trainable
    return [f"{PREFIX}{pattern}" for pattern in trainable]


def cached_log_probabilities(policy: HeadEdit | Tail, cache: Any, *, rows: int = ROWS) -> Float[np.ndarray, "p k"]:
    """log pi(y | x) of all completions of a cache under a policy.

    Args:
        policy: a HeadEdit or a Tail.
        cache: a HeadCache for a HeadEdit, a TailCache for a Tail.
        rows: completions side by side, in whole prompts.

    Returns:
        (P, K) float32, nats.

    Raises:
        TypeError: a cache of another kind. ValueError: rows below 1.

    Source: derived; checked by tests/preference/llama/test_llama_policies.py.
    """
    check_kind(policy, cache)
    definition, state = nnx.split(policy)
    kind, each = type(cache), np.shape(cache.tokens)[1]
    return in_batches(lambda some: _log_probability(definition, state, kind(*some)), tuple(cache), rows, each)


def _pair_log_probabilities(policy, cache, pairs) -> np.ndarray:
    """(n, 2) of listed pairs only."""
    host = type(cache)(*map(np.asarray, cache))
    return cached_log_probabilities(policy, host.picked(pairs[:, 0], pairs[:, 1:]))


@partial(jax.jit, static_argnames="definition")
def _log_probability(definition, state, cache):
    return nnx.merge(definition, state).log_probability(cache)
