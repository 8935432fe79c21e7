"""Two criteria of a user's own, one class each: everything works with them, by public names only.

Kiefer's phi_2, (tr A^-2 / d)^(1/2), and D_s, -log det A + log det A_22: D-optimality for the first s parameters where
the others are nuisance.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdesign as jd
from jaxdesign import ConvexCriterion


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PhiTwo(ConvexCriterion):
    """(tr A^-2 / d)^(1/2)."""

    degree: ClassVar = -1
    infinite_where_singular: ClassVar = True

    def value(self, information):
        inverse = jnp.linalg.inv(information)
        return jnp.mean(jnp.sqrt(jnp.sum(inverse * inverse, axis=(-2, -1)) / information.shape[-1]))

    def expression(self, cvxpy, information):
        dim = information.shape[0]
        X = cvxpy.Variable((dim, dim), symmetric=True)  # at least A^-1
        above = cvxpy.bmat([[X, np.eye(dim)], [np.eye(dim), information]]) >> 0
        return cvxpy.norm(X, "fro") / dim**0.5, [above]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DS(ConvexCriterion):
    """-log det A + log det A_22 = -log det of the information about the first s parameters."""

    degree: ClassVar = 0
    infinite_where_singular: ClassVar = True

    count: int = field(metadata={"static": True})

    def size(self, dim):
        return float(self.count)

    def value(self, information):
        rest = information[..., self.count :, self.count :]
        return jnp.mean(jnp.linalg.slogdet(rest)[1] - jnp.linalg.slogdet(information)[1])

    def expression(self, cvxpy, information):
        S = cvxpy.Variable((self.count, self.count), symmetric=True)  # at most the Schur complement
        pad = np.eye(information.shape[0])[:, : self.count]
        below = information - pad @ S @ pad.T >> 0
        return -cvxpy.log_det(S), [below]


DIM = 4
CRITERIA = {"phi_2": PhiTwo(), "D_s": DS(2)}
BUDGETS = {
    "repeats": jd.Budget(20.0),
    "caps": jd.Budget(20.0, per_pair=1, per_prompt=3),
    "groups": jd.Budget(20.0, per_pair=2, quotas=jd.Quota([0, 1] * 4, at_most={0: 6.0})),
}
PRIOR = 0.05 * np.eye(DIM)
SECOND_IN_SLOW = ["phi_2", pytest.param("D_s", marks=pytest.mark.slow)]  # a second class compiles everything again


def by_hand(name, matrix):
    if name == "phi_2":
        return np.mean([np.sqrt(np.trace(np.linalg.matrix_power(np.linalg.inv(A), 2)) / DIM) for A in matrix])
    schur = [A[:2, :2] - A[:2, 2:] @ np.linalg.solve(A[2:, 2:], A[2:, :2]) for A in matrix]
    return -np.mean([np.log(np.linalg.det(S)) for S in schur])


def pool(draws=None, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((8, 4, DIM)).astype(np.float32)
    scores = None if draws is None else rng.standard_normal((draws, 8, 4)).astype(np.float32)
    return jd.CompletionPool(features, scores)


def information(pool, design, prior=PRIOR):
    p, i, j = design.pairs.T
    z = np.asarray(pool.features, np.float64)[p, i] - np.asarray(pool.features, np.float64)[p, j]
    c = np.full((1, len(p)), 0.25)
    if pool.scores is not None:
        u = np.asarray(pool.scores, np.float64)
        c = 1 / (2 + 2 * np.cosh(u[:, p, i] - u[:, p, j]))
    return prior + np.einsum("rs,sd,se->rde", c * design.labels, z, z)


def best(name, limits, draws=None):
    return jd.reference.optimize(pool(draws), CRITERIA[name], BUDGETS[limits], PRIOR)


@pytest.mark.slow
@pytest.mark.parametrize("limits", BUDGETS)
@pytest.mark.parametrize("name", CRITERIA)
def test_the_reference_solves_them_by_their_own_expression(name, limits):
    found = best(name, limits)
    assert found.certificate.efficiency > 1 - 1e-5
    assert found.certificate.value == pytest.approx(by_hand(name, information(pool(), found)), rel=1e-9)


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("limits", ["repeats", "caps"])
@pytest.mark.parametrize(
    "solver", ["column_generation", "frank_wolfe", "interior_point", "matrix_atoms", "multiplicative"]
)
@pytest.mark.parametrize("name", SECOND_IN_SLOW)
def test_every_solver_certifies_them(name, solver, limits):
    design = jd.optimize(pool(), CRITERIA[name], BUDGETS[limits], prior=PRIOR, solver=solver)
    assert design.status is jd.Status.CERTIFIED
    assert design.certificate.value == pytest.approx(by_hand(name, information(pool(), design)), rel=1e-9)
    truth = best(name, limits).certificate.value
    assert design.certificate.lower_bound <= truth + 1e-9 * abs(truth)
    ratio = np.exp((truth - design.certificate.value) / 2) if name == "D_s" else truth / design.certificate.value
    assert ratio >= 1 - 1.1e-3


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["frank_wolfe", "multiplicative"])
@pytest.mark.parametrize("name", SECOND_IN_SLOW)
def test_they_have_an_efficiency_inside_of_jit(name, solver):
    run = jax.jit(
        lambda pool: getattr(jd.solvers, solver)(pool, CRITERIA[name], BUDGETS["caps"], prior=PRIOR, passes=200)
    )
    _, certificate = run(pool())
    assert 0.97 < float(certificate.efficiency) <= 1
    truth = best(name, "caps").certificate.value
    assert float(certificate.lower_bound) <= truth + 1e-6 * abs(truth)


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.slow
def test_draws_and_units_of_columns(name):
    drawn = pool(3)
    design = jd.optimize(drawn, CRITERIA[name], BUDGETS["caps"], prior=PRIOR, tol=1e-5)
    assert design.certificate.value == pytest.approx(by_hand(name, information(drawn, design)), rel=1e-9)
    assert design.certificate.lower_bound <= best(name, "caps", 3).certificate.value + 1e-9
    units = np.float64([1e6, 1, 1e-6, 1])
    scaled = jd.CompletionPool(np.asarray(drawn.features) * units.astype(np.float32), drawn.scores)
    other = jd.optimize(scaled, CRITERIA[name], BUDGETS["caps"], prior=PRIOR * units[:, None] * units, tol=1e-5)
    if name == "D_s":  # phi_2 depends on units; D_s shifts by a constant
        shift = -2 * np.log(units[:2]).sum()
        assert other.certificate.value == pytest.approx(design.certificate.value + shift, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("limits", BUDGETS)
@pytest.mark.parametrize("name", SECOND_IN_SLOW)
def test_whole_labels_by_greedy_and_exchange(name, limits):
    chosen = jd.select_pairs(pool(), CRITERIA[name], BUDGETS[limits], prior=PRIOR, tol=1e-9)
    told = chosen.report["candidates"]
    assert "exchange" in told and ("greedy" in told or limits == "groups")
    assert chosen.certificate.value == pytest.approx(by_hand(name, information(pool(), chosen)), rel=1e-9)
    assert chosen.certificate.lower_bound <= best(name, limits).certificate.value + 1e-9
    assert chosen.certificate.efficiency > 0.9
    again = jd.evaluate(pool(), CRITERIA[name], BUDGETS[limits], chosen.pairs, chosen.labels, PRIOR)
    assert again.certificate.value == pytest.approx(chosen.certificate.value, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", CRITERIA)
def test_exchange_leaves_no_swap_among_all_pairs_that_helps(name):
    """Enumerated: on a small pool exchange by values ends where no label moved from a pair to another helps."""
    small = pool(seed=3)
    budget = jd.Budget(8.0, per_pair=1)
    chosen = jd.select_pairs(small, CRITERIA[name], budget, prior=PRIOR, methods=["best_set", "exchange"])
    every = [(p, i, j) for p in range(8) for i in range(4) for j in range(i + 1, 4)]
    taken = [tuple(pair) for pair in chosen.pairs.tolist()]

    def value(pairs):
        rows = np.array(pairs)
        made = jd.Design(rows, np.ones(len(rows)), chosen.certificate, chosen.status)
        return by_hand(name, information(small, made))

    for k in range(len(taken)):
        for pair in set(every) - set(taken):
            assert value([*taken[:k], pair, *taken[k + 1 :]]) > chosen.certificate.value - 1e-8


@pytest.mark.slow
def test_a_plain_class_with_the_six_methods_does_too():
    """No base: what it does not say is made up for; frank_wolfe has its efficiency where the formula is traceable."""

    @jax.tree_util.register_dataclass
    @dataclass(frozen=True)
    class Plain:
        def value(self, information):
            return PhiTwo().value(information)

        def gradient(self, information):
            return PhiTwo().gradient(information)

        def factors(self, information):
            return PhiTwo().factors(information)

        def curvature(self, information):
            return PhiTwo().curvature(information)

        def lower_bound(self, value, linear, current, dim):
            return value * value / linear

        def efficiency(self, value, lower_bound, dim):
            return lower_bound / value

    design = jd.optimize(pool(), Plain(), BUDGETS["caps"], prior=PRIOR)
    assert design.certificate.efficiency > 0.999
    _, certificate = jd.solvers.frank_wolfe(pool(), Plain(), BUDGETS["caps"], prior=PRIOR, passes=200)
    assert 0.97 < float(certificate.efficiency) <= 1
