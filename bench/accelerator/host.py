"""What a pass costs on the host: the pairs it lists brought over, and all that it found for comparison."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np

from bench.accelerator.arrays import factor, heavy_tailed
from bench.accelerator.cases import Case
from bench.accelerator.clock import timed_all
from jaxdesign.pricing.memory import memory_source
from jaxdesign.pricing.passes import best_pairs, price, reaching_pairs

LISTED, LIMIT = 5000, 1000  # completions whose best pair reaches the level; pairs asked for


def cases(small: bool) -> list[Case]:
    """10^8 pairs."""
    P, K, d = (64, 8, 16) if small else (201600, 32, 64)
    return [Case("host", f"{P} x {K}, d = {d}", 30, partial(one_pass, (P, K, d)))]


def one_pass(shape: tuple[int, int, int]) -> dict[str, Any]:
    """Seconds of a pass, of what the host reads of its result, and of moving all of it."""
    completions, F = shape[1], factor(shape[-1])
    source = memory_source(heavy_tailed(*shape))
    best = np.sort(np.asarray(price(source, F, np.float32(np.inf)).best)[..., 0].ravel())[::-1]
    level = best[min(LISTED, len(best) // 4)]
    result = price(source, F, level)
    found = timed_all(
        {
            "price": lambda: price(source, F, level),
            "price, all to host": lambda: jax.tree.map(np.asarray, price(source, F, level)),
            "price, reaching pairs": lambda: reaching_pairs(price(source, F, level), completions),
            "price, best pairs": lambda: best_pairs(price(source, F, level), float(level), LIMIT),
        },
        3,
    )
    sizes = [array.nbytes for array in result if array is not None]
    return found | {"pairs": shape[0] * completions * (completions - 1) / 2, "bytes": sum(sizes)}
