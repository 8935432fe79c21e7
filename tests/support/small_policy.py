"""Tiny transformers for tests: quick to compile, with probabilities far from even."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxdesign.preference.small_model.language_model import LanguageModel, LanguageModelConfig
from jaxdesign.preference.small_model.tokens import END, Tokeniser


def tiny_model(alphabet="ab", *, seed=0, sharpness=3.0, **config):
    """Model and tokeniser; the matrix that predicts tokens is scaled up, so that probabilities differ."""
    tokeniser = Tokeniser(alphabet)
    shape = {"max_length": 24, "width": 16, "depth": 2, "heads": 2, "tied": False} | config
    model = LanguageModel(LanguageModelConfig(tokeniser.characters, **shape), rngs=nnx.Rngs(seed))
    model.norm.scale[...] = sharpness * model.norm.scale[...]
    return model, tokeniser


def every_completion(tokeniser, length):
    """All completions of at most `length` tokens, those cut off there included."""
    rows = []
    for size in range(length + 1):
        for characters in itertools.product(range(1, tokeniser.characters + 1), repeat=size):
            if size < length:
                rows.append([*characters, END] + [tokeniser.pad] * (length - size - 1))
            else:
                rows.append(list(characters))
    return np.array(rows, np.int32)


def perturbed(model, seed, size=0.05):
    """The model with noise added to every parameter."""
    definition, parameters = nnx.split(model)
    leaves, tree = jax.tree.flatten(parameters)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    noisy = [leaf + size * jax.random.normal(k, jnp.shape(leaf)) for leaf, k in zip(leaves, keys, strict=True)]
    return nnx.merge(definition, jax.tree.unflatten(tree, noisy))
