"""Texts as tokens of a Llama and back, by the library `tokenizers`; prompts by the chat template of the model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxdesign._arrays import AnyArray
from jaxdesign.preference._extras import needed_for
from jaxdesign.preference.llama.gguf_files import GGUFFile
from jaxdesign.preference.llama.model import PAD

TOKENISER, TOKENISER_CONFIG, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
CONTROL = 3  # the token type of GGUF that marks control tokens
PRE_TOKENISERS = ("smollm", "gpt-2")


class LlamaTokeniser:
    """The tokeniser of a model, with its control tokens and its chat template.

    Args:
        tokenizer: a `tokenizers.Tokenizer`.
        control: tokens that stand for no text: beginnings, ends, roles.
        end: the token that ends an answer; None where the model has none.
        template: the chat template, in Jinja; None where there is none.
        begin: text of the token that begins a text, for templates that ask for it.

    Raises: nothing.

    Source: derived; checked by tests/preference/llama/test_llama_tokeniser.py.
    """

    def __init__(
        self, tokenizer: Any, control: Sequence[int], end: int | None, template: str | None, begin: str | None = None
    ):
        self.tokenizer = tokenizer
        self.control = tuple(sorted(int(token) for token in control))
        self.end = end
        self.template = template
        self.begin = begin

    def chat(
        self, message: str | Sequence[Mapping[str, str]], *, system: str | None = None, answer: bool = True
    ) -> str:
        """A message, or a conversation, as the text that the model was trained to answer.

        Args:
            message: of the user, or messages {"role": ..., "content": ...}.
            system: what the model is told first; None leaves it to the template.
            answer: whether the beginning of an answer is put at the end.

        Raises:
            ValueError: a model without a chat template, a message that the template refuses.
            ImportError: jinja2 is not installed (pip install 'jaxdesign[llm]').
        """
        if self.template is None:
            raise ValueError("message: the model's files hold no chat template; write the prompt out and encode it")
        with needed_for("LlamaTokeniser.chat"):
            from jinja2.exceptions import TemplateError
            from jinja2.sandbox import ImmutableSandboxedEnvironment

        messages = [{"role": "user", "content": message}] if isinstance(message, str) else list(message)
        if system is not None:
            messages = [{"role": "system", "content": system}, *messages]

        def refuse(reason: str) -> None:
            raise TemplateError(reason)

        # whitespace as Hugging Face's templates are written for
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        known = {"raise_exception": refuse, "bos_token": self.begin or "", "eos_token": self._text_of(self.end)}
        try:
            template = environment.from_string(self.template, globals=known)
            return template.render(messages=messages, add_generation_prompt=answer)
        except TemplateError as error:
            raise ValueError(f"message: the model's chat template says: {error}") from error

    def encode(self, text: str) -> list[int]:
        """The tokens of one text, nothing added; names of control tokens in it become those tokens."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def encode_prompts(self, texts: Sequence[str], length: int | None = None) -> Int[np.ndarray, "n length"]:
        """Rows [PAD ... PAD, tokens]: every prompt ends in the last column.

        Args:
            texts: n prompts.
            length: columns; None for as many as the longest has tokens.

        Returns:
            tokens (n, length) int32; PAD is -1.

        Raises:
            TypeError: one string. ValueError: no texts, an empty text, a prompt that does not fit.
        """
        return self._rows(texts, length, lambda row, tokens: (len(row) - len(tokens), len(row)))

    def encode_completions(self, texts: Sequence[str], length: int | None = None) -> Int[np.ndarray, "n length"]:
        """Rows [tokens, PAD ... PAD] of `texts`, `length` columns or those of the longest; else as `encode_prompts`."""
        return self._rows(texts, length, lambda row, tokens: (0, len(tokens)))

    def decode(self, tokens: Int[AnyArray, " length"] | Sequence[int]) -> str:
        """The text of one row of tokens, without padding and control tokens; halves of characters become U+FFFD."""
        return self.tokenizer.decode([int(token) for token in np.asarray(tokens) if token != PAD])

    def decode_all(self, tokens: Int[AnyArray, "... length"]) -> np.ndarray:
        """The texts of rows of tokens of any leading shape, as an array of strings of that shape."""
        tokens = np.asarray(tokens)
        rows = tokens.reshape(-1, tokens.shape[-1]).tolist()
        texts = self.tokenizer.decode_batch([[token for token in row if token != PAD] for row in rows])
        return np.array(texts, dtype=object).reshape(tokens.shape[:-1])

    def _text_of(self, token: int | None) -> str:
        return "" if token is None else self.tokenizer.id_to_token(token)

    def _rows(self, texts, length, place):
        if isinstance(texts, str):
            raise TypeError(f"texts: one string found, {texts[:20]!r}; expected a list of texts")
        every = [self.encode(text) for text in texts]
        if not every or not all(every):
            raise ValueError(f"texts: {'an empty text' if every else 'none'} found; expected texts of at least a token")
        longest = max(map(len, every))
        length = longest if length is None else length
        if longest > length:
            text = texts[[len(tokens) for tokens in every].index(longest)]
            raise ValueError(f"length={length}: {text[:40]!r} takes {longest} tokens; raise length or shorten the text")
        rows = np.full((len(every), length), PAD, np.int32)
        for row, tokens in zip(rows, every, strict=True):
            row[slice(*place(row, tokens))] = tokens
        return rows


