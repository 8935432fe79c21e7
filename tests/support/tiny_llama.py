"""Tiny random Llamas as tensors, as files of both kinds, and as a forward pass written out in NumPy."""

import json

import numpy as np

SHAPE = {"vocabulary": 300, "width": 12, "depth": 2, "heads": 6, "kv_heads": 2, "inner": 20, "head_size": 4}
SHAPE |= {"max_length": 64, "rope_base": 50.0, "norm_epsilon": 1e-3}
PARTS = {  # name in safetensors, in GGUF, rows and columns
    "self_attn.q_proj": ("attn_q", "all", "width"),
    "self_attn.k_proj": ("attn_k", "shared", "width"),
    "self_attn.v_proj": ("attn_v", "shared", "width"),
    "self_attn.o_proj": ("attn_output", "width", "all"),
    "mlp.gate_proj": ("ffn_gate", "inner", "width"),
    "mlp.up_proj": ("ffn_up", "inner", "width"),
    "mlp.down_proj": ("ffn_down", "width", "inner"),
}


def tensors(seed=0, *, tied=False, shape=SHAPE):
    """Random tensors by their names in safetensors, scaled so that probabilities are far from even."""
    rng = np.random.default_rng(seed)
    sizes = shape | {"all": shape["heads"] * shape["head_size"], "shared": shape["kv_heads"] * shape["head_size"]}

    def normal(*size):
        return rng.standard_normal(size).astype(np.float32)

    out = {"model.embed_tokens.weight": normal(shape["vocabulary"], shape["width"])}
    for k in range(shape["depth"]):
        for name, (_, rows, columns) in PARTS.items():
            out[f"model.layers.{k}.{name}.weight"] = 0.4 * normal(sizes[rows], sizes[columns])
        for name in ("input_layernorm", "post_attention_layernorm"):
            out[f"model.layers.{k}.{name}.weight"] = 1 + 0.3 * normal(shape["width"])
    out["model.norm.weight"] = 1 + 0.3 * normal(shape["width"])
    if not tied:
        out["lm_head.weight"] = normal(shape["vocabulary"], shape["width"])
    return out


def logits_in_numpy(weights, tokens, *, shape=SHAPE, factors=1.0):
    """(t, V) float64 logits of one text, head by head and position by position, rotations as complex numbers."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    size, groups = shape["head_size"], shape["heads"] // shape["kv_heads"]
    angles = shape["rope_base"] ** (-2 * np.arange(size // 2) / size) / factors

    def normed(x, name):
        return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + shape["norm_epsilon"]) * w[name]

    def heads(x, name):
        return (x @ w[name].T).reshape(len(tokens), -1, size)

    def turned(x):
        numbers = (x[..., : size // 2] + 1j * x[..., size // 2 :]) * np.exp(
            1j * np.arange(len(tokens))[:, None, None] * angles
        )
        return np.concatenate([numbers.real, numbers.imag], axis=-1)

    x = w["model.embed_tokens.weight"][tokens]
    for k in range(shape["depth"]):
        at = f"model.layers.{k}."
        y = normed(x, f"{at}input_layernorm.weight")
        queries, keys = (turned(heads(y, f"{at}self_attn.{n}_proj.weight")) for n in "qk")
        values = heads(y, f"{at}self_attn.v_proj.weight")
        mixed = np.zeros_like(queries)
        for place in range(len(tokens)):
            for head in range(shape["heads"]):
                scores = keys[: place + 1, head // groups] @ queries[place, head] / np.sqrt(size)
                share = np.exp(scores - scores.max())
                mixed[place, head] = share @ values[: place + 1, head // groups] / share.sum()
        x = x + mixed.reshape(len(tokens), -1) @ w[f"{at}self_attn.o_proj.weight"].T
        y = normed(x, f"{at}post_attention_layernorm.weight")
        gate, up = (y @ w[f"{at}mlp.{n}_proj.weight"].T for n in ("gate", "up"))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[f"{at}mlp.down_proj.weight"].T
    head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return normed(x, "model.norm.weight") @ head.T


def write_safetensors(folder, weights, *, shape=SHAPE, parts=1, **said):
    """A folder as Hugging Face's: config.json and `parts` files."""
    from safetensors.numpy import save_file

    folder.mkdir(exist_ok=True)
    names = {"vocab_size": "vocabulary", "hidden_size": "width", "num_hidden_layers": "depth"}
    names |= {"num_attention_heads": "heads", "num_key_value_heads": "kv_heads", "intermediate_size": "inner"}
    names |= {"head_dim": "head_size", "max_position_embeddings": "max_length", "rope_theta": "rope_base"}
    names |= {"rms_norm_eps": "norm_epsilon"}
    config = {name: shape[ours] for name, ours in names.items()}
    config |= {"model_type": "llama", "tie_word_embeddings": "lm_head.weight" not in weights}
    (folder / "config.json").write_text(json.dumps(config | said))
    for part in range(parts):
        some = {name: weights[name] for name in sorted(weights)[part::parts]}
        save_file(some, folder / f"model-{part}.safetensors")
    return folder


