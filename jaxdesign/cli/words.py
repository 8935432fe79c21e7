"""What the command says: library messages in terms of its own options, shares cut, one and many told apart."""

from __future__ import annotations

import math
import re

# Library messages name arguments; whoever types a command has options. The first that fit, in this order.
_OPTIONS = [
    (r"or pass prior=\S+ \(a ridge\)|or a prior \(a ridge will do\)|pass prior=\S+ \(a ridge\)", "or a larger --ridge"),
    (r"^prior: ", "--ridge: "),
    (r"with a prior of rank", "with prior information (--ridge) of rank"),
    (r"; jaxdesign\.optimize takes any real total", ""),
    (r"use float64 features with x64 enabled", "save features as float64 and set JAX_ENABLE_X64=1"),
    (r"or pass overwrite=True", "or pass --overwrite"),
    (r"\bbudget\.total=(\S+?)(?=[:;,\s])", r"--labels \1"),
    (r"\bbudget\.(total|per_pair|per_prompt)\b", r"\1"),
    (r"\bper_pair\b=?", "--per-pair "),
    (r"\bper_prompt\b=?", "--per-prompt "),
    (r"\bmax_passes\b=?", "--max-passes "),
    (r"(?<=lower |raise )total\b", "--labels"),
    (r"^total\b", "--labels"),
    (r"(?<![-\w])tol\b=?", "--tol "),
    (r"(?<![-\w])seed=", "--seed "),
    (r"^texts: ", "--texts: "),
]


def told(error: BaseException) -> str:
    """The message of an error on one line, in the words of the command line."""
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    else:
        text = str(error) or type(error).__name__
    return in_options(text)


def in_options(text: str) -> str:
    """A sentence of the library that speaks of options instead of arguments."""
    text = " ".join(text.split())
    for pattern, replacement in _OPTIONS:
        text = re.sub(pattern, replacement, text)
    return re.sub(r" +(?=[,;:.)]|$)", "", re.sub(r" {2,}", " ", text))


def cut(share: float) -> str:
    """A proven share with three digits, cut and never rounded up: 1.000 is said of 1 alone."""
    thousandths = math.floor(1000 * share)
    while thousandths / 1000 > share:  # 1000 x share may have been rounded up
        thousandths -= 1
    return f"{thousandths / 1000:.3f}"


def number(count: float, word: str) -> str:
    """3 labels, 1 label."""
    return f"{count:.0f} {word}" if count == 1 else f"{count:.0f} {word}s"
