"""`jaxdesign forecast`: what choosing pairs can be worth, from a pool in a file, before a label is paid for."""

from __future__ import annotations

import argparse

import numpy as np
from jaxtyping import Float

import jaxdesign
from jaxdesign.cli.progress import Meter
from jaxdesign.cli.reading import PACKAGED, read_pool, read_proxy, spanned
from jaxdesign.cli.words import errors_in_options, in_ranks, number


def forecast(chosen: argparse.Namespace) -> int:
    """`jaxdesign forecast`; prints and writes no file."""
    with Meter() as meter:
        meter.phase("reading", chosen.pool or PACKAGED)
        file = read_pool(chosen.pool)
        proxy = None if chosen.proxy is None else read_proxy(chosen.proxy)
        meter.phase("preparing", "")
        with meter.compilations():
            pool, whole_dim = spanned(file, chosen.pool)
            with errors_in_options():
                told = _told(chosen, pool, proxy, meter)
    if pool.dim < whole_dim:
        print(in_ranks(pool.dim, whole_dim))
    print(
        f"for rewards of standard deviation {chosen.spread:g} (--spread) within a prompt, where a label is "
        "sigma(difference):"
    )
    print("\n\n".join(told))
    return 0


def _told(chosen: argparse.Namespace, pool, proxy: Float[np.ndarray, "p k"] | None, meter: Meter) -> list[str]:
    """The forecast, and what else was asked for."""
    totals = sorted(set(chosen.labels))
    budget = jaxdesign.Budget(totals[0], chosen.per_pair, chosen.per_prompt)
    target = np.asarray(jaxdesign.policy_target(pool), np.float64)
    prior = prior_of(pool, target, chosen.spread)
    settings = {"prior": prior, "target": target, "beta": chosen.beta, "seed": chosen.seed}
    meter.phase("forecasting", number(totals[0], "label"))
    ahead = iter(totals[1:])

    def chose(total: float, design: jaxdesign.Design) -> None:
        if (following := next(ahead, None)) is not None:
            meter.phase("forecasting", number(following, "label"))

    found = jaxdesign.forecast(pool, budget, totals, callback=chose, **settings)
    told = [found.summary(chosen.worth)]
    if chosen.by_completions:
        meter.phase("by completions", "")
        told.append(jaxdesign.forecast_by_completions(pool, budget, totals, **settings).summary())
    if proxy is not None:
        from jaxdesign.preference import proxy_worth

        meter.phase("with the proxy", "")
        told.append(proxy_worth(pool, proxy, budget, totals, **settings).summary())
    return told


def prior_of(
    pool: jaxdesign.CompletionPool, target: Float[np.ndarray, "d d"], spread: float
) -> Float[np.ndarray, "d d"]:
    """Lambda = tr(H M^-1) / (q spread^2) M, with which rewards have mean_p E Var_p(phi . w) = spread^2.

    The mean is over prompts with two completions or more, a share q of all that H is of, so that
    q spread^2 = tr(H Lambda^-1). M is the second moment of the centred features, so that the unit of the features does
    not count; H, the target, is that of the policy that completions were sampled from. Derived; checked by
    tests/cli/test_cli_forecast.py.
    """
    moment = np.asarray(jaxdesign.second_moment(pool), np.float64)
    share = np.mean(np.asarray(pool.mask).sum(axis=1) > 1)
    return np.trace(np.linalg.solve(moment, target)) / (share * spread**2) * moment
