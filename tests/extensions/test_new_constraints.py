"""Two limits a budget does not know, each added as one object: certified and obeyed in relaxed and whole designs.

The truth is written out here: every row of every constraint, in a convex program of this file's own.
"""

import cvxpy
import numpy as np
import pytest

import jaxdesign as jd

PROMPTS, COMPLETIONS, DIM, TOTAL, RIDGE = 8, 4, 3, 12, 0.1
EASY = np.array([1, 1, 1, 0, 0, 0, 0, 0])  # prompts that an expert's time should not go to
TEAM = jd.Annotators(flip=[0.05, 0.25], names=["expert", "crowd"])
CRITERIA = {"logdet": jd.LogDet(), "trace": jd.Trace(np.eye(DIM))}

readers = jd.Constraint(1, high=1.5, name="readers", per="completion")
spared = jd.Constraint(EASY, high=2, name="experts on easy prompts", annotators="expert")


@pytest.fixture(scope="module", params=[0, 1])
def pool(request):
    features = np.random.default_rng(request.param).standard_normal((PROMPTS, COMPLETIONS, DIM))
    features[:3] *= 3  # what is easy is also what the expert would rather label
    return jd.CompletionPool(features.astype(np.float32))


def touched(pairs, labels):
    """Labels on the pairs that touch each completion."""
    found = np.zeros((PROMPTS, COMPLETIONS))
    for (p, i, j), n in zip(pairs, labels, strict=True):
        found[p, i] += n
        found[p, j] += n
    return found


def every_pair():
    i, j = np.triu_indices(COMPLETIONS, 1)
    return np.array([(p, a, b) for p in range(PROMPTS) for a, b in zip(i, j, strict=True)])


def best_value(pool, name, limits, share=lambda row: np.ones(1)):
    """The smallest criterion over real labels, one variable per pair and kind of label, by cvxpy."""
    features, pairs = np.asarray(pool.features, np.float64), every_pair()
    shares = [share(p) for p, _, _ in pairs]  # of the information of a label that errs never
    n = cvxpy.Variable((len(pairs), len(shares[0])), nonneg=True)
    z = np.stack([features[p, i] - features[p, j] for p, i, j in pairs])
    A = RIDGE * np.eye(DIM)
    for e, row in enumerate(z):
        A = A + (shares[e] / 4 @ n[e]) * np.outer(row, row)
    value = -cvxpy.log_det(A) if name == "logdet" else cvxpy.tr_inv(A)
    task = cvxpy.Problem(cvxpy.Minimize(value), [cvxpy.sum(n) == TOTAL, *limits(n, pairs)])
    return float(task.solve(solver="CLARABEL"))


