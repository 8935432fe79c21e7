"""Whole batches on the real pool: efficiency against the bound, seconds of each candidate; coupled budgets."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import jaxdesign as jd
from bench import pools


def _real():
    features, mask, reason = pools.real_pool("alpacaeval")
    if features is None:
        return None, None, reason
    pool, _ = jd.restrict_to_range(jd.CompletionPool(features, mask=mask))
    return pool, jd.second_moment(pool), None


def batches() -> dict[str, Any]:
    """`select_pairs` for 1,000 and 5,000 labels, one a pair, prior 1e-3 (m/4) C, Trace with H = C."""
    pool, C, reason = _real()
    if pool is None:
        return {"skipped": reason}
    rows = {}
    for total in (1000, 5000):
        for name, criterion in (("LogDet", jd.LogDet()), ("Trace", jd.Trace(C))):
            budget, prior = jd.Budget(total, per_pair=1), 1e-3 * total / 4 * C
            seconds = []
            for _ in range(2):  # the second call compiles nothing
                began = time.perf_counter()
                batch = jd.select_pairs(pool, criterion, budget, prior=prior)
                seconds.append(time.perf_counter() - began)
            rows[f"{name}, {total} labels"] = {
                "seconds": seconds[1],
                "first": seconds[0],
                "efficiency": batch.certificate.efficiency,
                "above_bound": batch.certificate.value / batch.certificate.lower_bound - 1 if name == "Trace" else None,
                "report": batch.report,
            }
    return {"problem": "alpacaeval, one label a pair, prior 1e-3 (m/4) C", "rows": rows}


def coupled() -> dict[str, Any]:
    """Crossing quotas, a spend limit, limits per prompt: real-valued designs, at most 60 passes."""
    pool, C, reason = _real()
    if pool is None:
        return {"skipped": reason}
    rng, rows = np.random.default_rng(0), {}
    prompts = pool.num_prompts
    cost = rng.gamma(4, 60, (prompts, pool.completions))
    domain, language = np.arange(prompts) % 5, rng.integers(0, 3, prompts)
    for total in (1000, 5000):
        quotas = [
            jd.Quota(domain, at_least={0: 0.3 * total}, name="domain"),
            jd.Quota(language, at_most=0.4 * total, name="language"),
        ]
        spend = {"cost": cost, "cost_total": 300.0 * total}
        kinds = {"quotas": {"quotas": quotas}, "spend": spend}
        kinds["all"] = spend | {"quotas": quotas, "per_prompt": 30, "per_prompt_min": 1}
        for kind, limits in kinds.items():
            for name, criterion in (("LogDet", jd.LogDet()), ("Trace", jd.Trace(C))):
                budget, prior = jd.Budget(total, per_pair=1, **limits), 1e-3 * total / 4 * C
                began = time.perf_counter()
                design = jd.optimize(pool, criterion, budget, prior=prior, max_passes=60)
                rows[f"{name}, {total} labels, {kind}"] = {
                    "seconds_with_compilation": time.perf_counter() - began,
                    "passes": design.passes,
                    "efficiency": design.certificate.efficiency,
                    "status": design.status.name,
                }
    return {"problem": "alpacaeval, one label a pair, prior 1e-3 (m/4) C", "rows": rows}
