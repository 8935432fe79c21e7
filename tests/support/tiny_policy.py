"""A policy small enough to write its whole gradient down: causal attention, one block, next-token probabilities."""

import jax
import jax.numpy as jnp
import numpy as np

VOCABULARY, WIDTH, LENGTH = 11, 8, 9


def parameters(seed=0):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(0.5 * rng.standard_normal(shape), jnp.float32)

    block = {"query": normal(WIDTH, WIDTH), "key": normal(WIDTH, WIDTH), "value": normal(WIDTH, WIDTH)}
    block |= {"up": {"kernel": normal(WIDTH, 3 * WIDTH), "bias": normal(3 * WIDTH)}, "down": normal(3 * WIDTH, WIDTH)}
    return {"embedding": normal(VOCABULARY, WIDTH), "block": block, "out": normal(WIDTH, VOCABULARY)}


def hidden(params, tokens):
    """(T, width), causal."""
    x, block = params["embedding"][tokens], params["block"]
    logits = (x @ block["query"]) @ (x @ block["key"]).T
    causal = jnp.tril(jnp.ones(logits.shape, bool))
    x = x + jax.nn.softmax(jnp.where(causal, logits, -jnp.inf)) @ (x @ block["value"])
    return x + jax.nn.gelu(x @ block["up"]["kernel"] + block["up"]["bias"][None]) @ block["down"]


def log_probability(params, example):
    """log pi of the tokens from `start` to `length` given those before."""
    tokens = example["tokens"]
    steps = jax.nn.log_softmax(hidden(params, tokens)[:-1] @ params["out"])
    place = jnp.arange(1, tokens.shape[0])
    counts = (place >= example["start"]) & (place < example["length"])
    return jnp.sum(jnp.where(counts, jnp.take_along_axis(steps, tokens[1:, None], axis=1)[:, 0], 0))


def examples(count, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "tokens": rng.integers(0, VOCABULARY, (count, LENGTH), dtype=np.int32),
        "start": rng.integers(1, 4, count, dtype=np.int32),
        "length": rng.integers(5, LENGTH + 1, count, dtype=np.int32),
    }
