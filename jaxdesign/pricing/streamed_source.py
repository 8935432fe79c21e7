"""`streamed_source`: a pool in a file, or one that is made anew for every pass, from what a caller has of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxdesign import _arrays, _checks
from jaxdesign.pricing.stored.opened import opened
from jaxdesign.pricing.streamed import StreamedSource, chunk_length
from jaxdesign.residual import Residual, checked_residual


def streamed_source(
    features: Any,
    scores: Any = None,
    mask: Any = None,
    *,
    flip: Any = None,
    name: str | None = None,
    prompts: int | None = None,
    completions: int | None = None,
    chunk: int | None = None,
    residual: Residual | None = None,
) -> StreamedSource:
    """A pool whose features lie in a file, or are made where they are needed, as a `Source`.

    `optimize`, `evaluate`, `select_pairs`, `label_curve` and `restrict_to_range` take it in place of a `CompletionPool`
    and give the same results. Memory: two chunks, a few numbers a prompt, and what a problem of that size takes
    besides; scores, mask and flips may be mapped to memory too.

    Args:
        features: (P, K, d) float16, bfloat16, float32 or float64, as the path of

            - a .npy file (`np.save`; raw entries of two bytes are bfloat16), mapped to memory;
            - a .safetensors file with a tensor `name`, mapped to memory;
            - a .arrow, .feather or .parquet file with a column `name` of one row a prompt: a list of fixed size K of
              lists of fixed size d, or with `completions` = K one list of K d numbers; these need pyarrow, the extra
              `data`. Of Parquet whole row groups are decoded, also for a few pairs: write groups of about a chunk
              (`row_group_size`), and float16 with `use_dictionary=False`, which is decoded several times as fast;

            or as a NumPy array, mapped to memory or not; or as a function chunk(start, stop) that gives the features of
            those prompts, always the same ones, and is asked for whole chunks only, every time they are needed.
        scores: (P, K), or (R, P, K), as of a `CompletionPool`; NumPy arrays, mapped to memory or not.
        mask: (P, K) bool.
        flip: a number, (P,) or (P, K, K).
        name: of the tensor or column; None: the only one there is.
        prompts: P, for a function.
        completions: K, for a column of one flat list a prompt.
        residual: factors, as of a `CompletionPool`; their rows are made anew for every chunk, 2 P K d r operations.
        chunk: prompts that are read at a time; None: by backend, as many as kernels work on or a few times that.

    Returns:
        StreamedSource. Files are opened and shapes checked; values are checked in the first pass over them, which
        raises ValueError with the place of a NaN or inf. Files must not change while it is in use.

    Raises:
        FileNotFoundError: no such file. ModuleNotFoundError: pyarrow is needed and not installed.
        TypeError: features, scores or flip of a dtype that is not floating, a mask that is not boolean.
        ValueError: a file of another format or a damaged one, wrong shapes, no prompt with two completions.

    Numerics: as of a pool in memory: float16, bfloat16 and float32 are computed with in float32, float64 in float64, or
    where x64 is off as float32 with a common offset taken off (see `CompletionPool`).

    Source: derived; checked by tests/pricing/test_streamed.py.
    """
    chunk = None if chunk is None else _checks.whole_number(chunk, "chunk", 1)
    stored = opened(features, name, prompts, completions, lambda shape: chunk_length(shape, chunk))
    shape = stored.shape[:2]
    if mask is not None:
        mask = np.asarray(mask)
        if mask.dtype != bool:
            raise TypeError(f"mask: dtype {mask.dtype} found; expected bool, True where the completion exists")
        _checks.same_shape(mask.shape, shape, "mask", "(prompts, completions), as in features")
        if not (mask.sum(axis=1) > 1).any():
            raise ValueError(
                "mask: no prompt has two completions, so there is no pair to compare; sample at least two per prompt"
            )
    if scores is not None:
        scores = _on_host(_checks.as_float_array(scores, "scores"))
        _checks.rank(scores, (2, 3), "scores", "(P, K), or (draws R, P, K)")
        _checks.same_shape(scores.shape[-2:], shape, "scores", "(prompts, completions) in the last two axes")
    if flip is not None:
        flip = np.float64(flip) if isinstance(flip, int | float) and not isinstance(flip, bool) else flip
        flip = _on_host(_checks.as_float_array(flip, "flip"))
        _checks.rank(flip, (0, 1, 3), "flip", "(), (P,) or (P, K, K)")
        flip = np.broadcast_to(flip, shape[:1]) if flip.ndim == 0 else flip
        _checks.same_shape(flip.shape, (*shape, shape[1])[: flip.ndim], "flip", "(prompts,), or (P, K, K)")
    residual = checked_residual(residual, stored.shape[2], None)
    return StreamedSource(stored, scores, mask, flip, chunk_length(stored.shape, chunk), _arrays.in_float64(), residual)


def _on_host(array):
    return np.asarray(array, array.dtype.newbyteorder("="))
