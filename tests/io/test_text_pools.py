"""Pools of text: what is read is what was written, and every bad line is named with its remedy."""

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdesign.io import (
    PoolFile,
    read_completions,
)

ANY_TEXT = st.text(st.characters(), max_size=30)  # every code point JSON can carry, lone surrogates included


def _jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


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
