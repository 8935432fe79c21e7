"""select_pairs: whole, allowed, never better than the bound, and as good as enumeration allows to check."""

from itertools import combinations, combinations_with_replacement

import jax.numpy as jnp
import numpy as np
import pytest

import jaxdesign
from jaxdesign import Budget, CompletionPool, Criterion, Design, LogDet, Status, Trace, select_pairs
from jaxdesign.door import make_problem
from jaxdesign.exact import candidates
from tests.support.problems import (
    DIM,
    PROMPTS,
    criterion_of,
    information_of,
    random_arrays,
    random_pool,
    random_spd,
    regression_pool,
    written_out,
)

TARGET = random_spd(2)
QUOTA = np.array([3, 9, 1, 3, 5, 4])

CASES = {
    "LogDet": (None, {"total": 20}, None, "yes"),
    "LogDet, one a pair, prior": (None, {"total": 20, "per_pair": 1}, 0.5, "yes"),
    "LogDet, caps and quotas, draws": (None, {"total": 15, "per_pair": 2, "per_prompt": QUOTA}, 0.1, "draws"),
    "Trace, one a pair": (TARGET, {"total": 20, "per_pair": 1}, None, "yes"),
}
every_case = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if "draws" in name else []) for name in CASES]
)


def criterion_with(H):
    return LogDet() if H is None else Trace(H)


@pytest.mark.slow
@every_case
def test_labels_are_whole_and_allowed_and_the_certificate_is_true(name):
    H, limits, prior, scores = CASES[name]
    pool, budget = random_pool(1, scores), Budget(**limits)
    batch = select_pairs(pool, criterion_with(H), budget, prior=prior)
    assert batch.status is Status.EXACT
    assert batch.labels.dtype == np.float64 and batch.pairs.dtype == np.int32
    assert (
        batch.labels.sum() == budget.total
        and (batch.labels == np.rint(batch.labels)).all()
        and (batch.labels > 0).all()
    )
    assert (batch.labels <= limits.get("per_pair", np.inf)).all()
    spent = np.bincount(batch.pairs[:, 0], weights=batch.labels, minlength=PROMPTS)
    assert (spent <= limits.get("per_prompt", np.inf)).all()
    np.testing.assert_array_equal(batch.pairs, batch.pairs[np.lexsort(batch.pairs.T[::-1])])

    pairs, z, c = written_out(pool)
    index = {tuple(pair): k for k, pair in enumerate(pairs.tolist())}
    labels = np.zeros(len(pairs))
    labels[[index[tuple(pair)] for pair in batch.pairs.tolist()]] = batch.labels
    matrix = information_of(z, c, labels, (prior or 0) * np.eye(DIM))
    found = batch.certificate
    np.testing.assert_allclose(found.value, criterion_of(matrix, H), rtol=1e-9, atol=1e-9)
    assert found.lower_bound <= found.value and found.gap == found.value - found.lower_bound
    assert 0 < found.efficiency <= 1
    relaxed = batch.report["relaxed"]
    np.testing.assert_allclose(relaxed["lower_bound"], found.lower_bound, rtol=1e-12)  # the least of it and the value
    assert found.lower_bound <= relaxed["value"]  # which whole labels may beat: it is only solved to tol
    assert relaxed["status"] == "CERTIFIED" and relaxed["efficiency"] >= 0.999


@pytest.mark.thorough
@every_case
def test_the_report_tells_of_every_candidate_and_names_the_best(name):
    H, limits, prior, scores = CASES[name]
    batch = select_pairs(random_pool(1, scores), criterion_with(H), Budget(**limits), prior=prior)
    told = batch.report["candidates"]
    greedy = {"greedy"} if H is None else {"greedy", "greedy_logdet"}
    exchanged = {way for way in told if way.split("_")[0] == "exchange"}
    assert set(told) <= greedy | exchanged | {"best_set", "largest_remainder", "adams", "dependent"}
    assert all(told[way]["start"] in set(told) - exchanged for way in exchanged)
    rounded = [row["efficiency"] for way, row in told.items() if way not in greedy | exchanged]
    assert greedy & set(told) == (set() if max(rounded) >= 0.999 else greedy)
    assert min(told, key=lambda way: told[way]["value"]) == batch.report["method"]
    assert told[batch.report["method"]]["value"] == batch.certificate.value
    for row in told.values():
        assert row["seconds"] >= 0 and row["efficiency"] <= batch.certificate.efficiency
    assert all(told[way]["prompts"] == PROMPTS for way in greedy & set(told))
    assert isinstance(batch.report["relaxed"]["value"], float)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["LogDet", pytest.param("Trace", marks=pytest.mark.slow)])
