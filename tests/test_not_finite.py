"""NaN and inf are seen, whatever the size and dtype of the arrays: XLA's maximum drops NaN from 4,096 entries on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdesign import Budget, CompletionPool, Criterion, LogDet, Trace, evaluate, optimize, policy_target

PROMPTS, COMPLETIONS, DIM = 1_600, 8, 16
DTYPES = ["float16", "bfloat16", "float32", "float64"]
SPOILED = [(0, 0, 0), (703, 5, 11), (PROMPTS - 1, COMPLETIONS - 1, DIM - 1)]


def features(dtype, at=None, value=np.nan):
    """204,800 values, in NumPy where it knows the dtype."""
    rows = np.random.default_rng(0).standard_normal((PROMPTS, COMPLETIONS, DIM))
    if at is not None:
        rows[at] = value
    return jnp.asarray(rows, dtype) if dtype == "bfloat16" else rows.astype(dtype)


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", SPOILED)
def test_features(dtype, value, at):
    place = f"prompt {at[0]}, completion {at[1]}, dimension {at[2]}"
    with jax.enable_x64(dtype == "float64"), pytest.raises(ValueError, match=f"features: .* at {place}"):
        CompletionPool(features(dtype, at, value))


@pytest.mark.parametrize("draws", [(), (3,)], ids=["scores", "draws"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_scores(dtype, draws):
    rng = np.random.default_rng(1)
    small = rng.standard_normal((20_000, COMPLETIONS, 1)).astype(np.float32)
    scores = rng.standard_normal((*draws, 20_000, COMPLETIONS)).astype(dtype)
    CompletionPool(small, scores)
    scores[..., 17_000, 3] = np.nan
    with pytest.raises(ValueError, match=r"scores: nan at .*prompt 17000, completion 3"):
        CompletionPool(small, scores)


def test_what_is_masked_may_be_anything_and_what_is_not_may_not():
    mask = np.ones((PROMPTS, COMPLETIONS), bool)
    mask[703, 5] = False
    CompletionPool(features("float32", (703, 5, 11)), mask=mask)
    with pytest.raises(ValueError, match="features: nan at prompt 703, completion 4"):
        CompletionPool(features("float32", (703, 4, 11)), mask=mask)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_flips_costs_priors_targets_labels_and_weights(value):
    pool = CompletionPool(features("float32"))
    flip = np.full((PROMPTS, COMPLETIONS, COMPLETIONS), 0.1)
    flip[1_000, 2, 3] = flip[1_000, 3, 2] = value
    with pytest.raises(ValueError, match=r"flip: .* at prompt 1000"):
        CompletionPool(features("float32"), flip=flip)
    cost = np.ones((PROMPTS, COMPLETIONS))
    cost[1_500, 7] = value
    with pytest.raises(ValueError, match=r"budget\.cost: .* at prompt 1500, completion 7"):
        optimize(pool, LogDet(), Budget(100, cost=cost, cost_total=1e3))
    prior = np.eye(DIM)
    prior[3, 2] = value
    with pytest.raises(ValueError, match="prior: holds NaN or inf"):
        optimize(pool, LogDet(), Budget(100), prior=prior)
    with pytest.raises(ValueError, match="H: holds NaN or inf"):
        Trace(prior)
    pairs = np.stack([np.arange(PROMPTS), np.zeros(PROMPTS, int), np.ones(PROMPTS, int)], 1)
    labels = np.ones(PROMPTS)
    labels[1_234] = value
    with pytest.raises(ValueError, match=r"labels: .* at row 1234"):
        evaluate(pool, LogDet(), Budget(PROMPTS), pairs, labels)
    weights = np.zeros((PROMPTS, COMPLETIONS))
    weights[1_111, 6] = value
    with pytest.raises(ValueError, match=r"log_weights: .* at prompt 1111, completion 6"):
        policy_target(pool, weights)


def test_a_criterion_that_increases_is_refused():
    """Its sign is seen by the gradient; a solver would look for the worst pairs."""
    pool = CompletionPool(features("float32")[:20, :4, :3])
    for function in (lambda A: jnp.linalg.slogdet(A)[1], lambda A: A[0, 0] - jnp.linalg.slogdet(A)[1] * 1e-3):
        with pytest.raises(ValueError, match="crit: it increases with information"):
            optimize(pool, Criterion(function), Budget(10))
