"""What passes run on accelerators, read from the programs that JAX lowers for them: no accelerator is needed for it.

For CUDA and TPU alike: the products that the cost of a pass counts, each at full precision or in the format asked for,
no other, and none twice; nothing that calls back to the host; float64 where `FLOAT64` says why, and nowhere else, as a
TPU has none and emulates it at a tenth of the speed or less.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdesign as jd
from jaxdesign import _arrays, _coarse
from jaxdesign.door import make_problem
from jaxdesign.pricing import source as sources
from jaxdesign.pricing.largest import largest
from jaxdesign.pricing.listed import PAGE
from jaxdesign.pricing.memory import memory_source
from jaxdesign.pricing.passes import pairs_information, price
from jaxdesign.solvers.column_generation import hot_start
from jaxdesign.solvers.dense.problem import dense_part
from tests.support.lowered import Product, contents, lowered

PROMPTS, COMPLETIONS, DIM, SIZE, CHUNK, DRAWS = 101, 7, 13, 5, 9, 2  # all different: a shape says what it is of
ROWS = CHUNK * COMPLETIONS
FLOAT64 = {  # what moves to the host leaves this list
    "even information": "sums over all pairs that certificates rest on",
    "listed rows": "differences of features as stored; of a page of pairs",
    "hot start": "the d x d algebra between float32 sums over its prompts",
    "greedy, LogDet": "the d x d algebra; inside of the caller's jit there is no host",
    "greedy, Trace": "the d x d algebra; inside of the caller's jit there is no host",
}
WIDE = ("even information", "listed rows", "hot start")  # run in the scope of float64
each_platform = pytest.mark.parametrize("platform", ["cuda", "tpu"])


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    monkeypatch.setattr(_arrays, "chunk_entries", lambda: ROWS * DIM)


def pool_of(draws):
    rng = np.random.default_rng(0)
    features = rng.standard_normal((PROMPTS, COMPLETIONS, DIM)).astype(np.float32)
    if not draws:
        return jd.CompletionPool(features)
    scores = rng.standard_normal((DRAWS, PROMPTS, COMPLETIONS)).astype(np.float32)
    return jd.CompletionPool(features, scores, flip=np.full(PROMPTS, 0.1, np.float32))


@cache
def programs(draws):
    """Name: (function, arguments) of the programs of a pass, and of greedy choices inside of jit."""
    pool = pool_of(draws)
    source = memory_source(pool)
    factors = np.stack([np.eye(DIM, dtype=np.float32)] * source.draws)
    page = np.zeros((PAGE, 3), np.int32)
    problem = make_problem(pool, jd.LogDet(), jd.Budget(40, per_pair=1), 0.1)
    limits = problem.limits
    kinds = {"bounds": None, "bounds, TF32": _coarse.TF32, "bounds, bfloat16": _coarse.BFLOAT16}
    ridge = {"size": SIZE, "prior": 0.1}
    return {
        "survey": (lambda source: source.fold(jax.tree_util.Partial(sources._surveyed), None), source),
        "even information": (pairs_information, source),
        **{name: (partial(largest, kind=kind), source, factors) for name, kind in kinds.items()},
        "some prompts": (lambda some, F: price(some, F, jnp.float32(3)), source.subset(np.arange(2 * CHUNK)), factors),
        "listed rows": (lambda source, pairs: source.rows(pairs), source, page),
        "hot start": (hot_start._steps, dense_part(problem, source, limits.per_pair, limits.per_prompt)),
        "greedy, LogDet": (lambda pool: jd.greedy(pool, jd.LogDet(), **ridge), pool),
        "greedy, Trace": (lambda pool: jd.greedy(pool, jd.Trace(np.eye(DIM)), **ridge), pool),
    }


@cache
def found(name, platform, draws=False):
    function, *args = programs(draws)[name]
    return lowered(function, *args, platform=platform, wide=name in WIDE)


def two_a_draw(dtype="f32", precision="HIGHEST", draws=1):
    """Rows times factors, and the Gram matrices of what comes out: 2 P K d^2 and 2 P K^2 d operations."""
    turned = f"{dtype}[{CHUNK},{COMPLETIONS},{DIM}]"
    rows = Product(f"{dtype}[{ROWS},{DIM}]", f"{dtype}[{DIM},{DIM}]", precision)
    return sorted([rows, Product(turned, turned, precision)] * draws)


@each_platform
def test_a_pass_multiplies_what_its_cost_counts_and_nothing_twice(platform):
    coarse = {"cuda": two_a_draw(precision="TF32"), "tpu": two_a_draw()}[platform]  # a TPU has no such units
    expected = {
        "survey": [],
        "even information": [Product(f"f64[{DIM},{ROWS}]", f"f64[{ROWS},{DIM}]", "HIGHEST")],
        "bounds": two_a_draw(),
        "bounds, TF32": coarse,
        "bounds, bfloat16": two_a_draw("bf16"),  # of exact operands: what is rounded is the features
        "some prompts": two_a_draw(),
        "listed rows": [],
    }
    for name, products in expected.items():
        assert sorted(found(name, platform).products) == products, name


@pytest.mark.thorough
@each_platform
def test_draws_share_rows_and_multiply_once_each(platform):
    for name, dtype in {"bounds": "f32", "bounds, bfloat16": "bf16", "some prompts": "f32"}.items():
        assert sorted(found(name, platform, draws=True).products) == two_a_draw(dtype, draws=DRAWS), name
    weighted, total = found("even information", platform, draws=True).products  # L Phi, Phi^T L Phi: P K^2 d + P K d^2
    square = f"f64[{DRAWS},{CHUNK},{COMPLETIONS},{COMPLETIONS}]"
    assert weighted == Product(f"f64[{CHUNK},{COMPLETIONS},{DIM}]", square, "HIGHEST")
    assert total == Product(f"f64[{DRAWS},{ROWS},{DIM}]", f"f64[{ROWS},{DIM}]", "HIGHEST")


@each_platform
@pytest.mark.parametrize("name", ["hot start", "greedy, LogDet", "greedy, Trace"])
def test_features_are_multiplied_in_float32_and_small_matrices_in_float64(platform, name):
    program = found(name, platform)
    assert {product.precision for product in program.products} == {"HIGHEST"}
    assert program.products and program.float64 <= (2 * DIM) ** 2 < PROMPTS * COMPLETIONS  # what is factorised
    for product in program.products:
        wide = {operand[:3] == "f64" for operand in product[:2]}
        assert len(wide) == 1, product
        sizes = {int(n) for operand in product[:2] for n in operand[4:-1].split(",")}
        assert wide == {False} or sizes <= {1, SIZE, DIM}, product


@pytest.mark.parametrize("draws", [False, pytest.param(True, marks=pytest.mark.thorough)], ids=["plain", "draws"])
@each_platform
def test_nothing_calls_back_to_the_host_and_float64_is_where_it_is_meant_to_be(platform, draws):
    assert FLOAT64.keys() < programs(draws).keys()
    for name in programs(draws):
        program = found(name, platform, draws)
        assert not program.to_host, name
        assert (program.float64 > 0) == (name in FLOAT64), name


@each_platform
def test_what_is_looked_for_is_seen(platform):
    def calls(x):
        return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((), jnp.float32), x)

    def coarse(x, y):
        return x @ y, y.astype(jnp.float64) @ y.astype(jnp.float64)

    x, y = np.ones((2, 3), np.float32), np.ones((3, 3), np.float32)
    program = lowered(coarse, x, y, platform=platform, wide=True)
    assert program.float64 == 9 and not program.to_host
    assert program.products[0][:2] == ("f32[2,3]", "f32[3,3]") and program.products[0].precision != "HIGHEST"
    assert program.products[1][:2] == ("f64[3,3]", "f64[3,3]")
    assert contents(jax.jit(calls).lower(np.float32(1)).as_text()).to_host  # JAX exports no such program at all
