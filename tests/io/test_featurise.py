"""The demo pool and features of texts: the same bits everywhere, and the geometry of n-grams."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdesign.io import (
    demo_pool_path,
    featurise,
    read_completions,
)

ANY_TEXT = st.text(st.characters(), max_size=30)  # every code point JSON can carry, lone surrogates included
RAGGED = st.lists(st.lists(ANY_TEXT, max_size=4), min_size=1, max_size=5).filter(any)


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
