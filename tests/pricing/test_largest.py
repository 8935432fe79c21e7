"""The largest sensitivity of every prompt, in any format, with its rounding error: against all pairs in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxdesign as jd
from jaxdesign import _arrays, _coarse
from jaxdesign.pool import CompletionPool
from jaxdesign.pricing import sweep as sweeping
from jaxdesign.pricing.largest import largest
from jaxdesign.pricing.memory import memory_source
from jaxdesign.solvers.column_generation import hot_start
from tests.support.problems import random_arrays, random_spd, sensitivities_of, written_out

PROMPTS, COMPLETIONS = 12, 6
KINDS = {"working": None, "tf32": _coarse.TF32, "bfloat16": _coarse.BFLOAT16}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
seeds = st.integers(0, 2**32 - 1)


def case(seed, dim, condition, scored):
    features, u, mask = random_arrays(
        seed, prompts=PROMPTS, completions=COMPLETIONS, dim=dim, draws=2 if scored else None
    )
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]
    features = np.nan_to_num(features) * np.geomspace(1, 1 / condition, dim) @ turn
    flip = np.random.default_rng(seed).uniform(0, 0.4, PROMPTS) if scored else None
    pool = CompletionPool(features.astype(np.float32), u if scored else None, mask, flip=flip)
    F = np.stack(
        [turn.T * np.geomspace(1, condition, dim) @ random_spd([seed, r], dim) for r in range(2 if scored else 1)]
    )
    pairs, z, c = written_out(pool)
    best = np.full(PROMPTS, -1.0)
    np.maximum.at(best, pairs[:, 0], sensitivities_of(z, c, F @ F.swapaxes(1, 2)))
    return memory_source(pool), F.astype(np.float32), best


@every_kind
@given(seed=seeds, dim=st.sampled_from([2, 5, 33]), power=st.floats(0, 3), scored=st.booleans())
def test_the_error_is_never_more_than_its_bound(kind, seed, dim, power, scored):
    source, F, best = case(seed, dim, 10**power, scored)
    highest, error = (np.asarray(part, np.float64) for part in largest(source, F, kind))
    some = best >= 0
    assert (highest[~some] == -1).all()
    F64 = 1e-6 * best  # the factors are those in float32, the truth was computed at those in float64
    assert (np.abs(highest - best) <= error + F64)[some].all()


def test_a_coarser_format_has_a_wider_bound_that_is_still_of_use():
    source, F, best = case(0, 33, 1.0, False)
    errors = [np.max(np.asarray(largest(source, F, kind)[1]) / np.maximum(best, 1e-9)) for kind in KINDS.values()]
    assert errors[0] < 1e-4 < errors[1] < 0.02 < errors[2] < 0.3


@pytest.mark.parametrize("kind", ["tf32", "bfloat16"])
def test_operands_are_rounded_to_the_format(kind):
    """A product of numbers that the format holds is exact, and of others it is that of the numbers next to them."""
    form = KINDS[kind]
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((5, 7)).astype(np.float32)
    rounded = np.asarray(_coarse.coarsely(jnp.asarray(numbers), form).astype(jnp.float32), np.float64)
    mantissa, exponent = np.frexp(rounded)
    assert (mantissa * 2**form.bits == np.rint(mantissa * 2**form.bits)).all()
    assert (np.abs(rounded - numbers) <= 2.0 ** (exponent - form.bits - 1)).all()
    left, right = (_coarse.coarsely(jnp.asarray(a), form) for a in (numbers, numbers.T))
    found = _coarse.coarse_contract("ij,jk->ik", left, right, form)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, rounded @ rounded.T, rtol=1e-6, atol=1e-6)


@pytest.mark.thorough(cases=1)
@pytest.mark.parametrize("kind", ["tf32", "bfloat16"])
@pytest.mark.parametrize("criterion", [jd.LogDet(), jd.Trace(np.eye(8))], ids=["LogDet", "Trace"])
def test_ranking_in_any_format_gives_the_same_design(monkeypatch, kind, criterion):
    rng = np.random.default_rng(4)
    shape = 900, 8, 8
    pool = CompletionPool((rng.standard_normal(shape) * np.exp(rng.standard_normal((900, 8, 1)))).astype(np.float32))
    monkeypatch.setattr(_arrays, "chunk_entries", lambda: 2**14)
    monkeypatch.setattr(hot_start, "START", 10**9)  # no pass before the first certificate
    usual = jd.optimize(pool, criterion, jd.Budget(200, per_pair=1), prior=0.01, tol=1e-6)
    kinds = []
    monkeypatch.setattr(_coarse, "ranked_in", lambda: KINDS[kind])
    monkeypatch.setattr(sweeping, "largest", lambda *args: kinds.append(args[2]) or largest(*args))
    found = jd.optimize(pool, criterion, jd.Budget(200, per_pair=1), prior=0.01, tol=1e-6)
    assert KINDS[kind] in kinds
    np.testing.assert_array_equal(found.pairs, usual.pairs)
    np.testing.assert_allclose(found.labels, usual.labels, rtol=1e-10)
    np.testing.assert_allclose(found.certificate, usual.certificate, rtol=1e-10)


def test_a_gpu_multiplies_in_the_format_and_a_cpu_at_full_precision():
    source, F, _ = case(0, 5, 1.0, False)
    lowered = {
        platform: str(
            jax.export.export(jax.jit(lambda F: largest(source, F, _coarse.TF32)), platforms=[platform])(
                F
            ).mlir_module()
        )
        for platform in ("cpu", "cuda", "tpu")
    }
    assert "tf32" in lowered["cuda"] and "tf32" not in lowered["cpu"] + lowered["tpu"]
    assert _coarse.RANKED_IN == {"gpu": _coarse.TF32, "tpu": _coarse.BFLOAT16} and _coarse.ranked_in() is None
