"""Pools of features: arrays come back as saved, and every bad or damaged file is named with its remedy."""

import numpy as np
import pytest

from jaxdesign.io import (
    PoolFile,
    read_completions,
    read_features,
)

FEATURES = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_npy_and_npz_give_back_what_was_saved(tmp_path, dtype):
    features = FEATURES.astype(dtype)
    extras = {"scores": np.ones((5, 2, 3)), "mask": FEATURES[..., 0] > 3, "ids": np.array(["a", "b"])}
    np.save(tmp_path / "f.npy", features)
    np.savez(tmp_path / "f.npz", features=features, **extras)
    alone, full = read_features(tmp_path / "f.npy"), read_features(str(tmp_path / "f.npz"))
    for pool in (alone, full):
        np.testing.assert_array_equal(pool.features, features)
        assert pool.features.dtype == features.dtype.newbyteorder("=") and pool.features.dtype.isnative
    assert alone._replace(features=None) == PoolFile()
    np.testing.assert_array_equal(full.scores, extras["scores"])
    np.testing.assert_array_equal(full.mask, extras["mask"])
    assert full.ids == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "arrays", "error", "message"),
    [
        ("f.npy", FEATURES[0], ValueError, "features of shape (3, 4): must be (P, K, d) with every axis at least 1"),
        (
            "f.npy",
            FEATURES[:0],
            ValueError,
            "features of shape (0, 3, 4): must be (P, K, d) with every axis at least 1",
        ),
        (
            "f.npy",
            FEATURES.astype(int),
            TypeError,
            "features of dtype int64: must be float16, float32 or float64; save",
        ),
        ("f.npy", FEATURES.view("V2"), TypeError, "features of dtype |V2 (bfloat16 is stored as raw bytes): must be"),
        ("f.npy", np.array([[[None]]]), ValueError, "is no NumPy file that loads without pickled objects"),
        ("f.npz", {"feature": FEATURES}, ValueError, "holds ['feature'], which no pool has; allowed are ['features',"),
        ("f.npz", {"ids": np.arange(2)}, ValueError, "holds ['ids'] but no features; save them as features=(P, K, d)"),
        (
            "f.npz",
            {"scores": np.ones((3, 2))},
            ValueError,
            "scores of shape (3, 2): must be (2, 3) as the features are",
        ),
        ("f.npz", {"scores": np.ones((2, 3), int)}, TypeError, "scores of dtype int64: must be float16, float32 or"),
        ("f.npz", {"mask": np.ones((2, 3))}, TypeError, "mask of dtype float64: must be bool; save mask.astype(bool)"),
        ("f.npz", {"mask": np.ones((3, 2), bool)}, ValueError, "mask of shape (3, 2): must be (2, 3) as the features"),
        ("f.npz", {"ids": np.arange(3)}, ValueError, "ids of shape (3,): must be (2,), one a prompt"),
        ("f.npz", {"ids": np.array(["a", "a"])}, ValueError, "ids: 'a' found 2 times; give every prompt its own"),
        ("f.npz", {"ids": np.ones(2)}, TypeError, "ids of dtype float64: must be strings (dtype <U...) or integers"),
        ("f.npz", {"ids": np.array([None, 1])}, ValueError, "is no NumPy file that loads without pickled objects"),
    ],
)
def test_a_bad_array_is_named(tmp_path, name, arrays, error, message):
    path = tmp_path / name
    if isinstance(arrays, dict):
        complete = arrays.keys() & {"scores", "mask", "ids"} and "no features" not in message
        np.savez(path, **({"features": FEATURES} if complete else {}), **arrays)
    else:
        np.save(path, arrays)
    with pytest.raises(error) as caught:
        read_features(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("compress", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("kept", [0, 7, 0.5, 0.99])
def test_a_damaged_file_is_an_error_not_a_pool(tmp_path, kept, compress):
    for path, save in ((tmp_path / "f.npy", np.save), (tmp_path / "f.npz", lambda p, a: compress(p, features=a))):
        save(path, FEATURES)
        data = path.read_bytes()
        path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
        with pytest.raises(ValueError, match="is no NumPy file that loads without pickled objects"):
            read_features(path)


def test_one_wrong_byte_in_an_npz_is_an_error_or_harmless(tmp_path):
    path = tmp_path / "f.npz"
    np.savez_compressed(path, features=FEATURES)
    data = bytearray(path.read_bytes())
    for place in range(len(data)):
        data[place] ^= 0x09
        path.write_bytes(data)
        data[place] ^= 0x09
        try:
            np.testing.assert_array_equal(read_features(path).features, FEATURES)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("read", "name", "error", "message"),
    [
        (read_features, "missing.npy", FileNotFoundError, "missing.npy: does not exist; check the path"),
        (read_completions, "missing.jsonl", FileNotFoundError, "missing.jsonl: does not exist; check the path"),
        (read_features, "folder.npz", FileNotFoundError, "folder.npz: is not a file; check the path"),
        (read_features, "f.csv", ValueError, "f.csv: suffix '.csv' is not known; features are read from .npy or .npz"),
        (read_completions, "f", ValueError, "suffix '' is not known; prompts and completions are read from .jsonl"),
    ],
)
def test_a_bad_path_is_named(tmp_path, read, name, error, message):
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(error) as caught:
        read(tmp_path / name)
    assert message in str(caught.value)
