"""Pools in and selections out: what is read is what was written, and every bad file is named with its remedy."""

import csv
import dataclasses
import enum
import hashlib
import io
import json
import os
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdesign.io import (
    PoolFile,
    check_writable,
    demo_pool_path,
    featurise,
    read_completions,
    read_features,
    report_path,
    selection_rows,
    task_rows,
    with_texts,
    write_selection,
)
from jaxdesign.preference.labels.tasks import make_tasks

ANY_TEXT = st.text(st.characters(), max_size=30)  # every code point JSON can carry, lone surrogates included
RAGGED = st.lists(st.lists(ANY_TEXT, max_size=4), min_size=1, max_size=5).filter(any)


def _jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# ---- the demo pool


def test_demo_pool_is_ragged_varied_and_has_one_prompt_with_equal_completions():
    pool = read_completions(demo_pool_path())
    sizes = [len(texts) for texts in pool.completions]
    assert len(pool.prompts) == len(set(pool.prompts)) == len(set(pool.ids)) == 24
    assert set(sizes) == {6, 7, 8}
    assert sum(len(set(texts)) < len(texts) for texts in pool.completions) == 1
    assert all(text.strip() and len(text) < 300 for texts in pool.completions for text in texts)


def test_demo_pool_features_span_every_dimension_of_the_pair_differences():
    features, mask = featurise(read_completions(demo_pool_path()).completions)
    centred = [rows[there] - rows[there].mean(0) for rows, there in zip(features, mask, strict=True)]
    assert np.linalg.matrix_rank(np.concatenate(centred)) == 64


# ---- featurise


@given(RAGGED, st.integers(1, 70), st.integers(0, 5))
@settings(deadline=None, max_examples=30)
def test_features_are_unit_rows_where_the_mask_is_true_and_zero_elsewhere(completions, dim, seed):
    features, mask = featurise(completions, dim, seed)
    assert features.shape == (len(completions), max(map(len, completions)), dim)
    assert (features.dtype, mask.dtype) == (np.float32, np.bool_)
    assert mask.sum(1).tolist() == [len(texts) for texts in completions]
    assert (np.diff(mask.astype(int), axis=1) <= 0).all(), "the completions of a prompt come first"
    length = np.linalg.norm(features, axis=2)
    assert (length[~mask] == 0).all()
    assert (np.isclose(length[mask], 1, atol=1e-6) | (length[mask] == 0)).all()


@given(RAGGED, st.randoms())
@settings(deadline=None, max_examples=15)
def test_a_text_has_the_same_bits_whatever_pool_it_is_in(completions, random):
    features, mask = featurise(completions)
    rows = dict(zip([text for texts in completions for text in texts], features[mask], strict=True))
    shuffled = random.sample(sorted(rows), len(rows))
    repeats = 150 // len(rows) + 1  # more texts than are counted at a time
    elsewhere, there = featurise([[text, "some other text"] for text in shuffled] * repeats)
    np.testing.assert_array_equal(elsewhere[:, 0], [rows[text] for text in shuffled] * repeats)
    assert there.all()


PROCESS_TEXTS = ["Rinse the rice first.", "na\xefve \U0001f35a"]


