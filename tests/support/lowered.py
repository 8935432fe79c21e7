"""Programs lowered for a backend that is not there: their products, their dtypes, what they ask of the host."""

import contextlib
import re
from math import prod
from typing import NamedTuple

import jax

from jaxdesign import _arrays

PRODUCT = re.compile(r"stablehlo\.dot_general (.*?) : \((tensor<\S*>), (tensor<\S*>)\) -> (tensor<\S*>)")
TYPE = re.compile(r"tensor<((?:\d+x)*)(\w+)>")
TO_HOST = re.compile(r"custom_call @(\w*callback\w*)|stablehlo\.(send|recv|infeed|outfeed)\b")


class Product(NamedTuple):
    """A matrix product: shapes and dtypes of its operands, as `f32[8,4]`, and how it is to be computed."""

    left: str
    right: str
    precision: str  # HIGHEST, TF32, or what is written where it is neither


class Lowered(NamedTuple):
    """What a program has in it."""

    products: tuple[Product, ...]
    float64: int  # entries of the largest array of float64, 0 where there is none
    to_host: tuple[str, ...]  # callbacks, and channels to the host


def lowered(function, *args, platform, wide=False):
    """A function, lowered for "cpu", "cuda" or "tpu" for such arguments; `wide`: in the scope of float64."""
    with _arrays.float64() if wide else contextlib.nullcontext():
        return contents(jax.export.export(jax.jit(function), platforms=[platform])(*args).mlir_module())


def contents(text):
    """`Lowered` of a module in StableHLO."""
    entries = [prod(map(int, shape.split("x")[:-1])) for shape, dtype in TYPE.findall(text) if dtype == "f64"]
    return Lowered(tuple(products(text)), max(entries, default=0), tuple("".join(m) for m in TO_HOST.findall(text)))


def products(text):
    """Of a StableHLO module, one for each place in it, however often that runs."""
    for how, left, right, _ in PRODUCT.findall(text):
        yield Product(_short(left), _short(right), _precision(how))


def _short(text):
    ((shape, dtype),) = TYPE.findall(text)
    return f"{dtype}[{','.join(shape.split('x')[:-1])}]"


def _precision(how):
    if "lhs_precision_type = tf32, rhs_precision_type = tf32, accumulation_type = f32" in how:
        return "TF32"
    return "HIGHEST" if "precision = [HIGHEST, HIGHEST]" in how else how
