"""Rows of an array brought to the host, and of an array that lies elsewhere no more than about those."""

from __future__ import annotations

import jax
import numpy as np

from jaxdesign._arrays import AnyArray


def rows_on_host(array: AnyArray, index: np.ndarray) -> np.ndarray:
    """Rows of an array in host memory; of one that lies elsewhere, no more is moved than about those.

    A transfer from an accelerator runs at about 2 GB/s: of 10^8 pairs, all that a pass says of completions takes longer
    than the pass (bench/README.md).
    """
    if isinstance(array, np.ndarray) or _on_cpu(array):
        return np.asarray(array)[index]
    return moved_rows(array, index)


def _on_cpu(array: jax.Array) -> bool:
    return all(device.platform == "cpu" for device in array.devices())


def moved_rows(array: jax.Array, index: np.ndarray) -> np.ndarray:
    """Rows of an array taken on its device, in one of a few numbers, so that few programs are ever compiled."""
    size = 512
    while size < len(index):
        size *= 8
    if size >= len(array):
        return np.asarray(array)[index]
    padded = np.zeros(size, np.int32)
    padded[: len(index)] = index
    return np.asarray(_rows_at(array, padded))[: len(index)]


@jax.jit
def _rows_at(array, index):
    return array[index]