def check(found, best):
    """Its value and bound enclose the truth, and it is close to it."""
    certificate = found.certificate
    assert certificate.lower_bound <= best + 1e-6 * abs(best)
    assert certificate.value >= best - 1e-6 * abs(best)


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("name", CRITERIA)
def test_a_cap_on_what_touches_a_completion(pool, name):
    budget = jd.Budget(TOTAL, constraints=readers)

    def limits(n, pairs):
        for p in range(PROMPTS):
            for k in range(COMPLETIONS):
                yield cvxpy.sum(n[np.flatnonzero((pairs[:, 0] == p) & (pairs[:, 1:] == k).any(axis=1))]) <= 1.5

    best = best_value(pool, name, limits)
    relaxed = jd.optimize(pool, CRITERIA[name], budget, prior=RIDGE, tol=1e-6)
    assert relaxed.status is jd.Status.CERTIFIED
    check(relaxed, best)
    assert touched(relaxed.pairs, relaxed.labels).max() == pytest.approx(1.5)  # it binds
    reference = jd.reference.optimize(pool, CRITERIA[name], budget, prior=RIDGE)
    assert reference.certificate.value == pytest.approx(best, rel=1e-6)
    whole = jd.select_pairs(pool, CRITERIA[name], budget, prior=RIDGE)
    assert touched(whole.pairs, whole.labels).max() == 1 and whole.labels.sum() == TOTAL
    check(whole, max(best, whole.certificate.value))
    assert whole.certificate.efficiency > 0.9
    again = jd.evaluate(pool, CRITERIA[name], budget, whole.pairs, whole.labels, RIDGE)
    assert again.certificate.value == pytest.approx(whole.certificate.value, rel=1e-12)


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("name", CRITERIA)
def test_a_cap_on_one_annotator_in_one_group(pool, name):
    budget = jd.Budget(TOTAL, per_pair=1, constraints=spared)

    def limits(n, pairs):
        return [n <= 1, cvxpy.sum(n[np.flatnonzero(EASY[pairs[:, 0]]), 0]) <= 2]

    best = best_value(pool, name, limits, lambda row: (1 - 2 * TEAM.flip) ** 2)
    relaxed = jd.optimize(pool, CRITERIA[name], budget, prior=RIDGE, tol=1e-6, annotators=TEAM)
    assert relaxed.status is jd.Status.CERTIFIED
    check(relaxed, best)
    whole = jd.select_pairs(pool, CRITERIA[name], budget, prior=RIDGE, annotators=TEAM)
    for design in (relaxed, whole):
        spent = design.labels[(design.annotators == 0) & (EASY[design.pairs[:, 0]] == 1)].sum()
        assert spent == pytest.approx(2)  # it binds
    assert whole.certificate.lower_bound <= whole.certificate.value and whole.certificate.efficiency > 0.9
    assert whole.labels.max() == 1
    free = jd.optimize(pool, CRITERIA[name], jd.Budget(TOTAL, per_pair=1), prior=RIDGE, tol=1e-6, annotators=TEAM)
    assert free.certificate.value < relaxed.certificate.value


@pytest.mark.slow
def test_constraints_hold_together_with_the_rest_of_a_budget(pool):
    cost = np.random.default_rng(3).gamma(3, 1, (PROMPTS, COMPLETIONS))
    budget = jd.Budget(
        TOTAL,
        per_pair=1,
        cost=cost,
        cost_total=TOTAL * 6.0,
        required=[(0, 0, 1), (7, 2, 3)],
        quotas=jd.Quota(EASY, at_least={1: 5}),
        constraints=[
            jd.Constraint(1, high=1, name="readers", per="completion"),
            jd.Constraint(1, low=1, name="seen", per="prompt"),
            jd.Constraint(cost, high=20, name="reading", per=np.arange(PROMPTS) % 4),
        ],
    )
    for design in (
        jd.optimize(pool, jd.LogDet(), budget, prior=RIDGE, tol=1e-5),
        jd.select_pairs(pool, jd.LogDet(), budget, prior=RIDGE),
    ):
        pairs, labels = design.pairs, design.labels
        spent = np.bincount(pairs[:, 0], labels, PROMPTS)
        read = cost[pairs[:, 0], pairs[:, 1]] + cost[pairs[:, 0], pairs[:, 2]]
        assert labels.sum() == pytest.approx(TOTAL) and labels.max() <= 1 + 1e-6
        assert touched(pairs, labels).max() <= 1 + 1e-6 and spent.min() >= 1 - 1e-6
        assert spent[EASY == 1].sum() >= 5 - 1e-6 and read @ labels <= TOTAL * 6 * (1 + 1e-6)
        assert np.bincount(pairs[:, 0] % 4, read * labels, 4).max() <= 20 * (1 + 1e-6)
        held = {tuple(pair) for pair in pairs.tolist()}
        assert {(0, 0, 1), (7, 2, 3)} <= held
        assert design.certificate.lower_bound <= design.certificate.value
        assert design.certificate.efficiency > 0.9


@pytest.mark.thorough
def test_tasks_of_several_labels_obey(pool):
    cap = jd.Constraint(1, high=5, name="readers", per="completion")
    found = jd.select_pairs(pool, jd.LogDet(), jd.Budget(TOTAL, constraints=cap, labels_per_task=2), prior=RIDGE)
    assert (found.labels % 2 == 0).all() and touched(found.pairs, found.labels).max() <= 4


