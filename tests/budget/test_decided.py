"""Excluded and required pairs, tasks of several labels, annotators."""

import numpy as np
import pytest

import jaxdesign
from jaxdesign import Annotators, Budget, CompletionPool, LogDet, Quota, Status, Trace, select_pairs
from tests.support.coupled import DOMAIN
from tests.support.problems import (
    DIM,
    criterion_of,
    information_of,
    random_arrays,
    random_pool,
    random_spd,
    written_out,
)

PRIOR = 0.2 * np.eye(DIM)
TARGET = random_spd(2)


def rows(pairs):
    return set(map(tuple, np.asarray(pairs).tolist()))


@pytest.mark.parametrize("scores", ["no", pytest.param("draws", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_excluding_all_pairs_of_a_completion_is_masking_it(scores):
    features, u, mask = random_arrays(4, draws=None if scores == "no" else 3)
    u = None if scores == "no" else u
    pool, budget = CompletionPool(features, u, mask), Budget(12, 1)
    out = [(0, min(k, 2), max(k, 2)) for k in (0, 1, 3, 4)] + [(3, 4, k) for k in range(4)]
    fewer = mask.copy()
    fewer[0, 2] = fewer[3, 4] = False
    bare = CompletionPool(features, u, fewer)
    for solve in (jaxdesign.optimize, select_pairs):
        masked = solve(bare, LogDet(), budget, prior=PRIOR, tol=1e-6)
        excluded = solve(pool, LogDet(), Budget(12, 1, exclude=out), prior=PRIOR, tol=1e-6)
        assert excluded.certificate.value == pytest.approx(masked.certificate.value, abs=1e-5)
        assert not rows(excluded.pairs) & rows([(p, min(i, j), max(i, j)) for p, i, j in out])


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("name", ["LogDet", pytest.param("Trace", marks=pytest.mark.slow)])
def test_required_pairs_are_labels_held_already(name, coupled):
    H = None if name == "LogDet" else TARGET
    pool, criterion = random_pool(6), LogDet() if H is None else Trace(H)
    required = np.array([[0, 0, 2], [0, 2, 0], [4, 1, 3]])  # the first twice, once turned round
    more = {"quotas": Quota(DOMAIN, at_most=7)} if coupled else {}
    budget = Budget(14, 2, required=required, **more)
    design = jaxdesign.optimize(pool, criterion, budget, prior=PRIOR, tol=1e-6)
    batch = select_pairs(pool, criterion, budget, prior=PRIOR)
    pairs, z, c = written_out(pool)
    index = {tuple(pair): k for k, pair in enumerate(pairs.tolist())}
    for found in (design, batch):
        labels = np.zeros(len(pairs))
        labels[[index[tuple(pair)] for pair in found.pairs.tolist()]] = found.labels
        assert labels.sum() == pytest.approx(14)
        assert labels[index[0, 0, 2]] == 2 and labels[index[4, 1, 3]] == 1
        value = criterion_of(information_of(z, c, labels, PRIOR), H)
        assert found.certificate.value == pytest.approx(value, rel=1e-6)
    assert batch.certificate.lower_bound <= batch.certificate.value
    again = jaxdesign.evaluate(pool, criterion, budget, batch.pairs, batch.labels, prior=PRIOR)
    assert again.certificate.value == pytest.approx(batch.certificate.value)
    if not coupled:  # the same labels as prior information, their pairs closed
        held = np.zeros(len(pairs))
        held[[index[0, 0, 2], index[4, 1, 3]]] = 2, 1
        prior = information_of(z, c, held, PRIOR)[0]
        rest = jaxdesign.optimize(pool, criterion, Budget(11, 2, exclude=required), prior=prior, tol=1e-6)
        assert rest.certificate.value == pytest.approx(design.certificate.value, abs=1e-5)


BAD = {
    "outside": ({"exclude": [(9, 0, 1)]}, ["budget.exclude", "(9, 0, 1)"]),
    "both": ({"exclude": [(0, 1, 2)], "required": [(0, 2, 1)]}, ["(0, 1, 2)", "both"]),
    "above the cap": ({"required": [(0, 1, 2)] * 2}, ["pair (0, 1, 2) has 2 labels", "per_pair=1"]),
    "above the quota": ({"per_prompt": 1, "required": [(0, 1, 2), (0, 0, 2)]}, ["prompt 0 has 2", "per_prompt=1"]),
    "nothing left": ({"required": [(0, 1, 2), (0, 0, 2), (3, 1, 2)]}, ["leave none of budget.total=3"]),
    "tasks": ({"labels_per_task": 2}, ["labels_per_task=2", "divide total=3"]),
    "above a group": (
        {"required": [(0, 1, 2), (3, 1, 2)], "quotas": Quota(DOMAIN, None, {"math": 1.0}, "domain")},
        ["budget.required: 2 labels of domain math", "at_most=1"],
    ),
    "costs": ({"required": [(0, 1, 2)], "cost_per_label": 2.0, "cost_total": 1.0}, ["budget.required: costs 2"]),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_decided_so(name):
    limits, words = BAD[name]
    with pytest.raises(ValueError) as error:
        jaxdesign.optimize(random_pool(1, "no"), LogDet(), Budget(3, **({"per_pair": 1} | limits)), prior=PRIOR)
    missing = [word for word in words if word not in str(error.value)]
    assert not missing, f"{missing} not in: {error.value}"


def test_labels_that_lack_a_required_or_use_an_excluded_pair_are_named():
    pool, pairs = random_pool(1, "no"), [(0, 1, 2), (3, 1, 2)]
    with pytest.raises(ValueError, match=r"\(3, 0, 1\) lacks labels"):
        jaxdesign.evaluate(pool, LogDet(), Budget(2, required=[(3, 0, 1)]), pairs, [1, 1], prior=PRIOR)
    with pytest.raises(ValueError, match=r"\(3, 1, 2\) has 1 labels, which the budget excludes"):
        jaxdesign.evaluate(pool, LogDet(), Budget(2, exclude=[(3, 2, 1)]), pairs, [1, 1], prior=PRIOR)


@pytest.mark.thorough
@pytest.mark.parametrize("coupled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_tasks_are_whole(coupled):
    pool = random_pool(2, "no")
    more = {"quotas": Quota(DOMAIN, at_most=9)} if coupled else {}
    budget = Budget(18, 3, per_prompt=6, labels_per_task=3, **more)
    batch = select_pairs(pool, LogDet(), budget, prior=PRIOR)
    assert (batch.labels == 3).all() and batch.labels.sum() == 18
    assert np.bincount(batch.pairs[:, 0], batch.labels).max() <= 6
    pairs, z, _ = written_out(pool)
    matrix = PRIOR + sum(3 * 0.25 * np.outer(d, d) for d in z[[pairs.tolist().index(p) for p in batch.pairs.tolist()]])
    assert batch.certificate.value == pytest.approx(-np.linalg.slogdet(matrix)[1], rel=1e-6)
    with pytest.raises(ValueError, match=r"labels_per_task=3: .* per_pair to at least 3"):
        select_pairs(pool, LogDet(), Budget(18, 2, labels_per_task=3), prior=PRIOR)


# ---- annotators


def joint_truth(pool, flips, assigned, pairs, labels):
    """-log det of the information of labels by annotators, pair by pair."""
    matrix = PRIOR.copy()
    features = np.asarray(pool.features, np.float64)
    for (p, i, j), a, n in zip(pairs.tolist(), assigned.tolist(), labels, strict=True):
        z = features[p, i] - features[p, j]
        matrix += n * (1 - 2 * flips[a]) ** 2 / 4 * np.outer(z, z)
    return -np.linalg.slogdet(matrix)[1]


@pytest.mark.slow
def test_who_labels_is_chosen_with_what():
    pool, flips = random_pool(2, "no"), [0.05, 0.25]
    people = Annotators(flips, cost=[4.0, 1.0], names=["expert", "crowd"])
    budget = Budget(12, 1, cost_total=27.0)
    design = jaxdesign.optimize(pool, LogDet(), budget, prior=PRIOR, annotators=people, tol=1e-4)
    batch = select_pairs(pool, LogDet(), budget, prior=PRIOR, annotators=people)
    for found in (design, batch):
        assert found.annotators.shape == found.labels.shape and found.annotators.dtype == np.int32
        spent = np.bincount(found.annotators, found.labels, minlength=2)
        assert spent @ [4, 1] <= 27 * (1 + 1e-9) and spent.sum() == pytest.approx(12)
        truth = joint_truth(pool, flips, found.annotators, found.pairs, found.labels)
        assert found.certificate.value == pytest.approx(truth, rel=1e-6)
    assert design.status is Status.CERTIFIED and 0 < design.labels[design.annotators == 0].sum() < 12
    assert design.certificate.lower_bound <= batch.certificate.value
    for a in (0, 1):  # everyone alone can do no better
        alone = CompletionPool(pool.features, mask=pool.mask, flip=flips[a])
        total = min(12, 27 // people.cost[a])
        if a == 0:
            continue  # six labels of the expert are a smaller total: not an allowed allocation
        single = jaxdesign.optimize(alone, LogDet(), Budget(total, 1), prior=PRIOR)
        assert design.certificate.lower_bound <= single.certificate.value
    again = jaxdesign.evaluate(
        pool, LogDet(), budget, batch.pairs, batch.labels, PRIOR, annotators=people, assigned=batch.annotators
    )
    assert again.certificate.value == pytest.approx(batch.certificate.value)
    np.testing.assert_array_equal(again.annotators, batch.annotators)


@pytest.mark.slow
def test_annotators_have_limits_and_prompts_count_them_together():
    pool = random_pool(2, "no")
    people = Annotators([0.01, 0.3, 0.2], at_most=[4, np.inf, np.inf], at_least=[0, 2, 0])
    budget = Budget(12, 1, per_prompt=3, exclude=[(0, 0, 2)])
    batch = select_pairs(pool, LogDet(), budget, prior=PRIOR, annotators=people)
    given = np.bincount(batch.annotators, batch.labels, minlength=3)
    assert given[0] == 4 and given[1] >= 2  # the best one is used to the full
    assert np.bincount(batch.pairs[:, 0], batch.labels).max() <= 3
    assert (0, 0, 2) not in rows(batch.pairs)


@pytest.mark.slow
def test_annotators_alike_and_free_are_repeats():
    pool = random_pool(2, "no")
    joint = jaxdesign.optimize(pool, LogDet(), Budget(12, 1), prior=PRIOR, annotators=Annotators([0.1, 0.1]), tol=1e-6)
    noisy = CompletionPool(pool.features, mask=pool.mask, flip=0.1)
    alone = jaxdesign.optimize(noisy, LogDet(), Budget(12, 2), prior=PRIOR, tol=1e-6)
    assert joint.certificate.value == pytest.approx(alone.certificate.value, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"flip": 0.1}, "annotators.flip: shape"),
        ({"flip": [0.1, 0.2], "cost": [1.0]}, "annotators.cost"),
        ({"flip": [0.1, 0.2], "at_most": [1.0, -1]}, "annotators.at_most: -1 for annotator 1"),
        ({"flip": [0.1, 0.2], "names": ["a", "a"]}, "different names"),
        ({"flip": [0.1, 0.6]}, "flip"),
    ],
)
def test_bad_annotators(arguments, words):
    with pytest.raises(ValueError, match=words):
        jaxdesign.optimize(random_pool(1), LogDet(), Budget(5), prior=PRIOR, annotators=Annotators(**arguments))


@pytest.mark.slow
def test_a_design_with_annotators_is_saved_and_loaded(tmp_path):
    people = Annotators([0.1, 0.2])
    design = jaxdesign.optimize(random_pool(1), LogDet(), Budget(5), prior=PRIOR, annotators=people)
    design.save(tmp_path / "design.npz")
    np.testing.assert_array_equal(jaxdesign.Design.load(tmp_path / "design.npz").annotators, design.annotators)