def test_features_do_not_depend_on_the_process():
    """Pins the bits: they come from CRC-32, integer arithmetic and a generator stream that NumPy keeps for good."""
    features, _ = featurise([PROCESS_TEXTS], dim=70, seed=3)
    np.testing.assert_array_equal(features[0, :, 0], np.float32([-0.02341066114604473, -0.1769980788230896]))
    code = (
        f"from jaxdesign.io import featurise; print(featurise([{PROCESS_TEXTS!a}], dim=70, seed=3)[0].tobytes().hex())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "123", "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.split()[0] == features.tobytes().hex()


def test_projection_keeps_the_cosine_of_exact_ngram_counts():
    """Against counts in dictionaries, without hashing or projection: no bias, spread sqrt(1/dim + 1/buckets)."""
    texts = [text for texts in read_completions(demo_pool_path()).completions[:6] for text in texts]
    features = featurise([texts], dim=4096)[0][0].astype(np.float64)
    exact = np.array([[_exact_cosine(a, b) for b in texts] for a in texts])
    error = (features @ features.T - exact)[np.triu_indices(len(texts), 1)]
    spread = np.sqrt(1 / 4096 + 1 / 8192)
    assert abs(error.mean()) < 0.5 * spread and np.abs(error).max() < 5 * spread


def _exact_cosine(a, b):
    a, b = _ngram_counts(a), _ngram_counts(b)
    dot = sum(np.sqrt(a[gram] * b[gram]) for gram in a.keys() & b.keys())
    return dot / np.sqrt(sum(a.values()) * sum(b.values()))


def _ngram_counts(text):
    words = "".join(c if c.isalnum() or c == "_" else f" {c} " for c in text.lower()).split()
    counts = {}
    for symbols, orders in ((f" {text} ", (3, 4, 5)), (words, (1, 2))):
        for order in orders:
            for start in range(len(symbols) - order + 1):
                gram = (type(symbols), *symbols[start : start + order])
                counts[gram] = counts.get(gram, 0) + 1
    return counts


def test_another_seed_gives_unrelated_features():
    a, b = (featurise([["one text of a few words"]], dim=1024, seed=seed)[0][0, 0] for seed in (0, 1))
    assert abs(a @ b) < 5 / np.sqrt(1024)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([["a"]], 0), ValueError, "dim=0: must be at least 1"),
        (([["a"]], 2.5), TypeError, "dim=2.5: must be an integer, found float"),
        (([["a"]], 8, -1), ValueError, "seed=-1: must be at least 0"),
        (([],), ValueError, "completions: holds no completion; pass at least one text"),
        (([[], []],), ValueError, "completions: holds no completion; pass at least one text"),
        (("text",), TypeError, "completions: must be a sequence of sequences of strings, found str"),
        ((["text"],), TypeError, "completions[0]: must be a sequence of strings, found str"),
        (([["a"], ["b", None]],), TypeError, "completions[1][1]: must be a string, found NoneType"),
    ],
)
def test_featurise_names_the_bad_argument(arguments, error, message):
    with pytest.raises(error) as caught:
        featurise(*arguments)
    assert message in str(caught.value)


# ---- pools of text


@given(st.lists(st.tuples(ANY_TEXT, st.lists(ANY_TEXT, max_size=3)), min_size=1, max_size=4))
@settings(deadline=None, max_examples=30)
def test_completions_are_read_as_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("pool") / "pool.jsonl"
    _jsonl(path, *({"prompt": prompt, "completions": texts, "prompt_id": p} for p, (prompt, texts) in enumerate(rows)))
    pool = read_completions(path)
    assert pool.prompts == [prompt for prompt, _ in rows]
    assert pool.completions == [texts for _, texts in rows]
    assert pool.ids == [str(p) for p in range(len(rows))]
    assert pool.features is pool.scores is pool.mask is None


@pytest.mark.parametrize("prompt", ["prompt", "instruction"])
@pytest.mark.parametrize("completions", ["completions", "generations", "responses", "answers"])
def test_aliases_and_a_missing_id(tmp_path, prompt, completions):
    pool = read_completions(_jsonl(tmp_path / "p.jsonl", {prompt: "Why?", completions: ["a", "b"], "other": 1}))
    expected = PoolFile(prompts=["Why?"], completions=[["a", "b"]], ids=[hashlib.sha256(b"Why?").hexdigest()])
    assert pool == expected


def test_ids_differ_where_a_prompt_comes_again(tmp_path):
    """The first keeps the name of its prompt; later ones and written ones never take one that is taken."""
    name = hashlib.sha256(b"hi").hexdigest()
    rows = [{"prompt": "hi", "completions": ["a"]}] * 3
    ids = read_completions(_jsonl(tmp_path / "p.jsonl", *rows)).ids
    assert ids[0] == name and len(set(ids)) == 3
    assert read_completions(_jsonl(tmp_path / "p.jsonl", *rows, {"prompt": "ho", "completions": []})).ids[:3] == ids
    ids = read_completions(_jsonl(tmp_path / "p.jsonl", rows[0] | {"prompt_id": name}, *rows)).ids
    assert ids[0] == name and len(set(ids)) == 4
    with pytest.raises(ValueError, match=r"line 2: prompt_id '8f43.*' was used on line 1; give every row its own"):
        read_completions(_jsonl(tmp_path / "p.jsonl", rows[0], rows[0] | {"prompt_id": name}))


def test_byte_order_mark_windows_newlines_empty_lines_and_line_separators_are_no_trouble(tmp_path):
    path = tmp_path / "p.jsonl"
    line = '{"prompt": "a\u2028b", "completions": ["c", "d"]}'
    path.write_bytes(f"\ufeff{line}\r\n\r\n{line.replace('a', 'b', 1)}".encode())
    assert read_completions(path).prompts == ["a\u2028b", "b\u2028b"]


