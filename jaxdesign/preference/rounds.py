"""Rounds of design, labels and fit: each batch is chosen with what the labels before it have shown.

    design  pairs that minimise E_w tr(H(w) A(w)^-1), w drawn from the posterior, A(w) = prior + labels held + new ones
    label   outstanding tasks go to the caller's `label` function in small groups, each stored before the next is asked
    fit     Laplace's approximation to the posterior of the reward parameter
    stop    after the last round, or where the predicted gap tr(H A^-1) / (2 beta) is small enough

State is on disk only (`LabelStore`): a batch is stored before its first label is asked for, so a run that is killed
anywhere goes on where it was, asks again only for labels that were never stored, and repeats none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdesign._pairs import Allocation
from jaxdesign.belief import as_belief
from jaxdesign.budget.budget import Budget
from jaxdesign.budget.required import decided_pairs
from jaxdesign.criteria.trace import Trace
from jaxdesign.exact.random_pairs import with_uniform_floor
from jaxdesign.exact.select import select_pairs
from jaxdesign.pool import CompletionPool
from jaxdesign.preference.fit.posterior import (
    Posterior,
    fit_posterior,
    posterior_draws,
    posterior_targets,
    predicted_gap,
    scored_pool,
)
from jaxdesign.preference.labels.labels import Labels, concatenated, counted
from jaxdesign.preference.labels.store import LabelStore
from jaxdesign.preference.labels.tasks import LabelRecord, Task, check_tasks, make_tasks
from jaxdesign.preference.round_notes import check_notes, notes_of
from jaxdesign.preference.round_plan import RoundPlan as RoundPlan
from jaxdesign.preference.round_residuals import (
    PILOT,
    ResidualUsed,
    after_pilot,
    before_labels,
    from_summary,
    information_left,
    with_residual,
)
from jaxdesign.pricing.memory import memory_source
from jaxdesign.pricing.source import survey
from jaxdesign.residual import Residual

GROUP = 64  # labels asked for between two writes to the store


class RoundsResult(NamedTuple):
    """What `run_rounds` found.

    Args:
        posterior: of all labels, by a fit that knows no residual (`fit_posterior`).
        gaps: predicted policy gap with the labels up to each finished round, in the unit of the reward, by what the
            residual leaves of them.
        stopped: whether `RoundPlan.stop_gap` ended the rounds.
        checks: what `check` said of each stored round, None where there was none.
        residual: the one in force after the labels that are stored, with the pilot's estimate; notes of the store have
            that of each round.
        information: (d, d), prior and what the residual leaves of all labels: what later designs should hold as prior
            in place of the posterior's, `Belief(posterior.parameter, information)`. The same without a residual.
    """

    posterior: Posterior
    gaps: tuple[float, ...]
    stopped: bool
    checks: tuple[dict[str, Any] | None, ...] = ()
    residual: ResidualUsed = ResidualUsed(None)
    information: Float[np.ndarray, "d d"] | None = None

    def summary(self) -> dict[str, Any]:
        """Gaps, whether they ended the rounds, the residual and the checks, in what JSON can hold."""
        gaps = [gap if np.isfinite(gap) else None for gap in self.gaps]
        found = {"gaps": gaps, "stopped": self.stopped, "residual": self.residual.summary()}
        return found | {"checks": list(self.checks)}


def run_rounds(
    pool: CompletionPool,
    label: Callable[[list[Task]], Iterable[LabelRecord]],
    plan: RoundPlan,
    store: LabelStore,
    *,
    deployment: CompletionPool | None = None,
    reference: Any = None,
    seed: int = 0,
    check: Callable[[CompletionPool, Allocation, Labels], dict[str, Any]] | None = None,
) -> RoundsResult:
    """Design, label and fit, round after round; call it again with the same arguments after a kill.

    Args:
        pool: where pairs are chosen; its flips count, its scores do not.
        label: gives labels for a list of tasks (`tasks.answered` makes the records). A generator's labels are
            stored one by one as it yields them, a list's together when it is returned, so a kill loses what was not
            returned yet. It may leave tasks out, for instance those nobody has answered yet: then the round is not
            finished and the run ends there. Records must be of the tasks asked about; nothing else is stored. About
            half the tasks are `swapped`, to be shown with completion j first, against position bias; the choice of a
            record is about (i, j) all the same (`write_tasks` and `read_answers` see to both).
        plan: totals, prior and so on.
        store: where batches and labels are kept.
        deployment: prompts that matter, for H; None: the pool's own.
        reference: (P, K) of the deployment pool, as in `posterior_targets`.
        seed: of the choices that draw at random, and of the order in which each pair is shown.
        check: called with the pool, each new batch and the labels held, before any label of it is asked for; what it
            returns (JSON) is stored with the round and changes nothing. For instance
            `lambda pool, batch, held: check_round(pool, batch, loop, beta=1.0, labels=held).summary()`, see
            `jaxdesign.dynamics.check_round`.

    Returns:
        RoundsResult over the labels that are stored.

    Raises:
        TypeError: `label` gives something else than records.
        ValueError: a store of another pool (its features, mask, flips, residual or ids differ), of other totals or of
            another `RoundPlan.residual`; a residual of the plan and one of the pool; more labels than pairs that may be
            asked about; records of other tasks; and as `select_pairs`.

    Source: derived; checked by tests/preference/test_rounds.py (kills included) and
    tests/preference/test_round_residuals.py.
    """
    deployment = pool if deployment is None else deployment
    _check_room(pool, plan)
    _check_one_residual(pool, plan)
    notes = notes_of(pool, plan.totals, plan.residual)
    used = before_labels(plan.residual)
    seen = with_residual(pool, used)
    gaps: list[float] = []
    for round in range(len(plan.totals)):
        if round not in store.rounds():
            tasks = _designed(seen, plan, store, round, deployment, reference, seed)
            said = {} if check is None else {"check": check(pool, _batch(tasks), store.labels())}
            store.write_batch(round, tasks, notes | {"residual_used": used.summary()} | said)
        check_notes(store, round, notes)
        tasks = store.batch(round)
        check_tasks(tasks, pool.ids)
        if not _labelled(tasks, label, store):
            break
        if round == 0 and plan.residual == PILOT:
            used = _told_by_pilot(pool, plan, store)
            seen = with_residual(pool, used)
        held = concatenated(*(store.labels(number) for number in range(round + 1)))
        posterior = _with_information_left(fit_posterior(pool, held, plan.prior), seen, held, plan)
        target = posterior_targets(deployment, posterior.parameter, plan.beta, reference)
        gaps.append(predicted_gap(posterior, target, plan.beta))
        if plan.stop_gap is not None and gaps[-1] <= plan.stop_gap:
            break
    stopped = bool(gaps) and plan.stop_gap is not None and gaps[-1] <= plan.stop_gap
    checks = tuple(store.notes(number).get("check") for number in store.rounds())
    posterior = fit_posterior(pool, store.labels(), plan.prior)
    information = _with_information_left(posterior, seen, store.labels(), plan).information
    return RoundsResult(posterior, tuple(gaps), stopped, checks, used, information)


def next_batch(
    pool: CompletionPool,
    budget: Budget,
    labels: Any,
    prior: Any,
    beta: float,
    *,
    deployment: CompletionPool | None = None,
    reference: Any = None,
    draws: int = 4,
    seed: int = 0,
):
    """The best whole-label batch given labels that are held: `select_pairs` for E_w tr(H(w) A(w)^-1).

    The expectation is over `draws` draws of the posterior. With no label held it is over draws of the prior where that
    is a `Belief` with a mean, as if its labels were held; else the margins are 0 and H is that of the reference policy
    (draws from a wide prior around 0 would say nothing about this reward and hide what the pool shows).

    Args:
        pool: where pairs are chosen; its flips and its residual count, its scores do not.
        budget: of this batch.
        labels: `Labels` held so far, of pairs of the pool. Where the pool has a residual, several labels of a pair
            count as one, and the fit that draws are from knows no residual (`RoundPlan`).
        prior: what is known of the reward parameter before any label, as in `RoundPlan`.
        beta: strength of the policy's KL term, above 0.
        deployment: prompts that matter, for H; None: the pool's own.
        reference: (P, K) of the deployment pool, as in `posterior_targets`.
        draws: posterior draws, at least 1.
        seed: of the draws and of `select_pairs`.

    Returns:
        Design, whole labels.

    Raises:
        ValueError: a residual that has a belief of its own: draws average over what is believed already.
        TypeError, ValueError: as `fit_posterior`, `posterior_draws`, `posterior_targets` and `select_pairs`.

    Source: derived from arXiv 2606.19607 (its criterion, averaged over the posterior); checked by
    tests/preference/test_rounds.py.
    """
    if isinstance(pool.residual, Residual) and pool.residual.belief is not None:
        raise ValueError(
            "pool.residual.belief: draws of the posterior average over what is believed already; make the residual "
            "without it, residual_of(pool, v), and pass the belief as prior"
        )
    deployment = pool if deployment is None else deployment
    belief = as_belief(prior, pool.dim)
    drawn = np.zeros(pool.dim)
    if len(counted(labels)[0]) or np.any(belief.mean):
        drawn = posterior_draws(fit_posterior(pool, labels, belief), draws, seed)
    target = Trace(posterior_targets(deployment, drawn, beta, reference))
    held = information_left(pool, labels, belief, drawn)
    return select_pairs(scored_pool(pool, drawn), target, budget, prior=held, seed=seed)


def _check_one_residual(pool, plan) -> None:
    """Refuse two residuals of one pool."""
    if pool.residual is not None and plan.residual is not None:
        raise ValueError(
            f"plan.residual={plan.residual!r}: the pool has a residual already; pass a pool without, or residual=None"
        )


def _told_by_pilot(pool, plan, store) -> ResidualUsed:
    """As the rounds after the pilot were designed; else by its labels."""
    used = [store.notes(round).get("residual_used") for round in store.rounds() if round > 0]
    return from_summary(used[0]) if used and used[0] else after_pilot(pool, store.labels(0), plan.prior)


def _with_information_left(posterior, seen, labels, plan) -> Posterior:
    """The posterior whose precision counts of labels what the residual leaves."""
    if seen.residual is None:
        return posterior
    return posterior._replace(information=information_left(seen, labels, plan.prior, posterior.parameter))


def _designed(pool, plan, store, round, deployment, reference, seed) -> list[Task]:
    earlier = [task for other in store.rounds() if other < round for task in store.batch(other)]
    budget = replace(plan.budget, total=float(plan.totals[round]))
    if earlier:
        budget = replace(budget, required=None)  # required pairs were asked about in round 0
    if earlier and budget.per_pair is not None:
        asked = np.unique([task.pair for task in earlier], axis=0)
        excluded = asked if budget.exclude is None else np.concatenate([np.asarray(budget.exclude), asked])
        budget = replace(budget, exclude=excluded)
    # streams of their own: rounds of runs with neighbouring seeds share none
    at_random, by_design, shown = (int(word) for word in np.random.SeedSequence([seed, round]).generate_state(3))
    required = 0 if budget.required is None else len(budget.required)
    number = min(int(plan.floor * budget.total + 0.5), int(budget.total) - required - 1)
    if number > 0:
        budget = with_uniform_floor(pool, budget, number / budget.total, seed=at_random)
    settings = {"deployment": deployment, "reference": reference, "draws": plan.draws, "seed": by_design}
    chosen = next_batch(pool, budget, store.labels(), plan.prior, plan.beta, **settings)
    return make_tasks(round, chosen.pairs, chosen.labels, ids=pool.ids, earlier=earlier, swap_seed=shown)


def _batch(tasks) -> Allocation:
    """Pairs and numbers of labels of a round's tasks."""
    pairs, labels = np.unique([task.pair for task in tasks], axis=0, return_counts=True)
    return Allocation(pairs.astype(np.int32), labels.astype(np.float64))


