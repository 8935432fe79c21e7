"""Rounds of design, labels and fit: each batch is chosen with what the labels before it have shown.

    design  pairs that minimise E_w tr(H(w) A(w)^-1), w drawn from the posterior, A(w) = prior + labels held + new ones
    label   outstanding tasks go to the caller's `label` function in small groups, each stored before the next is asked
    fit     Laplace's approximation to the posterior of the reward parameter
    stop    after the last round, or where the predicted gap tr(H A^-1) / (2 beta) is small enough

State is on disk only (`LabelStore`): a batch is stored before its first label is asked for, so a run that is killed
anywhere goes on where it was, asks again only for labels that were never stored, and repeats none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdesign import _checks
from jaxdesign._pairs import Allocation
from jaxdesign.belief import as_belief, held_belief
from jaxdesign.budget.budget import Budget
from jaxdesign.budget.required import decided_pairs
from jaxdesign.criteria.trace import Trace
from jaxdesign.exact.random_pairs import with_uniform_floor
from jaxdesign.exact.select import select_pairs
from jaxdesign.information import held_information
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
from jaxdesign.pricing.memory import memory_source
from jaxdesign.pricing.source import survey

GROUP = 64  # labels asked for between two writes to the store


@dataclass(frozen=True, eq=False)
class RoundPlan:
    """How many labels each round has and how it is designed.

    Args:
        totals: labels of each round, whole and positive; two rounds are the usual case.
        prior: what is known of the reward parameter before any label: its precision, (d, d) or a scalar ridge above 0;
            or a `Belief`, or what holds one, such as a posterior or an `ImpliedPrior`.
        beta: strength of the policy's KL term.
        budget: limits that hold in every round; its total is not used, its per_pair must be 1 or None (over all
            rounds: with 1 no pair is asked about twice).
        draws: posterior draws over which later rounds average.
        floor: share of each round that is drawn at random, in [0, 1): a guard against features and rewards that do not
            fit (where rewards are linear in the features, 0 saves a few labels more).
        stop_gap: rounds end where the predicted gap is at most this; None: after the last.

    Raises:
        ValueError: totals that are no positive whole numbers, a prior that is not positive definite, a budget whose
            per_pair is neither 1 nor None, other values out of range.

    Source: derived; checked by tests/preference/test_rounds.py.
    """

    totals: tuple[int, ...]
    prior: Any
    beta: float = 1.0
    budget: Budget = field(default_factory=lambda: Budget(1, per_pair=1))
    draws: int = 4
    floor: float = 0.25
    stop_gap: float | None = None

    def __post_init__(self):
        totals = np.asarray(self.totals, np.float64)
        if totals.ndim != 1 or not totals.size or not ((totals >= 1) & (totals == np.round(totals))).all():
            raise ValueError(
                f"totals={self.totals}: expected one positive whole number of labels per round, as (100, 300)"
            )
        belief = held_belief(self.prior)
        prior = np.asarray(self.prior if belief is None else belief.precision, np.float64)
        if prior.ndim:
            prior = _checks.symmetric_psd(prior, len(prior), "prior")
        elif not np.isfinite(prior):
            raise ValueError(f"prior={prior:g}: must be finite and above 0")
        if not (prior > 0 if prior.ndim == 0 else np.linalg.eigvalsh(prior)[0] > 0):
            found = (
                f"{float(prior):g}" if prior.ndim == 0 else f"smallest eigenvalue {np.linalg.eigvalsh(prior)[0]:.3g}"
            )
            raise ValueError(
                f"prior: {found} found; must be positive definite, so that few labels give a posterior at all"
            )
        _checks.positive_finite(self.beta, "beta", "the strength of the policy's KL term")
        if not 0 <= self.floor < 1:
            raise ValueError(f"floor={self.floor:g}: must be at least 0 and below 1")
        if self.draws != int(self.draws) or self.draws < 1:
            raise ValueError(f"draws={self.draws}: expected a whole number of at least 1")
        if self.stop_gap is not None:
            _checks.positive_finite(
                self.stop_gap, "stop_gap", "the predicted gap that is small enough; None: no such rule"
            )
        if self.budget.per_pair is not None and not (np.asarray(self.budget.per_pair) == 1).all():
            raise ValueError(f"budget.per_pair={self.budget.per_pair}: rounds keep track of 1 or None only")


class RoundsResult(NamedTuple):
    """What `run_rounds` found.

    Args:
        posterior: of all labels.
        gaps: predicted policy gap with the labels up to each finished round, in the unit of the reward.
        stopped: whether `RoundPlan.stop_gap` ended the rounds.
        checks: what `check` said of each stored round, None where there was none.
    """

    posterior: Posterior
    gaps: tuple[float, ...]
    stopped: bool
    checks: tuple[dict[str, Any] | None, ...] = ()


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
        ValueError: a store of another pool (its features, mask, flips, residual or ids differ) or of other totals; more
            labels than pairs that may be asked about; records of other tasks; and as `select_pairs`.

    Source: derived; checked by tests/preference/test_rounds.py (kills included).
    """
    deployment = pool if deployment is None else deployment
    _check_room(pool, plan)
    notes = {"pool": _fingerprint(pool), "totals": [int(total) for total in plan.totals]}
    gaps: list[float] = []
    for round in range(len(plan.totals)):
        if round not in store.rounds():
            tasks = _designed(pool, plan, store, round, deployment, reference, seed)
            said = {} if check is None else {"check": check(pool, _batch(tasks), store.labels())}
            store.write_batch(round, tasks, notes | said)
        _check_notes(store, round, notes)
        tasks = store.batch(round)
        check_tasks(tasks, pool.ids)
        if not _labelled(tasks, label, store):
            break
        held = concatenated(*(store.labels(number) for number in range(round + 1)))
        posterior = fit_posterior(pool, held, plan.prior)
        target = posterior_targets(deployment, posterior.parameter, plan.beta, reference)
        gaps.append(predicted_gap(posterior, target, plan.beta))
        if plan.stop_gap is not None and gaps[-1] <= plan.stop_gap:
            break
    stopped = bool(gaps) and plan.stop_gap is not None and gaps[-1] <= plan.stop_gap
    checks = tuple(store.notes(number).get("check") for number in store.rounds())
    return RoundsResult(fit_posterior(pool, store.labels(), plan.prior), tuple(gaps), stopped, checks)


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
        pool: where pairs are chosen; its flips count, its scores do not.
        budget: of this batch.
        labels: `Labels` held so far, of pairs of the pool.
        prior: what is known of the reward parameter before any label, as in `RoundPlan`.
        beta: strength of the policy's KL term, above 0.
        deployment: prompts that matter, for H; None: the pool's own.
        reference: (P, K) of the deployment pool, as in `posterior_targets`.
        draws: posterior draws, at least 1.
        seed: of the draws and of `select_pairs`.

    Returns:
        Design, whole labels.

    Raises:
        TypeError, ValueError: as `fit_posterior`, `posterior_draws`, `posterior_targets` and `select_pairs`.

    Source: derived from arXiv 2606.19607 (its criterion, averaged over the posterior); checked by
    tests/preference/test_rounds.py.
    """
    deployment = pool if deployment is None else deployment
    belief = as_belief(prior, pool.dim)
    held = np.asarray(belief.precision)
    pairs, _, counts = counted(labels)
    if not len(pairs) and not np.any(belief.mean):
        target = posterior_targets(deployment, np.zeros(pool.dim), beta, reference)
        return select_pairs(scored_pool(pool, np.zeros(pool.dim)), Trace(target), budget, prior=held, seed=seed)
    drawn = posterior_draws(fit_posterior(pool, labels, belief), draws, seed)
    scored = scored_pool(pool, drawn)
    held = held + held_information(scored, pairs, counts) if len(pairs) else held
    return select_pairs(
        scored, Trace(posterior_targets(deployment, drawn, beta, reference)), budget, prior=held, seed=seed
    )


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


def _fingerprint(pool) -> str:
    """Of what tasks and fits depend on."""
    digest = hashlib.sha256()
    for array in (pool.features, pool.mask, pool.flip, *jax.tree.leaves(pool.residual)):
        array = np.ascontiguousarray(0 if array is None else array)
        digest.update(f"{array.shape} {array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _check_notes(store, round, notes) -> None:
    """Refuse a store that was begun with another pool or plan; one whose notes say nothing is taken as it is."""
    held = store.notes(round)
    if held.get("pool", notes["pool"]) != notes["pool"]:
        raise ValueError(
            f"store: round {round} in {store.path} was made for another pool (features, mask, flips or residual "
            "differ); pass that of the first call, or a new store"
        )
    if held.get("totals", notes["totals"])[: round + 1] != notes["totals"][: round + 1]:
        raise ValueError(
            f"plan.totals={tuple(notes['totals'])}: {store.path} was begun with {tuple(held['totals'])}; rounds that "
            "are stored keep their totals"
        )
