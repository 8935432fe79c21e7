"""How a pool is cut into chunks changes nothing: choices are made on float64 values, and coordinates are rounded."""

from dataclasses import dataclass

import numpy as np
import pytest

import jaxdesign as jd
from jaxdesign.pool import prompts_of
from jaxdesign.pricing import as_chunk, folded, memory_source, pair_rows
from jaxdesign.solvers.column_generation import hot_start
from tests.support.designs import agree

PROMPTS, COMPLETIONS, DIM = 700, 12, 16
BUDGETS = {
    "repeats": jd.Budget(300),
    "caps": jd.Budget(300, per_pair=1),
    "quotas": jd.Budget(300, per_pair=1, per_prompt=2, exclude=[[3, 0, 1]], required=[[9, 2, 4]]),
}
CRITERIA = {"LogDet": jd.LogDet(), "Trace": jd.Trace(np.diag(np.linspace(1, 2, DIM)))}


@dataclass(frozen=True, eq=False)
class Cut:
    """A pool as a source of chunks of its own length."""

    pool: jd.CompletionPool
    length: int
    completions = COMPLETIONS
    dim = DIM
    prompts = PROMPTS
    draws = 1
    dtype = np.dtype(np.float32)

    def fold(self, kernel, carry, per_prompt=None, merge=None):
        starts = range(0, PROMPTS, self.length)
        parts = (np.arange(start, min(start + self.length, PROMPTS)) for start in starts)
        return folded((as_chunk(prompts_of(self.pool, part)) for part in parts), kernel, carry, per_prompt)

    def rows(self, pairs):
        return pair_rows(self.pool, pairs)

    def subset(self, prompts):
        return memory_source(prompts_of(self.pool, prompts))


def pool_of(scored):
    rng = np.random.default_rng(1)
    shape = PROMPTS, COMPLETIONS, DIM
    features = (rng.standard_normal(shape) * np.exp(rng.standard_normal((*shape[:2], 1)) / 2)).astype(np.float32)
    mask = rng.random(shape[:2]) < 0.9
    return jd.CompletionPool(features, rng.standard_normal(shape[:2]).astype(np.float32) if scored else None, mask)


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("scored", [False, True], ids=["", "scores"])
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_designs_do_not_depend_on_chunks(monkeypatch, criterion, budget, scored):
    monkeypatch.setattr(hot_start, "LARGE", 2**15)  # so that the start takes some prompts and leaves others
    pool, given = pool_of(scored), (CRITERIA[criterion], BUDGETS[budget])
    whole = jd.optimize(pool, *given, prior=0.01, tol=1e-6)
    for length in (97, 300):
        found = jd.optimize(Cut(pool, length), *given, prior=0.01, tol=1e-6)
        agree(found, whole)
