"""The selectors of others: picks by hand, by plain NumPy and by their laws; budgets, seeds, errors, honest values."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxdesign
from jaxdesign import Budget, CompletionPool, Criterion, LogDet, Status, Trace, evaluate, greedy, policy_target
from jaxdesign.baselines import (
    SELECTORS,
    adpo,
    apo,
    arm_fi,
    bait,
    closest_call,
    first_two,
    largest_distance,
    largest_score_gap,
    random,
    square_root,
    square_root_law,
    t_pilaf,
    t_pilaf_law,
)
from jaxdesign.baselines._common import groups
from jaxdesign.baselines.bait import backward
from jaxdesign.baselines.sampled import draw_labels
from jaxdesign.budget.limits import Limits
from jaxdesign.exact.random_pairs import random_pairs
from tests.support.problems import (
    COMPLETIONS,
    DIM,
    DRAWS,
    PROMPTS,
    criterion_of,
    information_of,
    random_arrays,
    random_pool,
    random_spd,
    sensitivities_of,
    stored,
    written_out,
)

H, HELD = random_spd(1), random_spd(2) + 0.1 * np.eye(DIM)
RIDGE = 0.1 * np.eye(DIM)
BY_MARGIN = ("largest_score_gap", "closest_call")
DRAWN = ("random", "first_two", "square_root", "t_pilaf")
ONE_A_ROUND = sorted(set(SELECTORS) - {"adpo", "bait"})  # by a score that labels do not change
every_selector = pytest.mark.parametrize("name", SELECTORS)
# bait and adpo pick in loops, which compile for every shape and every kind of scores
all_but_loops_daily = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ONE_A_ROUND else pytest.mark.slow) for name in SELECTORS]
)


def picks(select, pool, total, prior=1.0, crit=None, seed=0, **caps):
    """The pairs chosen, as a set of tuples."""
    caps = {"per_pair": 1} | caps
    design = select(pool, LogDet() if crit is None else crit, Budget(total, **caps), prior=prior, seed=seed)
    assert (design.labels == 1).all()
    return set(map(tuple, design.pairs.tolist()))


def by_hand(features, scores=None):
    """A small pool in the shape of `random_pool`, empty slots and zero dimensions around it: nothing is compiled anew.

    A list of vectors is a regression problem: prompt e offers the pair x_e and 0.
    """
    features = np.asarray(features, np.float32)
    if features.ndim == 2:
        features = np.stack([features, 0 * features], axis=1)
    prompts, completions, dim = features.shape
    whole, mask = np.zeros((PROMPTS, COMPLETIONS, DIM), np.float32), np.zeros((PROMPTS, COMPLETIONS), bool)
    whole[:prompts, :completions, :dim], mask[:prompts, :completions] = features, True
    u = np.zeros((PROMPTS, COMPLETIONS), np.float32)
    u[:prompts, :completions] = 0 if scores is None else scores
    return CompletionPool(whole, u, mask)


def first(*prompts):
    """Pairs of a regression problem."""
    return {(p, 0, 1) for p in prompts}


# ---- all of them


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


@pytest.mark.parametrize("name", ONE_A_ROUND)
def test_no_pair_has_a_second_label_before_every_pair_has_one(name):
    pool = random_pool(6, copies=False)
    design = SELECTORS[name](pool, LogDet(), Budget(100), prior=1.0)
    assert len(design.pairs) == len(written_out(pool)[0]) and design.labels.max() - design.labels.min() == 1


def test_a_criterion_of_ones_own_is_judged_too():
    crit = Criterion(lambda A: jaxdesign.LogDet().value(A[None]))
    design = largest_distance(random_pool(0), crit, Budget(8), prior=1.0)
    assert design.certificate.value == pytest.approx(
        largest_distance(random_pool(0), LogDet(), Budget(8), prior=1.0).certificate.value, rel=1e-9
    )
    assert np.isnan(design.certificate.efficiency)
    total = Criterion(lambda A: -jnp.trace(A))  # finite at a singular matrix
    assert np.isfinite(largest_distance(random_pool(0), total, Budget(1)).certificate.value)


# ---- chance


def test_random_is_random_pairs():
    pool, budget = random_pool(0), Budget(14, per_pair=1, per_prompt=5)
    design = random(pool, LogDet(), budget, prior=1.0, seed=3)
    pairs, labels = random_pairs(pool, budget, 3)
    np.testing.assert_array_equal(design.pairs, pairs)
    np.testing.assert_array_equal(design.labels, labels)


def test_first_two_by_hand():
    features = np.arange(24.0).reshape(4, 3, 2) ** 1.5
    features[1, 1] = features[1, 0]  # prompt 1: the first two are copies, so its first pair is (0, 2)
    features[2, 1] = features[2, 2]  # prompt 2: (0, 1) and (0, 2)
    pool = by_hand(features)
    pairs = {0: (0, 0, 1), 1: (1, 0, 2), 2: (2, 0, 1), 3: (3, 0, 1)}
    assert picks(first_two, pool, 4) == set(pairs.values())
    assert picks(first_two, pool, 8) == {*pairs.values(), (0, 0, 2), (1, 1, 2), (2, 0, 2), (3, 0, 2)}
    for seed in range(3):
        turn = [p for p in np.random.default_rng(seed).permutation(PROMPTS).tolist() if p < 4]
        for total in (1, 2, 3):
            assert picks(first_two, pool, total, seed=seed) == {pairs[p] for p in turn[:total]}


# ---- margins


def scored_pool():
    # gaps: prompt 0 has 3 (0, 1), 2 (1, 2), 1 (0, 2); prompt 1 has 0 (0, 1), 1 (0, 2), 1 (1, 2)
    return by_hand(np.random.default_rng(0).standard_normal((2, 3, 2)), [[0.0, 3, 1], [5, 5, 4]])


def test_largest_score_gap_by_hand():
    pool = scored_pool()
    order = [(0, 0, 1), (1, 0, 2), (0, 1, 2), (1, 1, 2), (0, 0, 2), (1, 0, 1)]
    for total in range(1, 7):
        assert picks(largest_score_gap, pool, total) == set(order[:total])
    assert picks(largest_score_gap, pool, 2, per_prompt=1) == {(0, 0, 1), (1, 0, 2)}


def test_closest_call_by_hand():
    pool = scored_pool()
    order = [(1, 0, 1), (0, 0, 2), (1, 0, 2), (1, 1, 2), (0, 1, 2), (0, 0, 1)]
    for total in range(1, 7):
        assert picks(closest_call, pool, total) == set(order[:total])
    assert picks(closest_call, pool, 3, per_prompt=2) == {(1, 0, 1), (0, 0, 2), (1, 0, 2)}


def test_margins_are_those_of_the_mean_scores():
    scores = np.zeros((DRAWS, PROMPTS, COMPLETIONS))
    scores[:, 3, :3] = [[0, 2, 7], [0, -2, 1], [0, 0, 4]]  # means 0, 0, 4
    mask = np.arange(PROMPTS)[:, None] == np.full(COMPLETIONS, 3)
    mask[3, 3:] = False
    pool = CompletionPool(random_arrays(0, ragged=False)[0], scores, mask)
    assert picks(closest_call, pool, 1) == {(3, 0, 1)}
    assert picks(largest_score_gap, pool, 1) == {(3, 0, 2)}  # ties with (3, 1, 2)


def test_values_that_differ_by_rounding_are_ties():
    values = np.array([0.1 + 0.2, 1.0, 0.3, 0.3 * (1 - 1e-6), 0.0, -0.0])
    np.testing.assert_array_equal(groups(values), [1, 0, 1, 2, 3, 3])


# ---- quadratic forms


def test_largest_distance_by_hand():
    pool = by_hand([[3, 0], [0, 4], [3, 4], [5, 0], [0, 1]])  # |z| = 3, 4, 5, 5, 1
    assert picks(largest_distance, pool, 1) == first(2)
    assert picks(largest_distance, pool, 3) == first(2, 3, 1)
    assert picks(largest_distance, pool, 4, prior=np.diag([100.0, 1.0, 1.0])) == first(2, 3, 1, 0)
    pool = by_hand([[[0], [1], [3]], [[0], [2], [2]]])
    assert picks(largest_distance, pool, 2) == {(0, 0, 2), (0, 1, 2)}
    assert picks(largest_distance, pool, 2, per_prompt=1) == {(0, 0, 2), (1, 0, 1)}


def test_the_batch_rules_differ_as_their_papers_say():
    # long differences along one axis, short ones along the other; c = 1/4, held information I
    pool = by_hand([[3, 0], [2.9, 0], [2.8, 0], [0, 2]])
    assert picks(largest_distance, pool, 2) == first(0, 1)
    assert picks(apo, pool, 2) == first(0, 1)  # 9, 8.41, 7.84, 4: the second label is thought as good as the first
    assert picks(adpo, pool, 2) == first(0, 3)  # after (3, 0) the others have leverage 8.41 / 13, the last one 1
    assert picks(apo, pool, 2, prior=np.diag([9.0, 1.0, 1.0])) == first(3, 0)  # 1, 0.93, 0.87, 4
    # all together diag(1 + 25.25 / 4, 1 + 1): c z^2 / that is 0.308, 0.288, 0.268, 0.5
    assert picks(arm_fi, pool, 1) == first(3)
    assert picks(arm_fi, pool, 2) == first(3, 0)


def test_label_information_counts_where_the_rule_says_so():
    pool = by_hand([[3.0], [2], [2.5]], [[6.0, 0], [0, 0], [0, 0]])  # c = 0.0025 for the first pair, a hundredth
    for select in (largest_distance, apo):
        assert picks(select, pool, 2) == first(0, 2)
    for select in (arm_fi, adpo, bait):
        assert picks(select, pool, 2) == first(1, 2)


@pytest.mark.parametrize("scores", ["no", "yes", "draws"])
def test_apo_and_arm_fi_take_the_largest_forms(scores):
    for seed in range(3):
        pool = random_pool(seed, scores, copies=False)
        pairs, z, c = written_out(pool)
        held = np.broadcast_to(HELD, (len(c), DIM, DIM))
        ridge = 1e-5 * np.trace(HELD) / DIM * np.eye(DIM)
        by_apo = np.einsum("sd,de,se->s", z, np.linalg.inv(HELD + ridge), z)
        everything = information_of(z, c, np.ones(len(pairs)), held)
        ridge = 1e-6 * np.trace(everything - held, axis1=1, axis2=2)[:, None, None] / DIM * np.eye(DIM)
        by_arm_fi = sensitivities_of(z, c, np.linalg.inv(everything + ridge))
        for select, forms in ((apo, by_apo), (arm_fi, by_arm_fi)):
            best = pairs[np.argsort(-forms, kind="stable")[:9]]
            assert picks(select, pool, 9, HELD) == set(map(tuple, best.tolist()))


def test_a_singular_prior_still_ranks():
    pool = by_hand([[3, 0], [2, 2], [0, 1]])
    assert picks(apo, pool, 2, np.diag([1.0, 0, 0])) == first(1, 2)  # what has a part along the second axis


def test_adpo_makes_the_picks_of_greedy():
    for prior, crit in ((HELD, LogDet()), (None, Trace(H))):
        pool = random_pool(8)
        expected, _ = greedy(pool, LogDet(), size=16, per_pair=1, prior=prior)
        assert picks(adpo, pool, 16, prior, crit) == set(map(tuple, np.asarray(expected).tolist()))


def forward_backward(pool, target, total, prior):
    """BAIT written out: every value from a fresh inverse. Pairs as a set of tuples."""
    pairs, z, c = written_out(pool)

    def value(chosen):
        labels = np.isin(np.arange(len(pairs)), chosen).astype(float)
        return criterion_of(information_of(z, c, labels, prior), target)

    chosen = []
    for _ in range(min(2 * total, len(pairs))):
        open_pairs = [k for k in range(len(pairs)) if k not in chosen]
        chosen.append(min(open_pairs, key=lambda k: value([*chosen, k])))
    forward = set(map(tuple, pairs[chosen[:total]].tolist()))
    while len(chosen) > total:
        chosen.remove(min(chosen, key=lambda k: value([other for other in chosen if other != k])))
    return set(map(tuple, pairs[chosen].tolist())), forward


@pytest.mark.parametrize("scores", ["no", "yes", "draws"])
def test_bait_goes_forward_and_back(scores):
    for seed in range(4):
        pool = random_pool(seed, scores, copies=False)
        _, z, c = written_out(pool)
        everything = information_of(z, c, np.ones(len(z))).mean(axis=0)
        assert picks(bait, pool, 9, HELD, Trace(H)) == forward_backward(pool, H, 9, HELD)[0]
        assert picks(bait, pool, 9, HELD, LogDet()) == forward_backward(pool, everything, 9, HELD)[0]
        named = bait(pool, Trace(H), Budget(9, per_pair=1), prior=HELD, target=everything)
        assert set(map(tuple, named.pairs.tolist())) == forward_backward(pool, everything, 9, HELD)[0]


def test_bait_by_hand():
    # c z z^T = diag(1, 0), diag(0, 1), 0.6 in each entry of the third; held I. tr A^-1 of the first two dimensions:
    # one label 1.5, 1.5, 3.2 / 2.2 = 1.45; the third and the first 4.2 / 3.8 = 1.11; all three taken, then going back
    # without the third 1, without the first 1.11
    pool = by_hand([[2, 0], [0, 2], [2 * 0.6**0.5] * 2])
    assert picks(bait, pool, 2, 1.0, Trace(np.eye(DIM))) == first(0, 1)
    assert forward_backward(pool, np.eye(DIM), 2, np.eye(DIM)) == (first(0, 1), first(2, 0))


def test_going_back_takes_the_label_of_least_loss_each_time():
    rng = np.random.default_rng(0)
    z, c, labels = rng.standard_normal((60, DIM)), rng.random((2, 60)), rng.integers(1, 6, 60).astype(float)
    start = information_of(z, c, labels, HELD)
    expected = labels.copy()
    for left in range(int(labels.sum()) - 1, 9, -1):  # some 170 labels: past two refactorisations
        values = [criterion_of(information_of(z, c, expected - one, HELD), H) for one in np.eye(60)]
        expected[np.argmin(np.where(expected > 0, values, np.inf))] -= 1
        if left % 25 == 0:
            np.testing.assert_array_equal(backward(start, H, z, c, labels, left), expected)


def test_bait_refuses_a_target_that_is_none():
    with pytest.raises(ValueError, match=r"target: shape \(2, 2\) found; expected \(3, 3\)"):
        bait(random_pool(0), LogDet(), Budget(5), target=np.eye(2))


# ---- laws


def test_laws_by_hand():
    # pi = 1, 2, 4 sevenths; with beta = 1 the T-PILAF weight is (pi_i + pi_j)^2
    pool = CompletionPool(np.eye(3)[None], np.log([[1.0, 2, 4]]))
    roots, pilaf = np.array([2**0.5, 2, 8**0.5]), np.array([9.0, 25, 36])
    upper = ([0, 0, 0], [0, 0, 1], [1, 2, 2])
    np.testing.assert_allclose(square_root_law(pool)[upper], roots / roots.sum(), rtol=1e-6)
    np.testing.assert_allclose(t_pilaf_law(pool)[upper], pilaf / pilaf.sum(), rtol=1e-6)
    # beta = 1/2 squares the policy: 1, 4, 16; the margins stay
    pilaf = np.array([4 * 4.5, 16 * 6.25, 64 * 4.5])
    np.testing.assert_allclose(t_pilaf_law(pool, beta=0.5)[upper], pilaf / pilaf.sum(), rtol=1e-6)
    np.testing.assert_allclose(square_root_law(pool, log_weights=np.zeros((1, 3)))[upper], 1 / 3, rtol=1e-12)


@pytest.mark.parametrize("law", [square_root_law, t_pilaf_law])
@pytest.mark.parametrize("scores", ["no", "yes", "draws"])
def test_laws_are_laws(law, scores):
    pool = random_pool(2, scores)
    found, pairs = law(pool, beta=0.3), written_out(pool)[0]
    np.testing.assert_array_equal(found, found.swapaxes(1, 2))
    assert found[tuple(pairs.T)].sum() == pytest.approx(1, rel=1e-12) and (found[tuple(pairs.T)] > 0).all()
    assert np.count_nonzero(found) == 2 * len(pairs)  # none at masked completions and copies


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1.0, 5.0]))
def test_the_t_pilaf_law_makes_the_information_proportional_to_H(seed, beta):
    pool = random_pool(seed)
    pairs, z, c = written_out(pool)
    features, scores, mask = stored(pool)
    law = t_pilaf_law(pool, beta=beta)[tuple(pairs.T)]
    found = information_of(z, c, law)[0]

    logits = np.where(mask, scores[0] / beta, -np.inf)
    policy = np.exp(logits - logits.max(axis=1, keepdims=True))
    policy /= policy.sum(axis=1, keepdims=True)
    features = np.where(mask[..., None], features, 0)
    centred = features - np.einsum("pk,pkd->pd", policy, features)[:, None]
    target = np.einsum("pk,pkd,pke->de", policy, centred, centred) / PROMPTS
    p, i, j = pairs.T
    copies = 1 / c[0]  # 2 + e^D + e^-D
    constant = PROMPTS / np.sum(policy[p, i] * policy[p, j] * copies)
    np.testing.assert_allclose(found, constant * target, rtol=1e-9, atol=1e-12 * np.abs(found).max())
    if beta == 1.0:
        np.testing.assert_allclose(
            target, policy_target(pool, pool.scores), rtol=2e-4, atol=1e-4 * np.abs(target).max()
        )


def test_normalised_prompt_by_prompt_it_would_not_be():
    pool = random_pool(0)
    pairs, z, c = written_out(pool)
    law = t_pilaf_law(pool)[tuple(pairs.T)]
    joint = information_of(z, c, law)[0]
    single = information_of(z, c, law / np.bincount(pairs[:, 0], law)[pairs[:, 0]])[0]
    assert np.abs(single / single[0, 0] - joint / joint[0, 0]).max() > 0.1


def test_laws_survive_large_margins_and_constants():
    features, scores, mask = random_arrays(1)
    pool = CompletionPool(features, 500 * scores, mask)
    law = t_pilaf_law(pool)
    assert np.isfinite(law).all() and law.sum() == pytest.approx(2, rel=1e-9)
    assert square_root(pool, LogDet(), Budget(30, per_pair=1), prior=1.0).labels.sum() == 30
    shifted = CompletionPool(features, np.round(scores * 64) / 64 + np.arange(PROMPTS)[:, None], mask)
    plain = CompletionPool(features, np.round(scores * 64) / 64, mask)
    np.testing.assert_allclose(t_pilaf_law(shifted), t_pilaf_law(plain), rtol=1e-12)


def test_with_draws_the_law_is_the_mean_of_the_laws():
    features, scores, mask = random_arrays(3, draws=DRAWS)
    single = [t_pilaf_law(CompletionPool(features, u, mask), beta=2.0) for u in scores]
    np.testing.assert_allclose(t_pilaf_law(CompletionPool(features, scores, mask), beta=2.0), np.mean(single, axis=0))


def test_log_weights_are_a_policy_like_any_other():
    pool = random_pool(4)
    logits = np.asarray(pool.scores) / 0.5
    np.testing.assert_allclose(square_root_law(pool, log_weights=logits), square_root_law(pool, beta=0.5), rtol=1e-5)
    for select in (square_root, t_pilaf):
        one = select(pool, LogDet(), Budget(9), prior=1.0, seed=2, log_weights=logits)
        two = select(pool, LogDet(), Budget(9), prior=1.0, seed=2, beta=0.5)
        np.testing.assert_array_equal(one.pairs, two.pairs)


def test_bad_arguments_of_laws_are_named():
    pool = random_pool(0)
    for law in (square_root_law, t_pilaf_law):
        with pytest.raises(ValueError, match="beta=0: must be positive and finite"):
            law(pool, beta=0)
        with pytest.raises(ValueError, match=r"log_weights: shape \(5, 6\) found"):
            law(pool, log_weights=np.zeros((5, 6)))
        with pytest.raises(ValueError, match="log_weights: nan at prompt 0, completion 0"):
            law(pool, log_weights=np.full((6, 5), np.nan))
    with pytest.raises(ValueError, match="features: all completions of every prompt are identical"):
        t_pilaf_law(CompletionPool(np.ones((2, 3, 2))))


def test_pairs_are_drawn_with_the_probabilities_of_the_law():
    weights = np.array([0.5, 0.2, 0.15, 0.1, 0.05])
    pairs = np.column_stack([np.arange(5), np.zeros(5, int), np.ones(5, int)]).astype(np.int32)
    rng, draws = np.random.default_rng(0), 4000
    for total in (1, 2):
        limits = Limits(float(total), np.ones(5), np.full(5, np.inf))
        share = sum(draw_labels(limits, pairs, np.log(weights), rng) for _ in range(draws)) / draws
        expected = weights.copy()
        if total == 2:  # first, or second after another
            expected += [sum(weights[f] * weights[e] / (1 - weights[f]) for f in range(5) if f != e) for e in range(5)]
        assert (np.abs(share - expected) <= 5 * np.sqrt(expected * (1 - expected) / draws)).all()


def test_a_quota_passes_pairs_over():
    pairs = np.array([[0, 0, 1], [0, 0, 2], [1, 0, 1]], np.int32)
    limits = Limits(2.0, np.ones(2), np.array([1.0, np.inf]))
    labels = draw_labels(limits, pairs, np.log([0.5, 0.49, 0.01]), np.random.default_rng(0))
    assert labels[2] == 1 and labels[:2].sum() == 1
