"""All selectors of others: called like `select_pairs`, within budgets, honest certificates, seeds, errors by name."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxdesign
from jaxdesign import Budget, CompletionPool, Criterion, LogDet, Status, Trace, evaluate
from jaxdesign.baselines import SELECTORS, largest_distance
from tests.support.problems import (
    DIM,
    PROMPTS,
    criterion_of,
    information_of,
    random_arrays,
    random_pool,
    random_spd,
    written_out,
)

H, HELD = random_spd(1), random_spd(2) + 0.1 * np.eye(DIM)
RIDGE = 0.1 * np.eye(DIM)
BY_MARGIN = ("largest_score_gap", "closest_call")
DRAWN = ("random", "random_distinct", "first_two", "square_root", "t_pilaf")
ONE_A_ROUND = sorted(set(SELECTORS) - {"adpo", "bait"})  # by a score that labels do not change
every_selector = pytest.mark.parametrize("name", SELECTORS)
# bait and adpo pick in loops, which compile for every shape and every kind of scores
all_but_loops_daily = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ONE_A_ROUND else pytest.mark.slow) for name in SELECTORS]
)


@every_selector
def test_every_selector_is_called_like_select_pairs_and_documented(name):
    select = SELECTORS[name]
    assert select.__name__ == name and getattr(jaxdesign.baselines, name) is select
    found = list(inspect.signature(select).parameters.values())
    promised = list(inspect.signature(jaxdesign.select_pairs).parameters.values())[:5]
    assert [(p.name, p.kind, p.default) for p in found[:5]] == [(p.name, p.kind, p.default) for p in promised]
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY and p.default is not p.empty for p in found[5:])
    documentation = inspect.getdoc(select)
    assert all(part in documentation for part in ("gnores", "Args:", "Returns:", "Raises:", "Source:"))


@pytest.mark.thorough
@every_selector
@settings(max_examples=8)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(9, 16),
    st.sampled_from([None, 1, 2, 1.9, np.array([1, 2, 3, 1.5, 2, 4])]),
    st.sampled_from([None, 4, 4.5, np.array([3, 1, 1, 9, 5, 4.2])]),
)
def test_labels_are_whole_and_obey_the_budget(name, seed, total, per_pair, per_prompt):
    pool = random_pool(seed, "yes")
    design = SELECTORS[name](pool, LogDet(), Budget(total, per_pair, per_prompt), prior=0.5, seed=seed)
    pairs, labels = design.pairs, design.labels
    assert design.status is Status.EVALUATED and design.skipped_prompts == 1
    assert pairs.dtype == np.int32 and labels.dtype == np.float64
    assert labels.sum() == total and (labels == np.rint(labels)).all() and (labels >= 1).all()
    np.testing.assert_array_equal(pairs, np.unique(pairs, axis=0))
    mask = np.asarray(pool.mask)
    assert (pairs[:, 1] < pairs[:, 2]).all() and mask[pairs[:, [0]], pairs[:, 1:]].all()
    assert (
        labels <= np.broadcast_to(per_pair or np.inf if np.ndim(per_pair) == 0 else per_pair, PROMPTS)[pairs[:, 0]]
    ).all()
    quota = np.broadcast_to(per_prompt or np.inf if np.ndim(per_prompt) == 0 else per_prompt, PROMPTS)
    assert (np.bincount(pairs[:, 0], labels, PROMPTS) <= quota).all()


@pytest.mark.parametrize("name", ONE_A_ROUND)
def test_no_pair_has_a_second_label_before_every_pair_has_one(name):
    pool = random_pool(6, copies=False)
    design = SELECTORS[name](pool, LogDet(), Budget(100), prior=1.0)
    assert len(design.pairs) == len(written_out(pool)[0]) and design.labels.max() - design.labels.min() == 1


# ---- what a choice is judged to be worth


@every_selector
@pytest.mark.parametrize("target", [None, H], ids=["LogDet", "Trace"])
def test_the_certificate_is_that_of_the_choice(name, target):
    pool, budget = random_pool(3), Budget(12, per_pair=2)
    crit = LogDet() if target is None else Trace(target)
    design = SELECTORS[name](pool, crit, budget, prior=HELD)
    assert design.certificate == evaluate(pool, crit, budget, design.pairs, design.labels, HELD).certificate

    pairs, z, c = written_out(pool)
    index = {tuple(pair): k for k, pair in enumerate(pairs.tolist())}
    labels = np.zeros(len(pairs))
    for pair, n in zip(design.pairs.tolist(), design.labels, strict=True):
        labels[index.get(tuple(pair), 0)] += n if tuple(pair) in index else 0  # random draws copies too
    assert design.certificate.value == pytest.approx(criterion_of(information_of(z, c, labels, HELD), target), rel=1e-9)
    assert 0 < design.certificate.efficiency <= 1


@pytest.mark.parametrize(  # those that are loops of picks compile
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in ("adpo", "bait") else []) for name in sorted(SELECTORS)],
)
def test_baselines_are_judged_with_flips(name):
    pool = random_pool(8, "yes", "pair")
    design = SELECTORS[name](pool, Trace(H), Budget(10), prior=RIDGE)
    pairs, z, c = written_out(pool)
    index = {tuple(pair): k for k, pair in enumerate(pairs.tolist())}
    labels = np.zeros(len(pairs))
    labels[[index[tuple(pair)] for pair in design.pairs.tolist()]] = design.labels
    assert design.certificate.value == pytest.approx(criterion_of(information_of(z, c, labels, RIDGE), H), rel=1e-9)


@all_but_loops_daily
def test_a_singular_choice_has_value_inf_and_efficiency_0(name):
    few = SELECTORS[name](random_pool(0), LogDet(), Budget(DIM - 1, per_pair=1))
    assert few.certificate.value == np.inf and few.certificate.efficiency == 0.0
    assert few.certificate.lower_bound == -np.inf and few.labels.sum() == DIM - 1
    features, scores, mask = random_arrays(1)
    features = np.where(mask[..., None], np.round(8 * features), 0)
    features = features[..., :2] @ np.array([[1, 2, -3], [5, 1, 4]])  # a plane, without rounding
    flat = SELECTORS[name](CompletionPool(features, scores, mask), Trace(H), Budget(12))
    assert flat.certificate.value == np.inf and flat.certificate.efficiency == 0.0


def test_a_criterion_of_ones_own_is_judged_too():
    crit = Criterion(lambda A: jaxdesign.LogDet().value(A[None]))
    design = largest_distance(random_pool(0), crit, Budget(8), prior=1.0)
    assert design.certificate.value == pytest.approx(
        largest_distance(random_pool(0), LogDet(), Budget(8), prior=1.0).certificate.value, rel=1e-9
    )
    assert np.isnan(design.certificate.efficiency)
    total = Criterion(lambda A: -jnp.trace(A))  # finite at a singular matrix
    assert np.isfinite(largest_distance(random_pool(0), total, Budget(1)).certificate.value)


# ---- seeds, scores and errors


@every_selector
def test_the_same_seed_gives_the_same_choice(name):
    pool, budget = random_pool(4), Budget(10, per_pair=1)
    chosen = [SELECTORS[name](pool, LogDet(), budget, prior=1.0, seed=seed) for seed in (7, 7, 8, 9)]
    np.testing.assert_array_equal(chosen[0].pairs, chosen[1].pairs)
    np.testing.assert_array_equal(chosen[0].labels, chosen[1].labels)
    assert chosen[0].certificate == chosen[1].certificate
    others = {design.pairs.tobytes() for design in chosen}
    assert (len(others) > 1) == (name in DRAWN)


@all_but_loops_daily
def test_scores_with_draws_and_no_scores(name):
    design = SELECTORS[name](random_pool(5, "draws"), LogDet(), Budget(12, per_prompt=4), prior=HELD)
    assert design.labels.sum() == 12 and np.isfinite(design.certificate.value)
    if name in BY_MARGIN:
        with pytest.raises(ValueError, match=rf"pool\.scores: None found; {name} ranks pairs by their margin"):
            SELECTORS[name](random_pool(5, "no"), LogDet(), Budget(12))
    else:
        bare = SELECTORS[name](random_pool(5, "no"), LogDet(), Budget(12, per_prompt=4), prior=HELD)
        assert bare.labels.sum() == 12


@every_selector
def test_bad_input_is_named(name):
    pool, select = random_pool(0), SELECTORS[name]
    for seed in (1.0, True, "0"):
        with pytest.raises(TypeError, match="seed: expected an integer"):
            select(pool, LogDet(), Budget(5), seed=seed)
    with pytest.raises(ValueError, match="seed=-1: must be at least 0"):
        select(pool, LogDet(), Budget(5), seed=-1)
    with pytest.raises(ValueError, match=r"budget\.total=5\.5: whole labels are chosen here"):
        select(pool, LogDet(), Budget(5.5))
    with pytest.raises(ValueError, match=r"budget\.total=1000: the caps allow at most"):
        select(pool, LogDet(), Budget(1000, per_pair=1.5))
    with pytest.raises(TypeError, match=r"budget: expected jaxdesign\.Budget, found int"):
        select(pool, LogDet(), 5)
    with pytest.raises(TypeError, match="crit: expected"):
        select(pool, "logdet", Budget(5))
    with pytest.raises(TypeError, match="pool: expected"):
        select(np.zeros((2, 2, 2)), LogDet(), Budget(5))
