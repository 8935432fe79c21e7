"""Principal components within prompts: against a singular value decomposition; units, offsets, masks, parts."""

import numpy as np
import pytest

from jaxdesign.preference.features import components as module
from jaxdesign.preference.features.components import principal_components

P, K, D = 11, 6, 9


def drawn(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((P, K, D)) * np.exp(rng.standard_normal(D)) + 50 * rng.standard_normal((P, 1, D))


def centred(features):
    return features - features.mean(axis=1, keepdims=True)


@pytest.mark.parametrize("number", [1, 4, D])
def test_they_are_singular_vectors_of_centred_rows_in_one_unit(number):
    features = drawn()
    found, rows = principal_components(features, number), centred(features)
    _, sizes, right = np.linalg.svd(rows.reshape(-1, D), full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(found.basis * right[:number].T, axis=0)), 1, atol=1e-9)
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(number), atol=1e-12)
    assert found.share == pytest.approx(np.sum(sizes[:number] ** 2) / np.sum(sizes**2))
    own = found.rows(features)
    assert own.dtype == np.float32 and own.shape == (P, K, number)
    np.testing.assert_allclose(own, rows @ found.basis / found.unit, atol=1e-5)
    assert np.mean(np.sum(own.astype(np.float64) ** 2, axis=-1)) == pytest.approx(number)  # mean variance 1


def test_offsets_of_prompts_and_units_change_nothing():
    features = drawn()
    found, other = principal_components(features, 5), principal_components(1e-6 * features + 7, 5)
    np.testing.assert_allclose(np.abs(found.rows(features)), np.abs(other.rows(1e-6 * features)), atol=1e-5)
    exact = principal_components(2.0**60 * features, 5)
    np.testing.assert_array_equal(exact.rows(2.0**60 * features), found.rows(features))
    assert exact.unit == 2.0**60 * found.unit


def test_completions_that_do_not_exist_count_for_nothing():
    features, mask = drawn(), np.ones((P, K), bool)
    mask[3, 2:] = mask[7, 5:] = mask[9] = False
    found = principal_components(np.where(mask[..., None], features, np.nan), 4, mask=mask)
    rows = np.concatenate(
        [own[there] - own[there].mean(axis=0) for own, there in zip(features, mask, strict=True) if there.any()]
    )
    expected = np.linalg.eigvalsh(rows.T @ rows)[::-1]
    assert found.unit == pytest.approx(np.sqrt(expected[:4].mean() / mask.sum()))
    own = found.rows(features, mask)
    np.testing.assert_allclose(own[mask], rows @ found.basis / found.unit, atol=1e-5)
    assert not own[~mask].any()


def test_prompts_in_parts_are_the_same(monkeypatch):
    features, mask = drawn().astype(np.float32), np.random.default_rng(1).random((P, K)) < 0.8
    whole = principal_components(features, 4, mask=mask)
    rows = whole.rows(features, mask)
    monkeypatch.setattr(module, "ROOM", 2 * K * D)
    parts = principal_components(features, 4, mask=mask)
    np.testing.assert_allclose(np.abs(np.sum(parts.basis * whole.basis, axis=0)), 1, atol=1e-12)
    np.testing.assert_array_equal(whole.rows(features, mask), rows)


@pytest.mark.parametrize(
    ("change", "number", "words"),
    [
        (lambda x: x, 0, "number"),
        (lambda x: x, D + 1, f"number={D + 1}: the features have {D} columns"),
        (lambda x: x[0], 2, "features: shape"),
        (lambda x: np.where(np.arange(D) < 3, x, 5.0), 4, "number=4: completions of a prompt differ in 3 directions"),
        (lambda x: 0 * x, 1, "differ in 0 directions"),
        (lambda x: np.where(np.arange(D) == 3, np.inf, x), 2, "features: inf at prompt 0, completion 0, column 3"),
    ],
)
def test_bad_input_is_named(change, number, words):
    with pytest.raises(ValueError, match=words):
        principal_components(change(drawn()), number)


def test_rows_of_other_features_are_refused():
    found = principal_components(drawn(), 3)
    with pytest.raises(ValueError, match=f"features: {D - 1} columns found; the components are of {D}"):
        found.rows(drawn()[..., 1:])
    with pytest.raises(ValueError, match="mask: shape"):
        found.rows(drawn(), np.ones((P, K + 1), bool))
