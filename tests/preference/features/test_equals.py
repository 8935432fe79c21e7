"""The first of equal completions: texts, numbers, tokens; in any order, prompt by prompt."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxdesign.preference.features.equals import first_of_equals


@given(arrays(np.int64, st.tuples(st.integers(1, 4), st.integers(1, 7)), elements=st.integers(0, 4)))
def test_one_of_each_kind_is_left_and_it_is_the_first(completions):
    first = first_of_equals(completions)
    for own, there in zip(completions.tolist(), first.tolist(), strict=True):
        assert there == [own.index(value) == k for k, value in enumerate(own)]
    texts = completions.astype(str)
    assert (first_of_equals(texts) == first).all() and (first_of_equals(texts.tolist()) == first).all()
    assert (first_of_equals(np.stack([completions, 0 * completions], axis=-1)) == first).all()  # tokens


def test_texts_of_other_prompts_do_not_count():
    assert first_of_equals([["a", "b"], ["a", "a"]]).tolist() == [[True, True], [True, False]]


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"completions: shape \(3,\) found; expected \(P, K\) texts"):
        first_of_equals(["a", "b", "a"])
