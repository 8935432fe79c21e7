"""A Llama put together from named tensors, whatever file they come from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxdesign.preference.llama.config import LlamaConfig
from jaxdesign.preference.llama.model import Llama


class Names(NamedTuple):
    """What one kind of file calls the tensors of a Llama.

    Args:
        block: what stands before the names of a block's tensors, with {} for its number.
        parts: name after that of every parameter of a block, by its path within the block.
        whole: name of every parameter outside of the blocks, by its path.
        heads_permuted: whether rows of query and key are stored so that a rotation turns neighbours (2 i, 2 i + 1).
    """

    block: str
    parts: Mapping[str, str]
    whole: Mapping[str, str]
    heads_permuted: bool

    def of(self, path: str) -> str:
        """The name of the parameter at a path such as `blocks/3/attention/query/kernel`."""
        if path in self.whole:
            return self.whole[path]
        _, number, part = path.split("/", 2)
        return self.block.format(number) + self.parts[part]


def assembled(
    config: LlamaConfig, names: Names, found: Collection[str], read: Callable[[str], np.ndarray], where: str
) -> Llama:
    """The Llama of a configuration with the tensors of a file.

    Args:
        config: its shape.
        names: what the file calls its tensors.
        found: names of all tensors of the file that are weights.
        read: the tensor of a name, rows first: (outputs, inputs) for a matrix.
        where: the file, for errors.

    Returns:
        The model, in `config.dtype`.

    Raises:
        ValueError: tensors that are missing, that this architecture has no place for, or whose shapes do not fit.
    """
    definition, state = nnx.split(nnx.eval_shape(lambda: Llama(config, rngs=nnx.Rngs(0))))
    flat = nnx.to_flat_state(state)
    paths = {"/".join(map(str, path)): variable for path, variable in flat}
    wanted = {names.of(path): path for path in paths}
    _same_names(set(wanted), set(found), where)
    arrays = {}
    for name, path in wanted.items():
        arrays[path] = _placed(read(name), path, tuple(paths[path].shape), config, names.heads_permuted, name, where)
    filled = [(path, variable.replace(arrays["/".join(map(str, path))])) for path, variable in flat]
    return nnx.merge(definition, nnx.from_flat_state(filled))


def _same_names(wanted: set[str], found: set[str], where: str) -> None:
    missing, strange = sorted(wanted - found), sorted(found - wanted)
    if missing:
        raise ValueError(
            f"path: {where} lacks {len(missing)} of the {len(wanted)} tensors that its configuration asks for, "
            f"{', '.join(missing[:3])} among them"
        )
    if strange:
        raise ValueError(
            f"path: {where} has {len(strange)} tensors that a Llama has no place for, {', '.join(strange[:3])} among "
            "them; supported are Llamas without biases and without experts"
        )


def _placed(rows, path, shape, config, permuted, name, where):
    """A tensor of a file as the parameter at a path: kernels are (inputs, outputs)."""
    kernel = path.endswith("/kernel")
    expected = shape[::-1] if kernel else shape
    if tuple(rows.shape) != expected:
        raise ValueError(
            f"path: {name} of {where} has shape {tuple(rows.shape)}; its configuration asks for {expected}"
        )
    if permuted and ("/query/" in path or "/key/" in path):
        rows = halves_first(rows, config.size)
    return jnp.asarray(rows.T if kernel else rows, config.dtype)


def halves_first(rows: np.ndarray, size: int) -> np.ndarray:
    """Rows of every head from the order of neighbours, 0 1 2 3 ..., to that of halves: even ones first, then odd ones.

    A rotation of entries (2 i, 2 i + 1) in the first order is one of (i, i + size / 2) in the second.
    """
    heads = rows.reshape(-1, size // 2, 2, *rows.shape[1:])
    return np.ascontiguousarray(np.swapaxes(heads, 1, 2)).reshape(rows.shape)