GOOD_LINE = b'{"prompt": "a", "completions": ["b", "c"], "prompt_id": "x"}\n'


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", ValueError, "pool.jsonl: is empty; write one JSON object a line"),
        (b"\n \n", ValueError, "pool.jsonl: is empty"),
        (GOOD_LINE + b"\n{oops\n", ValueError, "line 3: is not JSON (Expecting property name"),
        (b"1" * 5000, ValueError, "line 1: is not JSON"),
        (b"[" * 100_000, ValueError, "line 1: is not JSON"),
        (b"[1]", TypeError, "line 1: is a JSON list: must be an object with prompt and completions"),
        (
            b'{"prompt": "a"}',
            ValueError,
            "line 1: has no completions, only ['prompt']; allowed names are completions, gen",
        ),
        (
            b'{"answers": []}',
            ValueError,
            "line 1: has no prompt, only ['answers']; allowed names are prompt, instruction",
        ),
        (
            b'{"prompt": "a", "answers": [], "responses": []}',
            ValueError,
            "line 1: has responses and answers, which mean the same; keep one",
        ),
        (
            b'{"prompt": [{}], "completions": []}',
            TypeError,
            "line 1: prompt is a list: must be a string; pass the text",
        ),
        (b'{"prompt": "a", "completions": "b"}', TypeError, "line 1: completions is a str: must be a list of strings"),
        (b'{"prompt": "a", "completions": ["b", 3]}', TypeError, "line 1: completions[1] is a int: must be a string"),
        (GOOD_LINE * 2, ValueError, "line 2: prompt_id 'x' was used on line 1; give every row its own"),
        (
            GOOD_LINE.replace(b'"x"', b"null"),
            TypeError,
            "line 1: prompt_id is a NoneType: must be a string or an integer",
        ),
        (b'{"prompt": "\xff"}', ValueError, "is not UTF-8 text"),
    ],
)
def test_a_bad_line_is_named(tmp_path, content, error, message):
    path = tmp_path / "pool.jsonl"
    path.write_bytes(content)
    with pytest.raises(error) as caught:
        read_completions(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


# ---- pools of features

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


# ---- selections

POOL = PoolFile(prompts=["Why?", "How?"], completions=[["a", "b"], ["c,\r\n", 'd "e"\n', "f\ud800"]], ids=["x", "y"])
PAIRS = np.array([[1, 0, 2], [0, 0, 1], [1, 1, 2]], np.int32)


def test_rows_carry_indices_texts_and_whole_labels_as_integers():
    rows = selection_rows(PAIRS, np.array([2.0, 1.0, 1.0]), POOL)
    assert list(rows[1].items()) == [
        ("prompt_id", "x"), ("prompt", 0), ("i", 0), ("j", 1), ("labels", 1),
        ("prompt_text", "Why?"), ("response_i", "a"), ("response_j", "b"),
    ]  # fmt: skip
    assert [type(row["labels"]) for row in rows] == [int] * 3
    assert selection_rows(PAIRS[:1], [0.5]) == [{"prompt": 1, "i": 0, "j": 2, "labels": 0.5}]


def test_tasks_carry_both_orders_and_the_texts_in_the_order_of_showing():
    tasks = make_tasks(0, PAIRS[:1], [4], ids=POOL.ids, swap_seed=0)
    rows = task_rows(tasks, POOL)
    assert {task.swapped for task in tasks} == {True, False}
    for task, row in zip(tasks, rows, strict=True):
        a, b = (2, 0) if task.swapped else (0, 2)
        texts = POOL.completions[1]
        assert list(row.items()) == [
            ("task_id", task.task_id), ("prompt_id", "y"), ("prompt", 1), ("i", 0), ("j", 2), ("repeat", task.repeat),
            ("a", a), ("b", b), ("prompt_text", "How?"), ("response_a", texts[a]), ("response_b", texts[b]),
        ]  # fmt: skip
    assert [row["repeat"] for row in rows] == [0, 1, 2, 3]
    assert list(task_rows(tasks)[0]) == ["task_id", "prompt", "i", "j", "repeat", "a", "b"]


TEXTS = PoolFile(prompts=["Who?", "Why?", "How?"], completions=[["w"], ["a", "b", "c"], ["d"]], ids=["7", "8", "9"])


def test_texts_are_joined_by_id_where_features_have_ids():
    mask = np.array([[True, True, True], [True, True, False]])
    joined = with_texts(PoolFile(features=FEATURES, mask=mask, ids=[9, 8]), TEXTS)
    assert (joined.prompts, joined.completions, joined.ids) == (["How?", "Why?"], [["d"], ["a", "b", "c"]], [9, 8])
    assert joined.mask.tolist() == [[True, False, False], [True, True, False]] and joined.features is FEATURES


def test_texts_are_joined_by_order_where_features_have_none():
    texts = TEXTS._replace(prompts=TEXTS.prompts[1:], completions=TEXTS.completions[1:], ids=TEXTS.ids[1:])
    joined = with_texts(PoolFile(features=FEATURES), texts)
    assert (joined.prompts, joined.ids) == (["Why?", "How?"], ["8", "9"])
    assert joined.mask.tolist() == [[True, True, True], [True, False, False]]


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (PoolFile(features=FEATURES), "texts: 3 prompts found, and 2 in the features, which have no ids to join by"),
        (
            PoolFile(features=FEATURES, ids=["7", "x"]),
            "texts: no line has prompt_id 'x', which the features have (1",
        ),
        (PoolFile(features=FEATURES[:, :2], ids=["7", "8"]), "texts: 8 has 3 completions, and features only 2 rows a"),
        (PoolFile(), "features, prompts and completions are needed"),
    ],
)
def test_texts_that_do_not_fit_are_named(pool, message):
    with pytest.raises(ValueError) as caught:
        with_texts(pool, TEXTS)
    assert message in str(caught.value)


