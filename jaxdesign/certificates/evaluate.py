"""`evaluate`: the certificate of any given allocation."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxdesign._pairs import Allocation
from jaxdesign.analysis import analyse, information, sound
from jaxdesign.annotators import Annotators, asked
from jaxdesign.budget.budget import Budget
from jaxdesign.budget.required import with_required
from jaxdesign.certificates.allowed import canonical_allocation
from jaxdesign.certificates.coupled import certify_allocation
from jaxdesign.certificates.separable import blurred
from jaxdesign.certificates.worst_case import judged, report_at
from jaxdesign.criteria.protocol import CriterionLike
from jaxdesign.design import Certificate, Design, Status
from jaxdesign.door import make_problem
from jaxdesign.pool import CompletionPool
from jaxdesign.pricing.source import Source
from jaxdesign.problem import Certified, Problem

BLURRED = (
    1e-4  # relative gap by rounding alone above which `evaluate` says so: condition numbers of about 1e11 and more
)


def evaluate(
    pool: CompletionPool | Source,
    crit: CriterionLike,
    budget: Budget,
    pairs: Any,
    labels: Any,
    prior: Any = None,
    *,
    annotators: Annotators | None = None,
    assigned: Any = None,
) -> Design:
    """Certificate of a given allocation: its criterion, and how far it can be from the best allowed one.

    Args:
        pool: the pool, or a `pricing.Source`.
        crit: the criterion.
        budget: what allocations it is compared with; the given one must obey it.
        pairs: (S, 3) rows (p, i, j); rows (p, j, i) are turned round, repeated pairs are added up.
        labels: (S,) labels of each pair, non-negative, real or whole.
        prior: information already held, (d, d) or a scalar ridge; or a `Belief`.
        annotators: who can label; needs `assigned`.
        assigned: (S,) index of the annotator of each pair, as in `Design.annotators`.

    Returns:
        A Design with the pairs in order, zeros dropped. `certificate.value` is inf and the efficiency 0 where the
        allocation leaves A singular.

    Raises:
        ValueError: pairs outside of the pool, negative or non-finite labels, an allocation that breaks the budget
            (total to 1e-6 relative, caps to 1e-6), and everything `optimize` raises.

    Numerics: float64 from the stored features throughout; see `certificates.separable`.

    Source: derived; checked by tests/certificates/test_certify.py.
    """
    if annotators is not None and assigned is None:
        raise ValueError("assigned: missing; with annotators it says who labels each pair")
    joint = asked(pool, budget, annotators)
    problem = make_problem(joint.pool, crit, joint.budget, prior, flip=joint.flip)
    allocation = canonical_allocation(problem, joint.allocation(pairs, assigned), labels)
    return joint.answer(evaluated(problem, allocation, Status.EVALUATED).design)


def evaluated(problem: Problem, allocation: Allocation, status: Status, **fields) -> Certified:
    """Design of an allocation of the labels left to choose that is already in order and allowed."""
    matrix = information(problem, allocation)
    analysis = analyse(problem, matrix)
    if not sound(problem, matrix, analysis):
        certificate = Certificate(float("inf"), float("-inf"), float("inf"), 0.0)
    elif problem.criterion.family:
        certificate, problem = judged(problem, allocation, matrix)
        fields["report"] = report_at(problem, allocation)
    else:
        certificate = certify_allocation(problem, matrix, analysis, allocation).certificate
    if status is Status.EVALUATED and np.isfinite(certificate.value) and blurred(problem, analysis) > BLURRED:
        status = Status.ILL_CONDITIONED
    every = with_required(problem.decided, allocation)
    return Certified(Design(*every, certificate, status, skipped_prompts=problem.skipped_prompts, **fields), problem)
