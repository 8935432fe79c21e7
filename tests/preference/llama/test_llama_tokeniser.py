"""Tokens of Llamas: byte pairs merged as written out in Python, from both kinds of files; chat templates; padding."""

import json

import numpy as np
import pytest

from jaxdesign.preference.llama import LlamaTokeniser, load_tokeniser
from tests.support.byte_pairs import BYTES, merged
from tests.support.tiny_llama import tensors, write_gguf, write_safetensors

CONTROL = ["<|end|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "1 2", "Ġ Ġ", "Ã ©"]
VOCABULARY = [*CONTROL, *BYTES.values(), *(merge.replace(" ", "") for merge in MERGES)]
TEMPLATE = """{% for message in messages %}
{% if message['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}
{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""
TEXTS = ["hello world", "  hello\n\n1212", "café 12", "日本", "a"]


def fields(kind="gpt2", splitter="smollm"):
    return [
        ("string", "tokenizer.ggml.model", kind),
        ("string", "tokenizer.ggml.pre", splitter),
        ("array", "tokenizer.ggml.tokens", VOCABULARY),
        ("array", "tokenizer.ggml.merges", MERGES),
        ("array", "tokenizer.ggml.token_type", [3] * 3 + [1] * (len(VOCABULARY) - 3)),
        ("uint32", "tokenizer.ggml.bos_token_id", 1),
        ("uint32", "tokenizer.ggml.eos_token_id", 2),
        ("string", "tokenizer.chat_template", TEMPLATE),
    ]


@pytest.fixture(scope="module")
def tokeniser(tmp_path_factory):
    return load_tokeniser(write_gguf(tmp_path_factory.mktemp("gguf") / "t.gguf", tensors(), fields=fields()))


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_are_merged_in_the_order_of_the_merges(tokeniser, text):
    found = tokeniser.encode(text)
    assert found == [VOCABULARY.index(token) for token in merged(text, MERGES, digits_alone=True)]
    assert tokeniser.decode(found) == text


def test_digits_are_tokens_of_their_own_where_the_model_says_so(tokeniser, tmp_path):
    assert "12" not in [VOCABULARY[token] for token in tokeniser.encode("1212")]
    other = load_tokeniser(write_gguf(tmp_path / "t.gguf", tensors(), fields=fields(splitter="gpt-2")))
    assert [VOCABULARY[token] for token in other.encode("1212")] == ["12", "12"]


def test_a_tokenizer_json_is_the_same_tokeniser(tokeniser, tmp_path):
    folder = write_safetensors(tmp_path / "hf", tensors())
    tokeniser.tokenizer.save(str(folder / "tokenizer.json"))
    said = {"bos_token": {"content": "<|im_start|>"}, "eos_token": "<|im_end|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    for path in (folder, folder / "model-0.safetensors", folder / "tokenizer.json"):
        other = load_tokeniser(path)
        assert (other.control, other.end, other.begin) == (tokeniser.control, tokeniser.end, tokeniser.begin)
        assert other.chat("hello") == tokeniser.chat("hello")
        assert [other.encode(text) for text in TEXTS] == [tokeniser.encode(text) for text in TEXTS]
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}!")
    assert load_tokeniser(folder).chat("hello") == "hello!"
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer.json is not there"):
        load_tokeniser(folder)


def test_prompts_follow_the_chat_template(tokeniser):
    text = tokeniser.chat("hello", system="be brief")
    assert text == "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert tokeniser.chat(talk, answer=False) == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
    tokens = tokeniser.encode(text)
    assert [t for t in tokens if t in tokeniser.control] == [1, 2, 1, 2, 1] and tokeniser.control == (0, 1, 2)
    assert tokeniser.decode(tokens) == "system\nbe brief\nuser\nhello\nassistant\n"
    with pytest.raises(ValueError, match="the model's chat template says: no tools"):
        tokeniser.chat([{"role": "tool", "content": "x"}])
    with pytest.raises(ValueError, match="hold no chat template"):
        LlamaTokeniser(tokeniser.tokenizer, (), None, None).chat("hello")


def test_rows_are_padded_where_the_model_expects_it(tokeniser):
    prompts, completions = tokeniser.encode_prompts(TEXTS), tokeniser.encode_completions(TEXTS, 20)
    longest = max(len(tokeniser.encode(text)) for text in TEXTS)
    assert prompts.shape == (5, longest) and completions.shape == (5, 20) and prompts.dtype == np.int32
    for text, left, right in zip(TEXTS, prompts, completions, strict=True):
        own = tokeniser.encode(text)
        np.testing.assert_array_equal(left, [-1] * (longest - len(own)) + own)
        np.testing.assert_array_equal(right, own + [-1] * (20 - len(own)))
    assert tokeniser.decode_all(completions.reshape(5, 1, 20)).tolist() == [[text] for text in TEXTS]
    assert tokeniser.decode(prompts[0]) == TEXTS[0]
    with pytest.raises(ValueError, match=r"length=2: .* takes"):
        tokeniser.encode_prompts(TEXTS, 2)
    with pytest.raises(ValueError, match="an empty text found"):
        tokeniser.encode_prompts(["a", ""])
    with pytest.raises(TypeError, match="one string found, 'hello'"):
        tokeniser.encode_prompts("hello")


@pytest.mark.parametrize(("kind", "splitter"), [("llama", "default"), ("gpt2", "llama-bpe")])
def test_vocabularies_of_other_kinds_are_refused(tmp_path, kind, splitter):
    path = write_gguf(tmp_path / "t.gguf", tensors(), fields=fields(kind, splitter))
    with pytest.raises(ValueError, match=f"of kind '{kind}' with pre-tokeniser '{splitter}'; .*tokenizer.json"):
        load_tokeniser(path)