def _labelled(tasks, label, store) -> bool:
    """Ask for what is outstanding, group by group; whether everything is labelled now."""
    waiting = store.outstanding(tasks)
    for start in range(0, len(waiting), GROUP):
        group = waiting[start : start + GROUP]
        asked = {task.task_id: task for task in group}
        found = label(group)
        if not isinstance(found, Iterable) or isinstance(found, LabelRecord | str | bytes):
            raise TypeError(f"label: returned {type(found).__name__}; expected several LabelRecord (`answered`)")
        if isinstance(found, list | tuple):
            store.append([_of_a_task(record, asked) for record in found])
        else:
            for record in found:  # on disk before the next is asked for
                store.append([_of_a_task(record, asked)])
    return not store.outstanding(tasks)


def _of_a_task(record, asked) -> LabelRecord:
    """The record, if it answers one of the tasks; what is stored stays, so nothing else may be."""
    if not isinstance(record, LabelRecord):
        raise TypeError(f"label: gave {type(record).__name__}; expected LabelRecord (`answered`)")
    task = asked.get(record.task_id)
    if task is None or (tuple(record.pair), record.round, record.repeat) != (task.pair, task.round, task.repeat):
        raise ValueError(f"label: gave a record of pair {tuple(record.pair)}, which is not among the tasks asked about")
    return record


def _check_room(pool, plan) -> None:
    """With one label a pair, all rounds together must fit: found out before the first label is paid for."""
    if plan.budget.per_pair is None:
        return
    closed = decided_pairs(np.asarray(pool.mask), replace(plan.budget, required=None)).closed
    free, wanted = int(survey(memory_source(pool, closed=closed)).pair_counts.sum()), int(sum(plan.totals))
    if wanted > free:
        raise ValueError(
            f"plan.totals={tuple(plan.totals)}: {wanted} labels, but only {free} pairs of different completions may be "
            "asked about, once each (budget.per_pair=1); ask for fewer, or pass per_pair=None"
        )