@pytest.mark.parametrize("pool", [POOL, None])
@pytest.mark.parametrize("labels", [[3, 1, 1], [0.1, 1 / 3, 1e-300]])
def test_what_is_written_reads_back(tmp_path, pool, labels):
    rows = selection_rows(PAIRS, np.array(labels), pool)
    paths = write_selection(tmp_path / "pairs.jsonl", rows, {"seed": 7})
    assert paths == (tmp_path / "pairs.jsonl", report_path(tmp_path / "pairs.jsonl"))
    assert paths[1] == tmp_path / "pairs.json"
    assert [json.loads(line) for line in paths[0].read_text(encoding="utf-8").splitlines()] == rows
    write_selection(tmp_path / "table.csv", rows, {"seed": 7})
    with open(tmp_path / "table.csv", encoding="utf-8", newline="") as file:
        read = [{**row, "labels": float(row["labels"])} for row in csv.DictReader(file)]
    as_text = [{key: str(value).replace("\ud800", r"\ud800") for key, value in row.items()} for row in rows]
    assert read == [{**row, "labels": float(row["labels"])} for row in as_text]
    assert json.loads((tmp_path / "table.json").read_text()) == {"seed": 7}


def test_no_pairs_at_all_still_make_two_files(tmp_path):
    rows = selection_rows(PAIRS[:0], [])
    write_selection(tmp_path / "a.jsonl", rows, {})
    write_selection(tmp_path / "b.csv", rows, {})
    assert (tmp_path / "a.jsonl").read_text() == ""
    assert (tmp_path / "b.csv").read_text() == "prompt,i,j,labels\n"


class _Certificate(NamedTuple):
    value: float
    efficiency: float


@dataclasses.dataclass
class _Settings:
    tol: float
    per_prompt: np.ndarray


class _Status(enum.Enum):
    DONE = "Stopped: certified."


def test_report_is_valid_json_whatever_the_numbers(tmp_path):
    report = {
        "certificate": _Certificate(np.float64(1.25), float("nan")),
        "settings": _Settings(np.float32("inf"), np.array([1, 2])),
        "status": _Status.DONE,
        "trace": [(np.int32(1), None, True)],
        "path": tmp_path / "é",
    }
    write_selection(tmp_path / "p.csv", [], report)
    forbidden = pytest.fail  # called for NaN and Infinity, which JSON does not have
    assert json.loads((tmp_path / "p.json").read_text("utf-8"), parse_constant=forbidden) == {
        "certificate": {"value": 1.25, "efficiency": None},
        "settings": {"tol": None, "per_prompt": [1, 2]},
        "status": "Stopped: certified.",
        "trace": [[1, None, True]],
        "path": str(tmp_path / "é"),
    }


