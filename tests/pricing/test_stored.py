"""Features read from files and functions are those that were written, wherever they are cut."""

import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign.pricing import streamed_source

PROMPTS, COMPLETIONS, DIM = 23, 3, 4
DTYPES = [np.float16, jnp.bfloat16, np.float32, np.float64]


def numbers(dtype=np.float32):
    return np.random.default_rng(0).standard_normal((PROMPTS, COMPLETIONS, DIM)).astype(dtype)


def is_read_as(stored, expected):
    assert stored.shape == expected.shape and stored.dtype == expected.dtype and stored.dtype.isnative
    rng = np.random.default_rng(1)
    for start, stop in ((0, 5), (5, 10), (20, 23)):  # chunks of 5
        np.testing.assert_array_equal(stored.between(start, stop), expected[start:stop])
    prompts, completions = rng.integers(0, PROMPTS, 40), rng.integers(0, COMPLETIONS, 40)
    np.testing.assert_array_equal(stored.take(prompts), expected[prompts])
    np.testing.assert_array_equal(stored.take(prompts, completions), expected[prompts, completions])


def opened(*features, **options):
    return streamed_source(*features, chunk=5, **options).features


@pytest.mark.parametrize("dtype", DTYPES)
def test_npy(dtype, tmp_path):
    np.save(tmp_path / "pool.npy", numbers(dtype))
    is_read_as(opened(tmp_path / "pool.npy"), numbers(dtype))
    assert isinstance(opened(str(tmp_path / "pool.npy")).array, np.memmap)


def test_npy_of_other_layouts(tmp_path):
    for number, array in enumerate([numbers().astype(">f4"), np.asfortranarray(numbers())]):
        np.save(tmp_path / f"{number}.npy", array)
        is_read_as(opened(tmp_path / f"{number}.npy"), numbers())
    is_read_as(opened(numbers()), numbers())


def safetensors(path, tensors, **change):
    """The format, written out: the length of the header, the header, the numbers."""
    names = {np.float16: "F16", jnp.bfloat16: "BF16", np.float32: "F32", np.float64: "F64"}
    header, data = {"__metadata__": {"made": "by hand"}}, b""
    for name, array in tensors.items():
        offsets = [len(data), len(data) + array.nbytes]
        dtype = next(word for kind, word in names.items() if array.dtype == kind)
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": offsets} | change
        data += array.tobytes()
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)
    return path


@pytest.mark.parametrize("dtype", DTYPES)
def test_safetensors(dtype, tmp_path):
    path = safetensors(tmp_path / "a.safetensors", {"other": np.ones(3, np.float32), "features": numbers(dtype)})
    is_read_as(opened(path, name="features"), numbers(dtype))
    path = safetensors(tmp_path / "b.safetensors", {"features": numbers(dtype)})
    is_read_as(opened(path), numbers(dtype))


def test_safetensors_of_its_own_library(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    library.save_file({"x": np.ones(5, np.int8), "features": numbers()}, tmp_path / "pool.safetensors")
    is_read_as(opened(tmp_path / "pool.safetensors", name="features"), numbers())


def column(array, flat=False):
    pa = pytest.importorskip("pyarrow")
    values = pa.array(array.ravel())
    if flat:
        return pa.FixedSizeListArray.from_arrays(values, COMPLETIONS * DIM)
    return pa.FixedSizeListArray.from_arrays(pa.FixedSizeListArray.from_arrays(values, DIM), COMPLETIONS)


@pytest.mark.parametrize("rows", [23, 4, 7])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_tables(dtype, flat, rows, tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"id": np.arange(PROMPTS), "features": column(numbers(dtype), flat)})
    parquet.write_table(table, tmp_path / "pool.parquet", row_group_size=rows)
    with pa.ipc.new_file(tmp_path / "pool.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=rows)
    options = {"name": "features", "completions": COMPLETIONS if flat else None}
    for name in ("pool.parquet", "pool.arrow"):
        is_read_as(opened(tmp_path / name, **options), numbers(dtype))


def test_functions_are_asked_for_whole_chunks_only(tmp_path):
    asked = []

    def chunk(start, stop):
        asked.append((start, stop))
        return numbers()[start:stop]

    is_read_as(opened(chunk, prompts=PROMPTS), numbers())
    assert asked.pop(0) == (0, 1)  # what shape and dtype are learnt from
    assert set(asked) == {(0, 5), (5, 10), (10, 15), (15, 20), (20, 23)}


def test_functions_that_change_their_mind_are_stopped():
    shorter = opened(lambda start, stop: numbers()[start : start + 1], prompts=PROMPTS)
    with pytest.raises(ValueError, match=r"chunk\(5, 10\): shape \(1, 3, 4\) found; expected \(5, 3, 4\)"):
        shorter.between(5, 10)
    wider = opened(lambda start, stop: numbers(np.float64 if start else np.float32)[start:stop], prompts=PROMPTS)
    with pytest.raises(ValueError, match=r"chunk\(5, 10\): dtype float64 found; it was float32 at first"):
        wider.between(5, 10)
    with pytest.raises(ValueError, match="prompts: None found; pass the number of prompts"):
        opened(lambda start, stop: numbers())


def written(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    return tmp_path / name


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: p / "pool.txt", ValueError, r"suffix '\.txt' is not known; features are read from \.npy, "),
        (lambda p: p / "pool.npy", FileNotFoundError, "pool.npy: does not exist; check the path"),
        (lambda p: written(p, "pool.npy", b"no array"), ValueError, "pool.npy: cannot be mapped as a .npy file"),
        (lambda p: written(p, "a.safetensors", b"no"), ValueError, "a.safetensors: is no .safetensors file, or a dama"),
        (lambda p: written(p, "a.safetensors", b"\2" + 7 * b"\0" + b"[]"), ValueError, "its header is damaged"),
        (
            lambda p: safetensors(p / "a.safetensors", {"a": numbers(), "b": numbers()}),
            ValueError,
            "name: none given; the tensors of this file are 'a', 'b'",
        ),
        (
            lambda p: safetensors(p / "a.safetensors", {"a": numbers()}, dtype="I64"),
            ValueError,
            "a tensor of dtype I64",
        ),
        (
            lambda p: safetensors(p / "a.safetensors", {"a": numbers()}, shape=[PROMPTS + 1, COMPLETIONS, DIM]),
            ValueError,
            "is shorter than its header says",
        ),
    ],
)
def test_files_of_another_kind_are_refused(make, error, message, tmp_path):
    with pytest.raises(error, match=message):
        opened(make(tmp_path))


def test_tables_of_another_kind_are_refused(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: cannot be read as \.parquet"):
        opened(written(tmp_path, "a.parquet", b"nothing"))
    parquet.write_table(pa.table({"a": [[1.0], [2.0, 3.0]]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="a column of list<element: double> found; expected one row a prompt"):
        opened(tmp_path / "a.parquet")
    empty = pa.array([None, [[1.0, 2.0], [3.0, 4.0]]], pa.list_(pa.list_(pa.float32(), 2), 2))
    with pa.ipc.new_file(tmp_path / "b.arrow", pa.schema({"a": empty.type})) as file:
        file.write_table(pa.table({"a": empty}))
    with pytest.raises(ValueError, match=r"b\.arrow: 1 empty entries in the column"):
        opened(tmp_path / "b.arrow").between(0, 2)


def test_without_pyarrow_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = written(tmp_path, "a.parquet", b"")
    with pytest.raises(
        ModuleNotFoundError, match=r"needs pyarrow, which is not installed; pip install 'jaxdesign\[data"
    ):
        opened(path)
