"""Label information averaged over a belief in closed form: the mean over draws, in any form of the same problem."""

from contextlib import nullcontext

import jax
import numpy as np
import pytest

import jaxdesign as jd
from jaxdesign.preference import as_labels, fit_posterior, next_batch, scored_pool
from tests.support.problems import COMPLETIONS, DIM, PROMPTS, all_pairs_of, random_pool, random_spd

POOL = random_pool(0, scores="no", ragged=False, copies=False)
MEAN = np.array([0.8, -1.0, 0.4])
BELIEF = jd.Belief(MEAN, 2 * random_spd(1))
PAIRS = all_pairs_of(PROMPTS, COMPLETIONS)
UNITS = np.array([2.0**20, 1.0, 2.0**-30])
LABELS = as_labels([(p, 0, 2) for p in range(PROMPTS)], np.arange(PROMPTS) % 2)


def averaged(pool, belief, variance=0.0):
    """The pool whose labels tell what they tell on average over the belief."""
    scored = scored_pool(pool, belief.mean)
    residual = jd.residual_of(pool, variance, belief=belief)
    return jd.CompletionPool(scored.features, scored.scores, scored.mask, residual=residual)


@pytest.mark.parametrize("variance", [0.0, 2.0])
@pytest.mark.parametrize("sure", [0.3, 10.0, 1e6])
def test_it_is_the_mean_over_draws(sure, variance):
    """By the probit approximation: to a tenth at most; to rounding where the belief is sure."""
    belief = jd.Belief(MEAN, sure * BELIEF.precision)
    drawn = scored_pool(POOL, belief.draws(3000, 0))
    residual = jd.residual_of(POOL, variance)
    each = jd.CompletionPool(drawn.features, drawn.scores, drawn.mask, residual=residual)
    expected = np.mean(np.asarray(jd.label_information(each, PAIRS), np.float64), axis=0)
    found = np.asarray(jd.label_information(averaged(POOL, belief, variance), PAIRS))
    np.testing.assert_allclose(found, expected, rtol=1e-3 if sure == 1e6 else 0.12, atol=1e-4 if sure == 1e6 else 4e-3)
    if variance == 0 and sure == 0.3:  # and not that of the mean, which tells less where the belief is wide
        at_mean = np.asarray(jd.label_information(scored_pool(POOL, MEAN), PAIRS))
        assert np.abs(found / at_mean - 1).max() > 0.3


def test_a_posterior_is_a_belief_and_so_is_its_covariance():
    posterior = fit_posterior(POOL, LABELS, BELIEF)
    one, other = (
        jd.residual_of(POOL, 1.0, belief=belief).belief for belief in (posterior, np.linalg.inv(posterior.information))
    )
    np.testing.assert_allclose(one @ one.T, other @ other.T, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="belief: shape"):
        jd.residual_of(POOL, 1.0, belief=jd.Belief.from_ridge(1.0, 2))
    with pytest.raises(ValueError, match="precision: singular, so there is no covariance"):
        jd.residual_of(POOL, 1.0, belief=jd.Belief(MEAN, np.diag([1.0, 1.0, 0.0])))


def in_another_form(how):
    """The pool and the belief of the same problem, and the pairs by their new names."""
    features, pairs, belief = np.asarray(POOL.features, np.float64), PAIRS, BELIEF
    if how == "units":
        features, belief = features * UNITS, BELIEF.in_basis(np.diag(UNITS))
    elif how == "basis":
        turned = np.linalg.qr(np.random.default_rng(0).standard_normal((DIM, DIM)))[0]
        features, belief = features @ turned, BELIEF.in_basis(turned)
    elif how == "order":
        order = np.random.default_rng(1).permutation(PROMPTS)
        features, pairs = features[order], np.column_stack([np.argsort(order)[PAIRS[:, 0]], PAIRS[:, 1:]])
    elif how == "shift":
        features = features + 8 * np.random.default_rng(2).standard_normal((PROMPTS, 1, DIM))
    return jd.CompletionPool(features.astype(np.float32)), belief, pairs


@pytest.mark.parametrize("how", ["units", "basis", "order", "shift"])
def test_it_is_of_the_problem_and_not_of_its_form(how):
    pool, belief, pairs = in_another_form(how)
    found = jd.label_information(averaged(pool, belief, 2.0), pairs)
    np.testing.assert_allclose(found, jd.label_information(averaged(POOL, BELIEF, 2.0), PAIRS), rtol=2e-5)


@pytest.mark.thorough
def test_float32_is_float64_with_fewer_digits():
    found = []
    for wide in (False, True):
        with jax.enable_x64(True) if wide else nullcontext():
            pool = jd.CompletionPool(np.asarray(POOL.features, np.float64 if wide else np.float32))
            assert pool.features.dtype == (np.float64 if wide else np.float32)
            found.append(np.asarray(jd.label_information(averaged(pool, BELIEF, 2.0), PAIRS)))
    assert found[1].dtype == np.float64
    np.testing.assert_allclose(*found, rtol=1e-5)


@pytest.mark.thorough
def test_its_designs_are_for_the_mean_information_and_not_for_the_mean_of_draws():
    """tr(H E[A]^-1) is least at the design of the closed form; E tr(H A(w)^-1), which draws stand for, is larger and
    may be least elsewhere: by a factor where the belief is as wide as here."""
    crit, budget = jd.Trace(np.eye(DIM)), jd.Budget(12, per_pair=1)
    drawn = scored_pool(POOL, BELIEF.draws(24, 5))
    known = {"prior": BELIEF.precision}
    closed = jd.optimize(averaged(POOL, BELIEF), crit, budget, **known)
    best = jd.optimize(drawn, crit, budget, **known)
    by_mean = jd.evaluate(averaged(POOL, BELIEF), crit, budget, best.pairs, best.labels, **known)
    assert closed.certificate.value <= by_mean.certificate.value
    by_draws = jd.evaluate(drawn, crit, budget, closed.pairs, closed.labels, **known)
    assert by_draws.certificate.value >= max(best.certificate.value, closed.certificate.value)
    # of a belief as prior only the precision counts where the pool has scores
    same = jd.optimize(averaged(POOL, BELIEF), crit, budget, prior=BELIEF)
    np.testing.assert_array_equal(same.certificate, closed.certificate)


@pytest.mark.thorough(cases=2)
@pytest.mark.parametrize("residual", [None, "cap"])
@pytest.mark.parametrize("how", ["units", "order", "shift"])
def test_batches_are_of_the_problem_and_not_of_its_form(how, residual):
    """Powers of two, another order and other offsets: the same pairs of the same draws."""

    def batch(pool, belief, pairs):
        if residual is not None:
            pool = jd.CompletionPool(pool.features, residual=jd.residual_of(pool, residual))
        labels = LABELS._replace(pairs=renamed(LABELS.pairs, pairs))
        return next_batch(pool, jd.Budget(8, per_pair=1), labels, belief, 0.8, draws=2, seed=7)

    def renamed(some, pairs):
        return np.array([pairs[np.flatnonzero((pair == PAIRS).all(axis=1))[0]] for pair in some], np.int32)

    pool, belief, pairs = in_another_form(how)
    found, expected = batch(pool, belief, pairs), batch(POOL, BELIEF, PAIRS)
    np.testing.assert_allclose(found.certificate.value, expected.certificate.value, rtol=1e-4)
    mine, theirs = ({tuple(pair) for pair in some} for some in (found.pairs, renamed(expected.pairs, pairs)))
    assert len(mine & theirs) >= 7
