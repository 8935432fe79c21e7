"""Folds by a loop on the host over chunks that are made, or read, one after the other while devices work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxdesign import _arrays
from jaxdesign.pricing.source import Chunk, Kernel


def folded(chunks: Iterable[Chunk], kernel: Kernel, carry: Any, per_prompt: Any = None) -> tuple[Any, Any]:
    """`Source.fold` over chunks that come one after the other, by a loop on the host.

    Chunks may be generated: each is asked for while the one before it is at work, and when all earlier ones are let go.
    All but the last must have the same number of prompts; the last one is filled up to it, so that a kernel is compiled
    once.

    Args:
        chunks: of all prompts in order.
        kernel, carry, per_prompt: as for `Source.fold`.

    Returns:
        As `Source.fold`; the outputs on the host.

    Raises: nothing of its own.

    Source: derived; checked by tests/extensions/test_new_source.py.
    """
    return visited(_filled_up(chunks), Partial(_step, jax.tree.map(jnp.asarray, kernel)), carry, per_prompt)


def _filled_up(chunks):
    length = None
    for chunk in chunks:
        size = len(chunk.copies)
        length = length or size
        if size < length:
            chunk = jax.tree.map(lambda a, missing=length - size: _arrays.filled_up(a, missing), chunk)
            chunk = chunk._replace(copies=chunk.copies.at[size:].set(-1))
        yield Part(chunk, length, size)
        del chunk


@jax.jit
def _step(kernel, chunk, carry, inputs):
    return kernel(chunk, carry, inputs)


class Part(NamedTuple):
    """Some consecutive prompts in a form that a visit takes.

    Args:
        held: what it takes.
        slots: how many prompts that has, empty ones at its end included.
        prompts: how many there are.
    """

    held: Any
    slots: int
    prompts: int


def visited(parts: Iterable[Part], visit: Callable[..., tuple[Any, Any]], carry: Any, per_prompt: Any) -> tuple:
    """(carry, outputs) after visit(held, carry, inputs) -> (carry, outputs) on all parts in order; see `Source.fold`.

    Devices work on a part while the host makes the next one: of parts and of outputs there are never more than two.
    Outputs go to the host, where they wait for each other.
    """
    carry, per_prompt = jax.tree.map(jnp.asarray, carry), jax.tree.map(np.asarray, per_prompt)
    start, outputs, at_work = 0, [], []
    for held, slots, size in parts:
        inputs = jax.tree.map(lambda a, first=start, stop=start + size: a[first:stop], per_prompt)
        if size < slots:
            inputs = jax.tree.map(lambda a, missing=slots - size: _filled_on_host(a, missing), inputs)
        carry, found = visit(held, carry, inputs)
        del held
        outputs += [_on_host(*part) for part in at_work]
        at_work, start = [(found, size)], start + size
        del found
    outputs += [_on_host(*part) for part in at_work]
    at_work.clear()
    return carry, _joined(outputs)


def _filled_on_host(array, missing):
    return np.pad(array, ((0, missing), *[(0, 0)] * (array.ndim - 1)))


def _on_host(outputs, size):
    return jax.tree.map(lambda a: np.asarray(a)[:size], outputs)


def _joined(outputs: list) -> Any:
    """Outputs joined leaf by leaf; the parts of a leaf are let go before the next leaf is joined."""
    if len(outputs) == 1:
        return outputs[0]
    structure = jax.tree.structure(outputs[0])
    leaves = [jax.tree.leaves(part) for part in outputs]
    outputs.clear()
    return structure.unflatten([np.concatenate([part.pop(0) for part in leaves]) for _ in range(len(leaves[0]))])
