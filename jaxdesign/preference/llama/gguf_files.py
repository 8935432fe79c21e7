"""Llamas in GGUF files, the format of llama.cpp: their configuration and their weights, dequantised by `gguf`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from jaxdesign.preference._extras import needed_for
from jaxdesign.preference.llama.assembly import Names, assembled
from jaxdesign.preference.llama.config import LlamaConfig
from jaxdesign.preference.llama.model import Llama

NAMES = Names(
    block="blk.{}.",
    parts={
        "norm_attention/scale": "attn_norm.weight",
        "attention/query/kernel": "attn_q.weight",
        "attention/key/kernel": "attn_k.weight",
        "attention/value/kernel": "attn_v.weight",
        "attention/write/kernel": "attn_output.weight",
        "norm_feed/scale": "ffn_norm.weight",
        "gate/kernel": "ffn_gate.weight",
        "up/kernel": "ffn_up.weight",
        "down/kernel": "ffn_down.weight",
    },
    whole={"embedding": "token_embd.weight", "norm/scale": "output_norm.weight", "head": "output.weight"},
    heads_permuted=True,
)
FACTORS = "rope_freqs.weight"


class GGUFFile:
    """Fields and tensors of an open GGUF file.

    Args:
        path: of the file.

    Raises:
        ValueError: no GGUF file.
        ImportError: gguf is not installed (pip install 'jaxdesign[llm]').
    """

    def __init__(self, path: Path):
        with needed_for("reading a GGUF file"):
            from gguf import GGUFReader
        with path.open("rb") as opened:
            start = opened.read(4)
        if start != b"GGUF":
            raise ValueError(f"path: {path} begins with {start!r}, not with b'GGUF': it is no GGUF file")
        reader = GGUFReader(path)
        self.name = path.name
        self._fields = reader.fields
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}

    def field(self, name: str, default: Any = None) -> Any:
        """The value of a field as Python has it, or the default where there is none."""
        found = self._fields.get(name)
        return default if found is None else found.contents()

    def needed(self, name: str) -> Any:
        """The value of a field; ValueError where there is none."""
        found = self.field(name)
        if found is None:
            raise ValueError(f"path: {self.name} has no field {name!r}, which a Llama needs")
        return found

    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, rows first: GGUF lists it the other way round."""
        return tuple(int(size) for size in reversed(self._tensors[name].shape))

    def tensor(self, name: str) -> np.ndarray:
        """A tensor dequantised to float32, rows first; ValueError for a type that `gguf` cannot dequantise."""
        from gguf import dequantize

        tensor = self._tensors[name]
        try:
            rows = dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError as error:
            raise ValueError(
                f"path: {name} of {self.name} is stored as {tensor.tensor_type.name}, which gguf cannot dequantise; "
                "use a file with another quantisation"
            ) from error
        return np.asarray(rows, np.float32).reshape(self.shape(name))


@lru_cache(maxsize=1)  # weights and vocabulary of one file are read one after the other, and opening takes seconds
def _opened(path: Path, changed: int) -> GGUFFile:
    return GGUFFile(path)


def opened(path: Path) -> GGUFFile:
    """The file, open; opened once for calls in a row while it is not changed."""
    return _opened(path, path.stat().st_mtime_ns)


def llama_of_gguf(file: GGUFFile, dtype: str) -> Llama:
    """The Llama of a GGUF file. ValueError as of `load_llama`."""
    config = config_of_gguf(file, dtype)
    found = [name for name in file.names() if name != FACTORS]
    return assembled(config, NAMES, found, file.tensor, file.name)


def config_of_gguf(file: GGUFFile, dtype: str) -> LlamaConfig:
    """The configuration of a GGUF file. ValueError for another architecture, what is missing or not supported."""
    architecture = file.needed("general.architecture")
    if architecture != "llama":
        raise ValueError(f"path: {file.name} holds the architecture {architecture!r}; supported is 'llama'")
    if file.field("llama.expert_count", 0):
        raise ValueError(f"path: {file.name} has {file.field('llama.expert_count')} experts; supported are none")
    scaling = file.field("llama.rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        raise ValueError(
            f"path: {file.name} has rope.scaling.type {scaling!r}; supported are 'none', 'linear' and {FACTORS}"
        )
    embedding = NAMES.whole["embedding"]
    if embedding not in file.names():
        raise ValueError(f"path: {file.name} has no tensor {embedding}, which a Llama needs")
    width, heads = file.needed("llama.embedding_length"), file.needed("llama.attention.head_count")
    size = file.field("llama.attention.key_length", width // heads)
    turned = file.field("llama.rope.dimension_count", size)
    if turned != size:
        raise ValueError(f"path: {file.name} rotates {turned} of {size} entries of a head; supported is all of them")
    factors = (1.0,) * (size // 2)
    if FACTORS in file.names():
        factors = tuple(file.tensor(FACTORS).tolist())
    if scaling == "linear":
        factors = tuple(factor * file.needed("llama.rope.scaling.factor") for factor in factors)
    return LlamaConfig(
        vocabulary=file.shape(embedding)[0],
        width=width,
        depth=file.needed("llama.block_count"),
        heads=heads,
        kv_heads=file.field("llama.attention.head_count_kv", heads),
        inner=file.needed("llama.feed_forward_length"),
        head_size=size,
        max_length=file.needed("llama.context_length"),
        rope_base=file.field("llama.rope.freq_base", 10_000.0),
        rope_factors=() if set(factors) == {1.0} else factors,
        norm_epsilon=file.needed("llama.attention.layer_norm_rms_epsilon"),
        tied=NAMES.whole["head"] not in file.names(),
        dtype=dtype,
    )
