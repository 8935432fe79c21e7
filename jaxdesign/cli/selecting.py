"""`jaxdesign select`: from a pool in a file to tasks and a report in files."""

from __future__ import annotations

import argparse
import time
from typing import Any, NamedTuple

import numpy as np

import jaxdesign
from jaxdesign.cli.progress import Meter
from jaxdesign.cli.reading import PACKAGED, read_pool, spanned
from jaxdesign.cli.saving import save
from jaxdesign.cli.words import cut, errors_in_options, in_gaps, in_options, in_ranks, number
from jaxdesign.cli.writing import Writing
from jaxdesign.forecasts import forecast_beside
from jaxdesign.io.design_files import check_writable, task_rows
from jaxdesign.io.pool_files import PoolFile

LISTED_PAIRS = 2e7  # pools with more pairs are not compared with random pairs, which are drawn from a list of all pairs
PHASES = {  # of `select_pairs`; the others are ways of rounding, and exchange from one start after another
    "optimise": "optimising",
    "greedy": "choosing greedily",
    "greedy_logdet": "choosing greedily, for log det",
    "spanning": "making the choice regular",
}


def select(chosen: argparse.Namespace, writing: Writing) -> int:
    """`jaxdesign select`."""
    began = time.perf_counter()
    try:
        check_writable(chosen.output, chosen.overwrite)
    except FileExistsError as error:
        raise FileExistsError(str(error).replace("pass overwrite=True", "pass --overwrite")) from error
    with Meter() as meter:
        meter.phase("reading", chosen.pool or PACKAGED)
        file = read_pool(chosen.pool, chosen.texts)
        meter.phase("preparing", "")
        with meter.compilations():
            pool, whole_dim = spanned(file, chosen.pool)
            with errors_in_options():
                found = _designed(chosen, pool, meter)
        meter.phase("writing", chosen.output)
        rows = task_rows(_tasks(found.design, file, chosen.seed), file)
        report = _report(chosen, pool, found, time.perf_counter() - began)
        with writing:
            saved = save(chosen.output, rows, report, chosen.overwrite)
    if saved.tasks is not None:
        _summary(found, pool.dim, whole_dim)
        print(in_gaps(found.forecast, chosen.worth))
        print(f"written: {saved.tasks} and {saved.report}")
    return 0 if saved.as_asked else 1


class _Found(NamedTuple):
    """The choice of pairs, the efficiency of random ones, and the policy gaps that are expected of both."""

    design: jaxdesign.Design
    chance: float | None
    forecast: jaxdesign.Forecast


def _designed(chosen: argparse.Namespace, pool, meter: Meter) -> _Found:
    budget = jaxdesign.Budget(chosen.labels, chosen.per_pair, chosen.per_prompt)
    moment = jaxdesign.second_moment(pool)
    criterion = jaxdesign.LogDet() if chosen.criterion == "logdet" else jaxdesign.Trace(jaxdesign.policy_target(pool))
    prior = chosen.ridge * budget.total / 4 * moment

    design = jaxdesign.select_pairs(
        pool,
        criterion,
        budget,
        prior=prior,
        seed=chosen.seed,
        tol=chosen.tol,
        max_passes=chosen.max_passes,
        callback=meter.solver_pass,
        progress=lambda phase, detail: meter.phase(*_in_words(phase, detail)),
    )
    meter.phase("comparing", "with random pairs")
    chance = by_chance(pool, criterion, budget, prior, chosen.seed, design)
    settings = {"prior": prior, "beta": chosen.beta, "seed": chosen.seed}
    return _Found(design, chance, forecast_beside(pool, criterion, budget, design, **settings))


def _in_words(phase: str, detail: str) -> tuple[str, str]:
    """A phase of `select_pairs` as the command calls it."""
    if phase in PHASES:
        return PHASES[phase], detail
    kind, _, start = phase.partition("_")
    if kind == "exchange":
        return "exchanging", f"start {start or 1}, {detail}"
    return "rounding", phase.replace("_", " ")


def _tasks(design, file: PoolFile, seed: int):
    from jaxdesign.preference.labels.tasks import make_tasks

    return make_tasks(0, design.pairs, design.labels, ids=file.ids, swap_seed=seed)


def by_chance(pool, criterion, budget, prior, seed: int, design) -> float | None:
    """Efficiency of as many pairs drawn at random, against the design's bound; None for pools too large to list."""
    from jaxdesign.exact.random_pairs import random_pairs

    if pool.num_prompts * pool.completions**2 / 2 > LISTED_PAIRS:
        return None
    pairs, labels = random_pairs(pool, budget, seed)
    value = jaxdesign.evaluate(pool, criterion, budget, pairs, labels, prior).certificate.value
    if not np.isfinite(value):
        return 0.0
    return float(criterion.efficiency(value, min(design.certificate.lower_bound, value), pool.dim))


def _report(chosen: argparse.Namespace, pool, found: _Found, seconds: float) -> dict[str, Any]:
    import jax

    design, forecast = found.design, found.forecast
    gaps = {name: getattr(forecast, name).item() for name in ("random", "random_error", "least", "design")}
    gaps = {name: gap if np.isfinite(gap) else None for name, gap in gaps.items()}
    return {
        "certificate": design.certificate._asdict(),
        "status": str(design.status),
        "settings": vars(chosen) | {"pool": chosen.pool or PACKAGED},
        "pool": {"prompts": pool.num_prompts, "completions": pool.completions, "rank": pool.dim},
        "skipped_prompts": design.skipped_prompts,
        "passes": design.passes,
        "selection": design.report,
        "random_pairs": {"efficiency": found.chance},
        "expected_gaps": gaps
        | {"beta": chosen.beta, "worth": chosen.worth, "matters": forecast.matters(chosen.worth)[0]},
        "seed": chosen.seed,
        "seconds": seconds,
        "versions": {"jaxdesign": jaxdesign.__version__, "jax": jax.__version__, "numpy": np.__version__},
        "backend": jax.default_backend(),
    }


def _summary(found: _Found, dim: int, whole_dim: int) -> None:
    design, chance = found.design, found.chance
    prompts, total = len(np.unique(design.pairs[:, 0])), design.labels.sum()
    if dim < whole_dim:
        print(in_ranks(dim, whole_dim))
    print(f"{number(total, 'label')} on {number(len(design.pairs), 'pair')} of {number(prompts, 'prompt')}")
    print(f"certified efficiency {cut(design.certificate.efficiency)}: at least this share of the best possible")
    if chance is not None:
        print(f"as many pairs drawn at random: {cut(chance)}")
    if total < 2 * dim:
        print(in_options(design.report["bound"]))
    if design.report["relaxed"]["status"] != "CERTIFIED":
        print(f"bound: {in_options(str(jaxdesign.Status[design.report['relaxed']['status']]))}")
    if design.skipped_prompts:
        one = design.skipped_prompts == 1
        print(
            f"{number(design.skipped_prompts, 'prompt')} {'has' if one else 'have'} fewer than two completions and "
            f"{'was' if one else 'were'} skipped"
        )