@pytest.mark.parametrize("per_pair", [None, 1])
def test_enumeration_finds_nothing_below_the_bound(name, per_pair):
    """And the choice is no further from the best one than its efficiency says."""
    H = None if name == "LogDet" else TARGET
    prior = 0.1
    for seed in range(3):
        pool = random_pool(20 + seed, "yes")
        _, z, c = written_out(pool)
        ways = combinations(range(len(z)), 3) if per_pair == 1 else combinations_with_replacement(range(len(z)), 3)
        outer = np.einsum("s,sd,se->sde", c[0], z, z)
        matrices = prior * np.eye(DIM) + outer[np.array(list(ways))].sum(axis=1)
        if H is None:
            best = -np.linalg.slogdet(matrices)[1].max()
        else:
            best = np.trace(np.linalg.solve(matrices, H[None]), axis1=1, axis2=2).min()
        found = select_pairs(pool, criterion_with(H), Budget(3, per_pair), prior=prior).certificate
        assert found.lower_bound <= best + 1e-9
        assert found.value >= best - 1e-9
        efficiency = np.exp(-(found.value - best) / DIM) if H is None else best / found.value
        assert found.efficiency <= efficiency + 1e-9
        assert efficiency >= 0.8  # three labels in three dimensions: greedy finds the best or nearly so


def test_a_known_best_whole_design_is_found():
    # LogDet on three saturated points, 9 labels: 3 each (by symmetry of det in the labels), bound met exactly
    pool = regression_pool([[1.0, 2, 0], [0, 1, 1], [1, 0, 3]])
    batch = select_pairs(pool, LogDet(), Budget(9), tol=1e-6)
    np.testing.assert_array_equal(batch.labels, [3, 3, 3])
    assert batch.certificate.efficiency > 1 - 1e-6


@pytest.mark.thorough
def test_the_result_depends_on_the_arguments_only():
    pool, budget = random_pool(1), Budget(20)
    first, second = (select_pairs(pool, LogDet(), budget, seed=seed) for seed in (7, 7))
    np.testing.assert_array_equal(first.pairs, second.pairs)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.certificate == second.certificate


def test_a_given_design_is_certified_anew():
    pool, budget = random_pool(1), Budget(20)
    solved = jaxdesign.optimize(pool, LogDet(), budget)
    lie = Design(solved.pairs, solved.labels, solved.certificate._replace(lower_bound=1e9), solved.status)
    batch = select_pairs(pool, LogDet(), budget, design=lie)
    assert batch.certificate.lower_bound <= batch.certificate.value
    plain = select_pairs(pool, LogDet(), budget)
    np.testing.assert_allclose(batch.certificate.value, plain.certificate.value, rtol=1e-9)
    np.testing.assert_allclose(batch.certificate.lower_bound, plain.certificate.lower_bound, atol=5e-3)


def test_caps_that_are_not_whole_count_as_rounded_down():
    pool = random_pool(1, "yes")
    batch = select_pairs(pool, LogDet(), Budget(20, per_pair=1.9), prior=0.1)
    assert batch.labels.max() == 1


@pytest.mark.thorough
def test_a_pool_too_large_for_greedy_is_searched_where_the_design_has_its_labels(monkeypatch):
    pool, budget = random_pool(1), Budget(20)
    whole = select_pairs(pool, LogDet(), budget)
    monkeypatch.setattr(
        candidates, "GREEDY_WORK", 0.7 * candidates.work(make_problem(pool, LogDet(), budget), LogDet())
    )
    part = select_pairs(pool, LogDet(), budget)
    assert part.report["candidates"]["greedy"]["prompts"] == 4  # the power of two below 0.7 x 6
    assert part.certificate.value <= min(row["value"] for row in part.report["candidates"].values())
    assert part.certificate.lower_bound == whole.certificate.lower_bound
    monkeypatch.setattr(candidates, "GREEDY_WORK", 1e-9)
    assert "greedy" not in select_pairs(pool, LogDet(), budget).report["candidates"]


@pytest.mark.slow
def test_a_users_criterion():
    user = Criterion(lambda A: jnp.trace(jnp.linalg.inv(A)))
    batch = select_pairs(random_pool(1), user, Budget(20), prior=0.1)
    assert batch.labels.sum() == 20 and np.isnan(batch.certificate.efficiency)
    assert batch.certificate.lower_bound <= batch.certificate.value


def test_a_callback_sees_every_pass_and_may_stop_the_solver():
    rows = []
    batch = select_pairs(random_pool(1), LogDet(), Budget(20), callback=lambda row: rows.append(row) or True)
    assert len(rows) == 1 and batch.report["relaxed"]["status"] in ("STOPPED_BY_CALLBACK", "CERTIFIED")
    assert batch.trace == tuple(rows) and batch.status is Status.EXACT