def tokeniser_of_gguf(file: GGUFFile) -> LlamaTokeniser:
    """The tokeniser of the vocabulary and merges of a GGUF file. ValueError for kinds that are not supported."""
    with needed_for("reading a vocabulary"):
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    kind, splitter = file.needed("tokenizer.ggml.model"), file.field("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2" or splitter not in PRE_TOKENISERS:
        raise ValueError(
            f"path: the vocabulary of {file.name} is of kind {kind!r} with pre-tokeniser {splitter!r}; supported are "
            f"'gpt2' with {' or '.join(map(repr, PRE_TOKENISERS))}; otherwise pass the model's tokenizer.json"
        )
    tokens = file.needed("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in file.needed("tokenizer.ggml.merges")]
    types = file.field("tokenizer.ggml.token_type", [1] * len(tokens))
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = [pre_tokenizers.Digits(individual_digits=True)] if splitter == "smollm" else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*digits, bytes_of])
    tokenizer.decoder = decoders.ByteLevel()
    control = [number for number, of in enumerate(types) if of == CONTROL]
    tokenizer.add_special_tokens([AddedToken(tokens[number], normalized=False) for number in control])
    begin = file.field("tokenizer.ggml.bos_token_id")
    return LlamaTokeniser(
        tokenizer,
        control,
        file.field("tokenizer.ggml.eos_token_id"),
        file.field("tokenizer.chat_template"),
        None if begin is None else tokens[begin],
    )


def tokeniser_of_folder(folder: Path) -> LlamaTokeniser:
    """The tokeniser of a tokenizer.json, with what tokenizer_config.json beside it says of ends and chats."""
    with needed_for("reading a tokenizer.json"):
        from tokenizers import Tokenizer

    path = folder / TOKENISER
    if not path.is_file():
        raise FileNotFoundError(f"path: {path} is not there; pass the place of the model's {TOKENISER}")
    tokenizer = Tokenizer.from_file(str(path))
    control = [number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special]
    said = {}
    if (folder / TOKENISER_CONFIG).is_file():
        said = json.loads((folder / TOKENISER_CONFIG).read_text(encoding="utf-8"))
    template = said.get("chat_template")
    if (folder / TEMPLATE).is_file():
        template = (folder / TEMPLATE).read_text(encoding="utf-8")
    begin, end = (_content(said.get(name)) for name in ("bos_token", "eos_token"))
    return LlamaTokeniser(
        tokenizer,
        control,
        None if end is None else tokenizer.token_to_id(end),
        template if isinstance(template, str) else None,
        begin,
    )


def _content(token: Any) -> str | None:
    """The text of a token, which files give as such or with properties around it."""
    return token["content"] if isinstance(token, dict) else token