@pytest.mark.parametrize("existing", ["p.jsonl", "p.json"])
def test_nothing_is_overwritten_unless_asked(tmp_path, existing):
    (tmp_path / existing).write_text("precious")
    with pytest.raises(FileExistsError) as caught:
        write_selection(tmp_path / "p.jsonl", [], {})
    expected = f"{tmp_path / existing}: exists already; choose another path, remove it, or pass overwrite=True"
    assert str(caught.value) == expected
    assert os.listdir(tmp_path) == [existing] and (tmp_path / existing).read_text() == "precious"
    write_selection(tmp_path / "p.jsonl", [], {}, overwrite=True)
    assert (tmp_path / existing).read_text() != "precious"


def test_a_dangling_link_counts_as_existing(tmp_path):
    (tmp_path / "p.csv").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        check_writable(tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("p.txt", ValueError, "p.txt: suffix '.txt' is not known; pairs are written to .jsonl or .csv"),
        ("p.json", ValueError, "p.json: suffix '.json' is not known; pairs are written to .jsonl or .csv"),
        ("none/p.csv", FileNotFoundError, "none: the directory of p.csv does not exist; create it first"),
        ("file/p.csv", NotADirectoryError, "file: is not a directory, so p.csv cannot be in it; choose another path"),
        ("folder.csv", IsADirectoryError, "folder.csv: is a directory; choose another path"),
    ],
)
def test_an_unusable_output_path_is_named_before_the_work(tmp_path, name, error, message):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(error) as caught:
        check_writable(tmp_path / name, overwrite=True)
    assert message in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_write_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=r"cannot be written to \(Permission denied\); choose another path"):
        check_writable(tmp_path / "p.csv")


def test_a_file_system_that_refuses_is_named(tmp_path, monkeypatch):
    def refuse(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(PermissionError) as caught:
        check_writable(tmp_path / "p.csv")
    assert str(caught.value) == f"{tmp_path}: cannot be written to (Read-only file system); choose another path"


def test_check_writable_leaves_nothing_behind(tmp_path):
    check_writable(tmp_path / "p.csv")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("broken", ["write", "rename"])
def test_a_failure_leaves_the_old_files_and_no_temporary(tmp_path, monkeypatch, broken):
    write_selection(tmp_path / "p.jsonl", [{"i": 1}], {"seed": 1})
    before = {file.name: file.read_text() for file in tmp_path.iterdir()}

    def disk_full(*_, **__):
        raise OSError(28, "No space left on device")

    class FullDisk(io.StringIO):
        write = disk_full

    def open_then_full(path, *args, **kwargs):
        open(path, *args, **kwargs).close()
        return FullDisk()

    if broken == "write":
        monkeypatch.setattr("jaxdesign.io.design_files.open", open_then_full, raising=False)
    else:
        monkeypatch.setattr("os.replace", disk_full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_selection(tmp_path / "p.jsonl", [{"i": 2}], {"seed": 2}, overwrite=True)
    assert caught.value.filename == str(tmp_path / "p.json") and caught.value.errno == 28
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == before


def test_a_report_whose_pairs_cannot_be_put_in_place_is_taken_back(tmp_path, monkeypatch):
    replace = os.replace

    def one_only(source, target):
        if str(target).endswith(".jsonl"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr("os.replace", one_only)
    with pytest.raises(OSError) as caught:
        write_selection(tmp_path / "p.jsonl", [], {})
    assert caught.value.filename == str(tmp_path / "p.jsonl") and os.listdir(tmp_path) == []


def test_a_value_json_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match=r"of type set: cannot be written as JSON"):
        write_selection(tmp_path / "p.jsonl", [], {"settings": {1}})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("pairs", "labels", "error", "message"),
    [
        (PAIRS[:, :2], [1, 1, 1], ValueError, "pairs of shape (3, 2), labels of shape (3,): must be (S, 3) and (S,)"),
        (PAIRS, [1, 1], ValueError, "pairs of shape (3, 3), labels of shape (2,): must be (S, 3) and (S,)"),
        (PAIRS * 1.0, [1, 1, 1], TypeError, "pairs of dtype float64: must be integers (prompt, i, j)"),
    ],
)
def test_pairs_and_labels_that_do_not_fit_are_named(pairs, labels, error, message):
    with pytest.raises(error) as caught:
        selection_rows(pairs, labels)
    assert str(caught.value) == message