def test_a_batch_is_saved_and_loaded_unchanged(tmp_path):
    batch = select_pairs(random_pool(1), LogDet(), Budget(20))
    batch.save(tmp_path / "batch.npz")
    again = Design.load(tmp_path / "batch.npz")
    np.testing.assert_array_equal(again.pairs, batch.pairs)
    assert again.report == batch.report and again.certificate == batch.certificate and again.status is Status.EXACT


def test_names_and_skipped_prompts_are_those_of_the_pool():
    batch = select_pairs(random_pool(1), LogDet(), Budget(20))
    assert batch.skipped_prompts == 1 and not (batch.pairs[:, 0] == 2).any()


BAD = {
    "a total that is not whole": (
        ValueError, r"budget\.total=12.5: whole labels are chosen here.*such as 12", {"budget": Budget(12.5)},
    ),
    "a budget of another kind": (TypeError, "budget: expected jaxdesign.Budget, found int", {"budget": 20}),
    "a pool of another kind": (TypeError, "pool: expected jaxdesign.CompletionPool", {"pool": np.zeros((2, 2, 2))}),
    "a criterion class": (TypeError, r"crit: expected LogDet\(\)", {"crit": LogDet}),
    "a negative seed": (ValueError, "seed=-1: must be at least 0", {"seed": -1}),
    "a seed of another kind": (TypeError, "seed: expected an integer, found float", {"seed": 0.5}),
    "a design of another kind": (TypeError, "design: expected a jaxdesign.Design, found tuple", {"design": ()}),
    "fewer labels than dimensions": (
        ValueError, "with a prior of rank 0 .* singular in 3 dimensions; at least 3", {"budget": Budget(2)},
    ),
    "fewer labels than the prior leaves open": (
        ValueError, "with a prior of rank 1 .* at least 2", {"budget": Budget(1), "prior": np.diag([1.0, 0, 0])},
    ),
    "more labels than whole caps hold": (
        ValueError, "budget.total=60: the caps allow at most", {"budget": Budget(60, per_pair=1.9)},
    ),
    "a tolerance out of range": (ValueError, "tol=2: must be", {"tol": 2}),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    kind, text, changed = BAD[name]
    arguments = {"pool": random_pool(1), "crit": LogDet(), "budget": Budget(20), **changed}
    with pytest.raises(kind, match=text):
        select_pairs(arguments.pop("pool"), arguments.pop("crit"), arguments.pop("budget"), **arguments)


def test_a_design_of_another_budget_is_refused():
    pool = random_pool(1)
    other = jaxdesign.optimize(pool, LogDet(), Budget(10))
    with pytest.raises(ValueError, match=r"labels: they sum to 10, but budget\.total=20"):
        select_pairs(pool, LogDet(), Budget(20), design=other)


def test_labels_that_cannot_make_the_information_regular_are_named():
    # one prompt offers each direction once and a quota of one label a prompt allows two of three directions only
    features = np.zeros((2, 3, 3), np.float32)
    features[0, :2, 0], features[0, 1, 1] = [1, 2], 1
    features[0, 2] = [0, 0, 1]
    features[1] = features[0]
    with pytest.raises(ValueError, match="singular"):
        select_pairs(CompletionPool(features), LogDet(), Budget(2, per_prompt=1))


@pytest.mark.slow
def test_features_of_float64_inside_a_float64_scope(float64_scope):
    features, u, mask = random_arrays(1)
    pool = CompletionPool(features.astype(np.float64), u.astype(np.float64), mask)
    batch = select_pairs(pool, LogDet(), Budget(20), tol=1e-6)
    assert batch.labels.sum() == 20 and batch.report["relaxed"]["efficiency"] >= 1 - 1e-6


def test_methods_may_be_named_and_the_published_recipe_only_then():
    pool, budget = random_pool(1), Budget(12, 1)
    named = ("drawn", "drawn_by_prompt", "dependent")
    batch = select_pairs(pool, LogDet(), budget, prior=0.1, methods=named)
    assert set(batch.report["candidates"]) == set(named)
    assert batch.labels.sum() == 12 and batch.report["method"] in named
    plain = select_pairs(pool, LogDet(), budget, prior=0.1)
    assert not {"drawn", "drawn_by_prompt"} & set(plain.report["candidates"])
    assert plain.certificate.value <= batch.certificate.value + 1e-9
    with pytest.raises(ValueError, match=r"methods: \['best'\] found; choose of best_set"):
        select_pairs(pool, LogDet(), budget, prior=0.1, methods=["best"])
