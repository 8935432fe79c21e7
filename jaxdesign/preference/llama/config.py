"""The shape of a Llama: what its tensors measure and the constants of its formulas."""

from __future__ import annotations

import math
from dataclasses import dataclass

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class LlamaConfig:
    """Shape and constants of a `Llama`; files hold them under other names (`load_llama` reads those).

    Args:
        vocabulary: V, tokens that are embedded.
        width: of the residual stream.
        depth: number of blocks.
        heads: query heads of each block.
        kv_heads: key and value heads; each serves heads / kv_heads query heads.
        inner: width of the feed-forward layer.
        head_size: width of a head, an even number; None for width / heads.
        max_length: longest prompt and completion together, in tokens without padding.
        rope_base: of the rotary frequencies rope_base^(-2 i / head_size).
        rope_factors: what each of the head_size / 2 frequencies is divided by; () for 1.
        norm_epsilon: added to the mean square in every norm.
        tied: whether tokens are predicted with the matrix that embeds them.
        dtype: of parameters and products, "float32" or "bfloat16"; norms, softmax and logits are float32 in both.

    Raises:
        TypeError: a size that is no integer.
        ValueError: a size below 1, head counts that do not divide, an odd head_size, another dtype, constants that are
            not positive, another number of rope_factors.

    Source: the fields of `config.json` of Hugging Face's LlamaForCausalLM and of GGUF's architecture "llama"; checked
    by tests/preference/llama/test_llama_files.py.
    """

    vocabulary: int
    width: int
    depth: int
    heads: int
    kv_heads: int
    inner: int
    head_size: int | None = None
    max_length: int = 2048
    rope_base: float = 10_000.0
    rope_factors: tuple[float, ...] = ()
    norm_epsilon: float = 1e-5
    tied: bool = False
    dtype: str = "float32"

    def __post_init__(self):
        for name in ("vocabulary", "width", "depth", "heads", "kv_heads", "inner", "max_length"):
            _size(name, getattr(self, name))
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads={self.kv_heads}: must divide heads={self.heads}")
        if self.head_size is None:
            if self.width % self.heads:
                raise ValueError(f"heads={self.heads}: must divide width={self.width} where head_size is not given")
            object.__setattr__(self, "head_size", self.width // self.heads)
        _size("head_size", self.head_size)
        if self.size % 2:
            raise ValueError(f"head_size={self.head_size}: must be even, since rotations turn pairs of its entries")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype={self.dtype!r}: must be one of {', '.join(DTYPES)}")
        for name in ("rope_base", "norm_epsilon"):
            _positive(name, getattr(self, name))
        object.__setattr__(self, "rope_factors", tuple(map(float, self.rope_factors)))
        if len(self.rope_factors) not in (0, self.size // 2):
            raise ValueError(
                f"rope_factors: {len(self.rope_factors)} found; expected none or head_size / 2 = {self.size // 2}"
            )
        for value in self.rope_factors:
            _positive("rope_factors", value)

    @property
    def size(self) -> int:
        """Width of a head."""
        return int(self.head_size or 0)


def _size(name: str, value) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected an integer, found {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name}={value}: must be at least 1")


def _positive(name: str, value) -> None:
    if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
        raise ValueError(f"{name}={value!r}: must be a positive number")
