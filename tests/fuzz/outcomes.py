"""What becomes of a problem: its outcome and its faults.

What counts as a fault, most serious first:
    false bound       an allowed allocation lies below the lower bound
    false efficiency  above what the allocation's exact value and the best one known allow; also a false CERTIFIED
    broken budget     labels that the budget does not allow
    no number         NaN where the criterion declares a formula, an efficiency outside of [0, 1], a positive one where
                      nothing is proven, numbers of a certificate that contradict each other
    false value       not the criterion of the returned allocation: to 1e-6, or to what rounding every entry of A in
                      float64 may do where its smallest eigenvalue at unit diagonal is tiny
    exception         anything but ValueError or TypeError whose message begins with an argument's name
    accepted          arguments that must be refused
    refused wrongly   a problem that has a regular, allowed allocation
    no end            longer than the command's limit for one problem
    warning           of NumPy or JAX, on the way (a lesser fault)
"""

from __future__ import annotations

import re
from typing import NamedTuple

ARGUMENTS = re.compile(
    r"^(features|scores|mask|flip|ids|pool|crit|H|targets|scales|mixture|prior|budget|tol|solver|max_passes|labels|"
    r"pairs|annotators|assigned|quota|reading|seen|domain|language|prompt|annotator|size|per_pair|seed|design|start|callback|"
    r"methods|passes|power)\b[^ ]*( |:|=)"
)
SEVERITY = ("false bound", "false efficiency", "broken budget", "no number", "false value", "exception", "accepted",
            "refused wrongly", "no end", "warning")  # fmt: skip


class Fault(NamedTuple):
    """One finding: its kind, a signature that puts like ones together, and the numbers."""

    kind: str
    signature: str
    detail: str


class Outcome(NamedTuple):
    """What became of a problem."""

    seed: int
    family: str
    function: str
    said: str  # status, or the argument that a refusal names
    bounds: int  # that were judged
    faults: list
