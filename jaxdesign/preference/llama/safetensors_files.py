"""Llamas as Hugging Face stores them: config.json beside one or more safetensors files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdesign.preference._extras import needed_for
from jaxdesign.preference.llama.assembly import Names, assembled
from jaxdesign.preference.llama.config import LlamaConfig
from jaxdesign.preference.llama.model import Llama

CONFIG = "config.json"
NAMES = Names(
    block="model.layers.{}.",
    parts={
        "norm_attention/scale": "input_layernorm.weight",
        "attention/query/kernel": "self_attn.q_proj.weight",
        "attention/key/kernel": "self_attn.k_proj.weight",
        "attention/value/kernel": "self_attn.v_proj.weight",
        "attention/write/kernel": "self_attn.o_proj.weight",
        "norm_feed/scale": "post_attention_layernorm.weight",
        "gate/kernel": "mlp.gate_proj.weight",
        "up/kernel": "mlp.up_proj.weight",
        "down/kernel": "mlp.down_proj.weight",
    },
    whole={"embedding": "model.embed_tokens.weight", "norm/scale": "model.norm.weight", "head": "lm_head.weight"},
    heads_permuted=False,
)
_NEEDED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
# what a configuration may say only so; older files do not say it at all
_FIXED = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "pretraining_tp": 1}


def llama_of_safetensors(folder: Path, files: list[Path], dtype: str) -> Llama:
    """The Llama of safetensors files and the config.json of their folder. ValueError as of `load_llama`."""
    with needed_for("reading safetensors files"):
        from safetensors import SafetensorError, safe_open

    homes = {}
    for file in files:
        try:
            with safe_open(file, framework="flax") as opened:
                homes |= dict.fromkeys(opened.keys(), file)
        except SafetensorError as error:
            raise ValueError(f"path: {file} is no safetensors file: {error}") from error
    # tables of angles that old files hold, and a head beside the embedding that it is tied to, are no weights of theirs
    found = [name for name in homes if not name.endswith(".inv_freq")]
    config = config_of_json(folder / CONFIG, dtype)
    if config.tied:
        found = [name for name in found if name != NAMES.whole["head"]]

    def read(name: str) -> np.ndarray:
        with safe_open(homes[name], framework="flax") as opened:
            return np.asarray(opened.get_tensor(name), np.float32)

    return assembled(config, NAMES, found, read, folder.name)


def config_of_json(path: Path, dtype: str) -> LlamaConfig:
    """The configuration in a config.json. FileNotFoundError; ValueError for another model or what is not supported."""
    if not path.is_file():
        raise FileNotFoundError(f"path: {path} is not there; safetensors files need the {CONFIG} of their model")
    said = json.loads(path.read_text(encoding="utf-8"))
    if said.get("model_type") != "llama":
        raise ValueError(f"path: {path} is of model_type {said.get('model_type')!r}; supported is 'llama'")
    missing = [name for name in _NEEDED if name not in said]
    if missing:
        raise ValueError(f"path: {path} does not say {', '.join(missing)}, which a Llama needs")
    for name, value in _FIXED.items():
        if said.get(name, value) != value:
            raise ValueError(f"path: {path} has {name} {said[name]!r}; supported is {value!r}")
    heads = said["num_attention_heads"]
    size = said.get("head_dim") or said["hidden_size"] // heads
    # newer files say everything about rotations in one place
    rope = said.get("rope_parameters") or said.get("rope_scaling") or {}
    base = rope.get("rope_theta", said.get("rope_theta", 10_000.0))
    return LlamaConfig(
        vocabulary=said["vocab_size"],
        width=said["hidden_size"],
        depth=said["num_hidden_layers"],
        heads=heads,
        kv_heads=said.get("num_key_value_heads") or heads,
        inner=said["intermediate_size"],
        head_size=size,
        max_length=said.get("max_position_embeddings", 2048),
        rope_base=float(base),
        rope_factors=_factors(rope, float(base), size, path),
        norm_epsilon=said.get("rms_norm_eps", 1e-6),
        tied=bool(said.get("tie_word_embeddings", False)),
        dtype=dtype,
    )


def _factors(rope: Mapping[str, Any], base: float, size: int, path: Path) -> tuple[float, ...]:
    """What the frequencies are divided by, under the three rules that Llamas have."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return ()
    if kind == "linear":
        return (float(rope["factor"]),) * (size // 2)
    if kind == "llama3":
        return tuple(_llama3_factor(rope, base ** (-2 * k / size)) for k in range(size // 2))
    raise ValueError(f"path: {path} has rope_type {kind!r}; supported are 'default', 'linear' and 'llama3'")


def _llama3_factor(rope: Mapping[str, Any], frequency: float) -> float:
    """1 for wavelengths well within the length trained first, the factor for those well beyond, blended between."""
    turns = rope["original_max_position_embeddings"] * frequency / (2 * math.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    share = min(max((turns - low) / (high - low), 0.0), 1.0)
    return 1 / ((1 - share) / rope["factor"] + share)
