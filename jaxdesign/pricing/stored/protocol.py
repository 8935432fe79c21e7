"""What a streamed source asks of features wherever they are kept, and the two ways to answer.

An array that is mapped to memory is cut where it is asked for. Columns of tables and functions give whole chunks only,
always the same ones, of which single completions are then picked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from jaxdesign import _checks


@runtime_checkable
class Stored(Protocol):
    """Features (P, K, d) of a floating dtype, in native byte order once they are read."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(P, K, d)."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """float16, bfloat16, float32 or float64."""
        ...

    def between(self, start: int, stop: int) -> Float[np.ndarray, "n k d"]:
        """Consecutive prompts: a chunk of a pass."""
        ...

    def take(self, *index: Int[np.ndarray, " s"]) -> np.ndarray:
        """Prompts (S, K, d); with a second index, of each that completion, (S, d)."""
        ...


@dataclass(frozen=True, eq=False)
class Mapped:
    """An array, most often a file mapped to memory, of which the system reads the pages that are touched."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """(P, K, d)."""
        prompts, completions, dim = self.array.shape
        return prompts, completions, dim

    @property
    def dtype(self) -> np.dtype:
        """In native byte order."""
        return self.array.dtype.newbyteorder("=")

    def between(self, start: int, stop: int) -> Float[np.ndarray, "n k d"]:
        """See `Stored.between`; a view where nothing has to be turned round."""
        return np.asarray(self.array[start:stop], self.dtype)

    def take(self, *index: Int[np.ndarray, " s"]) -> np.ndarray:
        """See `Stored.take`."""
        return np.asarray(self.array[index], self.dtype)


@dataclass(frozen=True, eq=False)
class Chunked:
    """Features that come in chunks of `length` prompts, the last one shorter.

    `chunk(start, stop)` is asked for those chunks only, so that what it costs to find a place, or what random numbers
    depend on, can be arranged for them.
    """

    chunk: Callable[[int, int], Any]
    shape: tuple[int, int, int]
    dtype: np.dtype
    length: int

    def between(self, start: int, stop: int) -> Float[np.ndarray, "n k d"]:
        """See `Stored.between`; one of the chunks.

        Raises:
            ValueError: the function gives another shape or dtype than it gave before.
        """
        found = _checks.as_float_array(self.chunk(start, stop), "chunk(start, stop)")
        _checks.same_shape(
            found.shape, (stop - start, *self.shape[1:]), f"chunk({start}, {stop})", "(stop - start, K, d)"
        )
        if found.dtype != self.dtype:
            raise ValueError(f"chunk({start}, {stop}): dtype {found.dtype} found; it was {self.dtype} at first")
        return np.asarray(found)

    def take(self, *index: Int[np.ndarray, " s"]) -> np.ndarray:
        """See `Stored.take`; every chunk that holds one of the prompts is asked for once."""
        numbers = index[0] // self.length
        found = np.empty((len(numbers), *self.shape[len(index) :]), self.dtype)
        for number in np.unique(numbers):
            here, start = numbers == number, int(number) * self.length
            rows = self.between(start, min(start + self.length, self.shape[0]))
            found[here] = rows[(index[0][here] - start, *(other[here] for other in index[1:]))]
        return found
