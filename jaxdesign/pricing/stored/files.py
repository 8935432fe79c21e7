"""Arrays in files, mapped to memory: .npy, and a tensor of .safetensors.

Both formats are a header and then the numbers, so that neither needs a library besides NumPy.
Source: numpy.lib.format (NEP 1), and the format section of the safetensors README; checked by
tests/pricing/test_stored.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

BFLOAT16 = np.dtype(jnp.bfloat16)
TENSOR_DTYPES = {"F16": np.dtype("<f2"), "BF16": BFLOAT16, "F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
LONGEST_HEADER = 100_000_000  # bytes, as the safetensors library has it


def mapped_npy(path: Path) -> np.ndarray:
    """The array of a .npy file; raw entries of two bytes, which is what `np.save` makes of bfloat16, as bfloat16.

    Raises:
        ValueError: no such file, or one that cannot be mapped.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: cannot be mapped as a .npy file ({error}); write it with np.save") from error
    return array.view(BFLOAT16) if array.dtype == np.dtype("V2") else array


def mapped_tensor(path: Path, name: str | None) -> np.ndarray:
    """A tensor of a .safetensors file; `name` may be None where there is one.

    Raises:
        ValueError: a file of another format, or a damaged one; no such tensor, or one of another dtype.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, LONGEST_HEADER):
            raise ValueError(f"{path}: is no .safetensors file, or a damaged one; write it with safetensors.save_file")
        header = file.read(length)
    try:
        tensors = {key: value for key, value in json.loads(header).items() if key != "__metadata__"}
        about = tensors[only_name(path, name, list(tensors), "tensor")]
        kind, shape, (start, stop) = about["dtype"], tuple(about["shape"]), about["data_offsets"]
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: its header is damaged ({error}); write it with safetensors.save_file") from error
    if kind not in TENSOR_DTYPES:
        raise ValueError(f"{path}: a tensor of dtype {kind} found; allowed are {', '.join(TENSOR_DTYPES)}")
    dtype = TENSOR_DTYPES[kind]
    if stop - start != int(np.prod(shape)) * dtype.itemsize or 8 + length + stop > size:
        raise ValueError(f"{path}: is shorter than its header says, or a damaged one; copy it again")
    return np.memmap(path, dtype, "r", 8 + length + start, shape)


def only_name(path: Path, name: str | None, names: list[Any], what: str) -> str:
    """`name`, or for None the only one there is; ValueError otherwise."""
    if name is None and len(names) == 1:
        return names[0]
    if name is None or name not in names:
        found = "none given" if name is None else f"no {name!r}"
        raise ValueError(f"{path}: name: {found}; the {what}s of this file are {', '.join(map(repr, names))}")
    return name
