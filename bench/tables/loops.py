"""Tables of rounds over time: speed, and phase diagrams beside what is certified."""

from __future__ import annotations

from typing import Any

from bench.tables.markdown import digits, hardware, seconds, table

SPEED, GPU, PHASES = "cpu-2-cores-loops", "gpu-h200-loops", "phase-diagrams"
COUNTS = ("certified", "false_certificates", "rho_below_1", "rho_below_1_elsewhere", "rho_above_1_at_rest")


def section(results: dict[str, dict[str, Any]]) -> list[str]:
    """Paragraphs and tables; results by file name."""
    return ["## Rounds over time", *_phases(results[PHASES]), *_speed(results[SPEED], results[GPU])]


def _phases(found: dict[str, Any]) -> list[str]:
    rows = []
    for name, by_share in found["panels"].items():
        for share, panel in by_share.items():
            by = panel["certified_by"]
            counts = [panel[key] for key in ("certified", "false_certificates", "rho_below_1", "rho_below_1_elsewhere")]
            rows.append(
                [name, share, panel["cells"], by["c1"], by["c1r"], by["c2"], *counts, panel["rho_above_1_at_rest"]]
            )
    head = ["preferences", "share", "plans", "C1", "C1r", "C2", "any of them", "false", "rho < 1"]
    rounds = found["settings"]["rounds"]
    return [
        "### Where rounds of IPO end",
        "`python -m bench.experiments.phase_diagrams --json FILE --plot FILE`. Four answers; every plan (alpha from 0 "
        f"up to 1, strength from {digits(found['strengths'][0])} to {digits(found['strengths'][-1])}) is simulated for "
        f"{rounds:,} rounds and asked for its local rate and certificates.",
        table([*head, "of these circling", "rho >= 1, at rest"], rows),
        hardware(found["machine"], PHASES),
        f"![Entropy after the last round, where rounds circle, and the lines of the conditions](results/{PHASES}.png)",
        "A condition holds below or left of its line. *False* counts certificates of plans whose simulated rounds "
        "do not end at the fixed point. *Of these circling* counts plans with a local rate below 1 whose rounds "
        "circle all the same: close to the line at the end of a simulation, or a fixed point that attracts its "
        "surroundings alone.",
    ]


def _speed(cores: dict[str, Any], gpu: dict[str, Any]) -> list[str]:
    rows = []
    for name, row in cores["loops"].items():
        other = gpu["loops"][name]
        rows.append([name, digits(row["first"]), seconds(row), digits(other["first"]), seconds(other)])
    return [
        "### Speed of simulation and of what spares it",
        "`python -m bench loops --json FILE`. Rounds x matrices x answers; `iterate` in float32, `fixed_point` and "
        "`stability` in float64, on the host from end to end.",
        table(["case", "CPU: first call, s", "warm, s", "GPU: first call, s", "warm, s"], rows),
        hardware(cores["machine"], SPEED) + " " + hardware(gpu["machine"], GPU),
    ]
