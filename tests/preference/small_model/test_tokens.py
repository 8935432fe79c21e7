"""Texts to tokens and back."""

import numpy as np
import pytest

from jaxdesign.preference.small_model.tokens import END, Tokeniser

pytestmark = pytest.mark.slow

TOKENISER = Tokeniser("abc .")


def test_texts_come_back():
    texts = ["", "a", "cab a.", "..."]
    for encode in (TOKENISER.encode_prompts, TOKENISER.encode_completions):
        rows = encode(texts, 9)
        assert rows.shape == (4, 9) and rows.dtype == np.int32
        assert TOKENISER.decode_all(rows).tolist() == texts


def test_prompts_end_and_completions_begin_at_a_fixed_column():
    pad, begin = TOKENISER.pad, TOKENISER.begin
    assert TOKENISER.encode_prompts(["a", "ba"], 4).tolist() == [[pad, pad, begin, 1], [pad, begin, 2, 1]]
    assert TOKENISER.encode_completions(["a", "ba"], 4).tolist() == [[1, END, pad, pad], [2, 1, END, pad]]


def test_what_stands_after_the_end_is_not_read():
    assert TOKENISER.decode(np.array([1, 2, END, 3, 3])) == "ab"
    assert TOKENISER.decode(np.array([1, 2])) == "ab"  # cut off: no end


def test_rows_of_any_shape_are_decoded():
    rows = TOKENISER.encode_completions(["a", "b", "a", "c", "", "b"], 3).reshape(2, 3, 3)
    assert TOKENISER.decode_all(rows).tolist() == [["a", "b", "a"], ["c", "", "b"]]


def test_special_tokens_are_no_characters():
    assert len({END, TOKENISER.begin, TOKENISER.pad, *TOKENISER.encode("abc .")}) == 3 + TOKENISER.characters


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Tokeniser(""), "alphabet: empty"),
        (lambda: Tokeniser("aba"), "alphabet: 'a' occurs more than once"),
        (lambda: TOKENISER.encode("abx"), "text: 'x' at place 2"),
        (lambda: TOKENISER.encode_completions(["abc"], 3), "length=3: 'abc' takes 4 tokens"),
        (lambda: TOKENISER.encode_prompts(["abc"], 3), "length=3: 'abc' takes 4 tokens"),
        (lambda: TOKENISER.decode(np.array([99])), "tokens: 99 found"),
    ],
)
def test_bad_texts_are_named(call, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        call()


def test_an_alphabet_is_a_string():
    with pytest.raises(TypeError, match="alphabet: expected a string, found list"):
        Tokeniser(["a"])
