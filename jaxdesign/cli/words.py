"""What the command says: library messages in terms of its own options, shares cut, singular and plural told apart."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # help and mistakes need no NumPy
    from jaxdesign.forecasts import Forecast

# Library messages name arguments, and whoever types a command has options. Applied in this order.
_OPTIONS = [
    (r"use jaxdesign\.restrict_to_range\(pool\), or |, or use jaxdesign\.restrict_to_range\(.*larger rtol", ""),
    (r"\bprior=\S+ \(a ridge\)|\ba prior \(a ridge( will do)?\)", "a larger --ridge"),
    (
        r"pass a larger prior \(a ridge\), or use jaxdesign\.restrict_to_range with a larger rtol",
        "pass a larger --ridge",
    ),
    (r"^prior: ", "--ridge: "),
    (r"^proxy: ", "--proxy: "),
    (r"with a prior of rank", "with prior information (--ridge) of rank"),
    (r"; jaxdesign\.optimize takes any real total", ""),
    (r"use float64 features with x64 enabled", "save features as float64 and set JAX_ENABLE_X64=1"),
    (r"\bbudget\.total\b", "labels"),
    (r"\bbudget\.(?=per_pair|per_prompt)", ""),
    (r"(?<=lower |raise )total\b", "labels"),
    (r"\b(labels|per_pair|per_prompt|max_passes|tol|seed)=", r"--\1 "),
    (r"(?<=lower |raise )labels\b", r"--labels"),
    (r"\b(?<!-)(per_pair|per_prompt|max_passes|tol)\b", r"--\1"),
    (r"--(per|max)_", r"--\1-"),
]


def message_of(error: BaseException) -> str:
    """The message of an error on one line."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    return " ".join(text.split()) or type(error).__name__


def in_options(text: str) -> str:
    """A sentence of the library that speaks of options instead of arguments; not for text that users gave."""
    for pattern, replacement in _OPTIONS:
        text = re.sub(pattern, replacement, text)
    return text


@contextlib.contextmanager
def errors_in_options() -> Iterator[None]:
    """Within this context, the messages of refusals speak of options."""
    kinds = (ValueError, TypeError, FloatingPointError)
    try:
        yield
    except kinds as error:
        kind = next(kind for kind in kinds if isinstance(error, kind))  # subclasses may take other arguments
        raise kind(in_options(str(error))) from error


def cut(share: float) -> str:
    """A proven share with three digits, cut and never rounded up: 1.000 is said of 1 alone."""
    thousandths = math.floor(1000 * share)
    while thousandths / 1000 > share:  # 1000 x share may have been rounded up
        thousandths -= 1
    return f"{thousandths / 1000:.3f}"


def number(count: float, word: str) -> str:
    """3 labels, 1 label."""
    return f"{count:.0f} {word}" if count == 1 else f"{count:.0f} {word}s"


def in_ranks(dim: int, whole_dim: int) -> str:
    """That features span fewer dimensions than they have."""
    return f"features: rank {dim} of {whole_dim}; worked in the {number(dim, 'dimension')} they span"


def in_gaps(forecast: Forecast, worth: float) -> str:
    """What random pairs, the best choice at least and this one leave of the policy gap, and whether it can matter."""
    from jaxdesign._forecast_words import OUTSIDE

    random, error, least, design = (
        getattr(forecast, name).item() for name in ("random", "random_error", "least", "design")
    )
    return (
        f"expected policy gap in units of J, beta {forecast.beta:g}: random pairs leave {random:.3g} +- {error:.1g}, "
        f"the certified least is {least:.3g}, this choice leaves {design:.3g}\n{forecast.verdicts(worth)[0]}\n{OUTSIDE}"
    )
