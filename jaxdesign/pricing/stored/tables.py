"""A column of a Parquet file or of an Arrow file (also called Feather): one row a prompt, lists of fixed sizes.

pyarrow, the extra `data`, reads them. Arrow files are mapped to memory. Of Parquet a whole row group is decoded at a
time and the last one is kept: groups of about as many rows as a chunk has prompts (`row_group_size` of
`pyarrow.parquet.write_table`) take the least memory, and where a few pairs are looked up the fewest rows are decoded in
vain. Float16 should be written with `use_dictionary=False`: without dictionaries it is decoded several times as fast.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdesign.pricing.stored.files import only_name

TABLES = (".parquet", ".arrow", ".feather")


class Column(NamedTuple):
    """A column in pieces.

    Args:
        pieces: gives the piece of a number, (rows, K, d).
        starts: (pieces + 1,) the first row of each, and the number of rows.
        shape: (P, K, d).
        dtype: of its numbers.
    """

    pieces: Callable[[int], Float[np.ndarray, "n k d"]]
    starts: np.ndarray
    shape: tuple[int, int, int]
    dtype: np.dtype

    def chunk(self, start: int, stop: int) -> Float[np.ndarray, "n k d"]:
        """Consecutive rows; a view where they are in one piece that is mapped."""
        first, last = np.searchsorted(self.starts, [start, stop - 1], side="right") - 1
        parts = []
        for number in range(first, last + 1):
            begin, end = self.starts[number : number + 2]
            parts.append(self.pieces(number)[max(start - begin, 0) : min(stop, end) - begin])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def table_column(path: Path, name: str | None, completions: int | None) -> Column:
    """The column of a table.

    Args:
        path: .parquet, .arrow or .feather.
        name: of the column; None where there is one.
        completions: K, where a row is one list of K d numbers; None where it is a list of K lists of d.

    Raises:
        ModuleNotFoundError: pyarrow is not installed.
        ValueError: a file of another format; no such column, or one of other lists; an empty list.
    """
    try:
        import pyarrow as pa
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{path}: reading it needs pyarrow, which is not installed; pip install 'jaxdesign[data]'", name="pyarrow"
        ) from error
    try:
        schema, column, counts = _parquet(path, name) if path.suffix == ".parquet" else _arrow(path, name)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: cannot be read as {path.suffix} ({error})") from error
    inner, sizes = schema, []
    while pa.types.is_fixed_size_list(inner):
        sizes.append(inner.list_size)
        inner = inner.value_type
    if completions is not None and len(sizes) == 1 and sizes[0] % completions == 0:
        sizes = [completions, sizes[0] // completions]
    if len(sizes) != 2 or not pa.types.is_floating(inner):
        raise ValueError(
            f"{path}: a column of {schema} found; expected one row a prompt: a list of fixed size K of lists of fixed "
            "size d of floating numbers, or with completions=K one list of K d numbers"
        )
    held: dict[int, np.ndarray] = {}  # the last piece only

    def piece(number: int) -> np.ndarray:
        if number not in held:
            held.clear()
            held[number] = _numbers(path, column(number), len(sizes)).reshape(-1, *sizes)
        return held[number]

    starts = np.cumsum([0, *counts])
    return Column(piece, starts, (int(starts[-1]), *sizes), np.dtype(inner.to_pandas_dtype()))


def _parquet(path, name) -> tuple[Any, Callable[[int], Any], list[int]]:
    from pyarrow import parquet

    file = parquet.ParquetFile(path, memory_map=True)
    schema = file.schema_arrow
    name = only_name(path, name, schema.names, "column")
    counts = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]

    def column(number):
        return file.read_row_group(number, columns=[name], use_threads=False)[name].combine_chunks()

    return schema.field(name).type, column, counts


def _arrow(path, name) -> tuple[Any, Callable[[int], Any], list[int]]:
    import pyarrow as pa

    file = pa.ipc.open_file(pa.memory_map(str(path)))
    name = only_name(path, name, file.schema.names, "column")
    counts = [file.get_batch(number).num_rows for number in range(file.num_record_batches)]
    return file.schema.field(name).type, lambda number: file.get_batch(number).column(name), counts


def _numbers(path, array, depth):
    """All numbers of a column; ValueError where a list or a number is missing."""
    import pyarrow as pa

    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    for _ in range(depth + 1):
        if array.null_count:
            raise ValueError(
                f"{path}: {array.null_count} empty entries in the column; every row must hold all numbers, and `mask` "
                "says which completions do not exist"
            )
        if pa.types.is_fixed_size_list(array.type):
            array = array.flatten()
    return array.to_numpy(zero_copy_only=False)