def write_gguf(path, weights, *, shape=SHAPE, architecture="llama", fields=None, extra=None, drop=(), kind=None):
    """A GGUF file: rows of queries and keys in the order that rotates neighbours, shapes as its writer turns them."""
    from gguf import GGUFWriter, quantize

    writer = GGUFWriter(path, architecture)
    numbers = {"embedding_length": "width", "block_count": "depth", "attention.head_count": "heads"}
    numbers |= {"attention.head_count_kv": "kv_heads", "feed_forward_length": "inner", "context_length": "max_length"}
    numbers |= {"attention.key_length": "head_size", "rope.dimension_count": "head_size"}
    for name, ours in numbers.items():
        if name not in drop:
            writer.add_uint32(f"{architecture}.{name}", shape[ours])
    writer.add_float32(f"{architecture}.rope.freq_base", shape["rope_base"])
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", shape["norm_epsilon"])
    for add, name, value in fields or ():
        getattr(writer, f"add_{add}")(name, value)
    for name, value in (in_gguf(weights, shape["head_size"]) | (extra or {})).items():
        if name not in drop:
            if kind is not None and value.ndim == 2:
                writer.add_tensor(name, quantize(value, kind), raw_dtype=kind)
            else:
                writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def in_gguf(weights, size):
    """The tensors under GGUF's names; row 2 i + h of a head is its row i + h size / 2, for h = 0, 1."""
    order = np.array([row // 2 + row % 2 * size // 2 for row in range(size)])
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    parts = {name: gguf for name, (gguf, _, _) in PARTS.items()}
    parts |= {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    out = {}
    for name, value in weights.items():
        bare = name.removesuffix(".weight")
        if bare in names:
            out[f"{names[bare]}.weight"] = value
            continue
        _, _, block, part = bare.split(".", 3)
        if parts[part] in ("attn_q", "attn_k"):
            value = value.reshape(-1, size, value.shape[1])[:, order].reshape(value.shape)
        out[f"blk.{block}.{parts[part]}.weight"] = value
    return out


def tiny_llama(seed=0, *, tied=False, **said):
    """The model of `tensors`."""
    from jaxdesign.preference.llama import LlamaConfig
    from jaxdesign.preference.llama.assembly import assembled
    from jaxdesign.preference.llama.safetensors_files import NAMES

    weights = tensors(seed, tied=tied)
    return assembled(LlamaConfig(**SHAPE, tied=tied, **said), NAMES, list(weights), weights.__getitem__, "tensors")


def log_law_in_numpy(weights, tokens, law):
    """(t, outputs) float64 log-probabilities of the token after each of `tokens` under a `TokenLaw`."""
    scaled = logits_in_numpy(weights, tokens)[:, : law.outputs] / law.temperature
    scaled[:, list(law.banned)] = -np.inf
    top = scaled.max(axis=1, keepdims=True)
    return scaled - top - np.log(np.exp(scaled - top).sum(axis=1, keepdims=True))


def log_probability_in_numpy(weights, prompt, completion, law):
    """log pi of a completion without padding, after a prompt without it."""
    steps = log_law_in_numpy(weights, np.concatenate([prompt, completion]), law)[len(prompt) - 1 :]
    return sum(steps[k, token] for k, token in enumerate(completion))