NAMED = np.arange(PROMPTS * COMPLETIONS).reshape(PROMPTS, COMPLETIONS) % 5
ROWS = {  # that a pair touches, by its first and by its second completion
    None: lambda p, k: 0,
    "prompt": lambda p, k: p,
    "completion": lambda p, k: (p, k),
    "groups": lambda p, k: EASY[p],
    "names": lambda p, k: NAMED[p, k],
}
CHARGES = {"number": 2.0, "prompts": np.arange(PROMPTS) + 1.0, "completions": NAMED + 1.0}


@pytest.mark.parametrize("charges", CHARGES)
@pytest.mark.parametrize("per", ROWS)
def test_what_labels_use_is_counted_row_by_row(per, charges):
    pool = jd.CompletionPool(np.random.default_rng(0).standard_normal((PROMPTS, COMPLETIONS, DIM)))
    pairs = every_pair()
    labels, used = np.random.default_rng(0).uniform(size=len(pairs)), {}
    for (p, i, j), n in zip(pairs, labels, strict=True):
        rows = [ROWS[per](p, k) for k in (i, j)]
        if charges == "completions":
            uses = [(row, n * CHARGES[charges][p, k]) for row, k in zip(rows, (i, j), strict=True)]
        else:  # of every row that it touches
            uses = [(row, n * np.broadcast_to(CHARGES[charges], PROMPTS)[p]) for row in set(rows)]
        for row, use in uses:
            used[row] = used.get(row, 0) + use
    rows = {"groups": EASY, "names": NAMED}.get(per, per)
    if per == "names" and charges != "completions":
        pytest.skip("rows named by completion need charges by completion")
    for factor in (1 + 1e-5, 1 - 1e-5):
        constraint = jd.Constraint(CHARGES[charges], high=factor * max(used.values()), per=rows)
        budget = jd.Budget(labels.sum(), constraints=constraint)
        if factor > 1:
            jd.evaluate(pool, jd.LogDet(), budget, pairs, labels)
        else:
            with pytest.raises(ValueError, match=r"above its high=|allow totals from"):
                jd.evaluate(pool, jd.LogDet(), budget, pairs, labels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"charges": -1, "high": 1}, "constraint.charges: -1 found; must be at least 0"),
        ({"charges": 1}, "neither low nor high is given"),
        ({"charges": 1, "high": np.nan}, "constraint.high: nan found; must be at least 0 and not NaN"),
        ({"charges": 1, "high": 1, "per": "row"}, "constraint.per='row': expected None, 'prompt', 'completion'"),
        ({"charges": 1, "high": 1, "per": np.zeros((2, 2), int)}, "rows named by completion need charges"),
        ({"charges": 1, "high": 1, "annotators": []}, "none is named"),
    ],
)
def test_what_is_no_constraint_is_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        jd.Constraint(**arguments)


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        (jd.Constraint(1, high=0.1, name="readers", per="completion"), "off by 6.5 of the limit at least"),
        (
            jd.Constraint(1, low=100, name="seen", per="prompt"),
            "seen of prompt 0 has low=100, but labels can use",
        ),
        (jd.Constraint(1, high=3), "constraint with per_pair and per_prompt allow totals from 0 to 3"),
        (jd.Constraint(1, low={1: 2}, high={1: 1}, per=EASY), "constraint 1 has low=2 above high=1"),
        (jd.Constraint(1, high={2: 1}, per=EASY), "no prompt is in group 2"),
        (jd.Constraint(np.ones(3), high=3), "constraint.charges: shape"),
        (jd.Constraint(1, high=np.ones(3), per="prompt"), r"constraint.high: shape \(3,\) found; expected a number or"),
        (spared, "experts on easy prompts.annotators: expert named, but no annotators are passed"),
    ],
)
def test_what_a_pool_cannot_hold_is_said(pool, constraint, message):
    with pytest.raises(ValueError, match=message):
        jd.optimize(pool, jd.LogDet(), jd.Budget(TOTAL, constraints=constraint), prior=RIDGE)


def test_an_annotator_nobody_knows_is_said(pool):
    constraint = jd.Constraint(1, high=3, annotators="novice")
    with pytest.raises(ValueError, match="'novice' found; annotators are 'expert', 'crowd'"):
        jd.optimize(pool, jd.LogDet(), jd.Budget(TOTAL, constraints=constraint), prior=RIDGE, annotators=TEAM)
