"""All pictures from the recorded results: `python -m bench.pictures` writes bench/results/*.png.

`overview.png`, the README's, and those of fewer completions are made here; the others are what the experiments
themselves draw with `--plot`.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from bench import growth_plot
from bench.experiments import llama_dpo, phase_plots, plots, transformer
from bench.experiments.files import read_json
from bench.experiments.gain_plots import plot_differences
from bench.experiments.llama_summary import plot_gains
from bench.rules import PROBLEMS, RULES, in_order

RESULTS = Path(__file__).parent / "results"
LABELS = "400"  # of the overview's panels, where every experiment has this number
LARGE = "4000"  # of its first panel, whose gaps are measured without a prior and need more labels

SHOWN = (
    "trace", "trace_two_rounds", "rounds", "two_rounds_unit", "two_rounds_capped", "trace_smooth",
    "two_rounds_capped_smooth", "random_distinct_smooth", "trace_capped", "logdet", "bait", "adpo", "largest_distance",
    "random", "random_distinct", "ceiling",
)  # fmt: skip
"""What the overview has; every rule is in a picture of its own problem."""


def recorded(name: str) -> dict[str, Any]:
    """A file of bench/results."""
    return read_json(RESULTS / f"{name}.json")


def overview(file: str) -> None:
    """Four problems, the rules of SHOWN: where a design helps, how much, and where it does not."""
    solved, real, model = (recorded(name) for name in ("log-linear", "real-pools", "transformer"))
    exact = solved["problems"]["log_linear"]["rows"]
    panels = {
        _title(PROBLEMS["log_linear"], int(LARGE)): {rule: _ratio(exact, rule) for rule in exact if rule in SHOWN},
        **{
            _title(PROBLEMS[case], int(LABELS)): {
                rule: plots.ratios(row, [int(LABELS)])
                for rule, row in real["cases"][case]["given"].items()
                if rule in SHOWN
            }
            for case in ("well_specified", "judge_4")
        },
    }
    gains = [row for row in model["summary"] if row["labels"] == int(LABELS) and row["arm"] in SHOWN]
    gained = plots.differences(gains, "random_distinct")
    order = in_order({rule for rows in (*panels.values(), gained) for rule in rows})
    figure, axes = plots.panels(4, len(order), width=1.75)
    for axis, (title, rows) in zip(axes[:3], panels.items(), strict=True):
        plots.forest(axis, rows, order, 1)
        axis.set(xscale="log", title=title, xlabel="policy gap / that of\nrandom pairs (less is better)")
        plots.plain_numbers(axis)
    plots.forest(axes[3], gained, order, 0)
    against = f"gain - that of {RULES['random_distinct'].name}".replace(", ", ",\n")
    axes[3].set(title=_title("a small transformer, end to end", int(LABELS)), xlabel=f"{against} (more is better)")
    plots.save(figure, file)


def _title(problem: str, labels: int) -> str:
    """In lines that fit above a narrow panel."""
    return "\n".join([*textwrap.wrap(problem, 24), f"{labels:,} labels"])


def _ratio(rows: dict[str, Any], rule: str) -> list[plots.Point] | str:
    """Gap of a rule of `log_linear` over random's, with both standard errors in the limits."""
    own, other = rows[rule][LARGE], rows["random"][LARGE]
    value = own["simulated"] / other["simulated"]
    relative = sum((row["standard_error"] / row["simulated"]) ** 2 for row in (own, other))
    half = plots.NORMAL * value * relative**0.5 if rule != "random" else 0.0
    return [plots.Point(value, value - half, value + half)]


def main() -> None:
    plots.plot_predictions(recorded("log-linear")["problems"], str(RESULTS / "log-linear.png"))
    plots.plot_gaps(recorded("real-pools")["cases"], str(RESULTS / "real-pools.png"))
    plots.plot_proxies(recorded("real-pools")["cases"]["well_specified"], str(RESULTS / "real-pools-proxies.png"))
    plots.plot_excess(recorded("weighted-labels")["problems"], str(RESULTS / "weighted-labels.png"))
    plot_differences(transformer.panels_of(recorded("transformer")), str(RESULTS / "transformer.png"))
    rows = recorded("llama-log-linear")["rows"]
    *few, most = sorted({row["K"] for row in rows})
    for completions, ending in ((most, ""), *((each, f"-{each}") for each in few)):
        plot_gains(rows, completions, str(RESULTS / f"llama-log-linear{ending}.png"))
    plots.plot_votes(recorded("human-votes"), str(RESULTS / "human-votes.png"))
    plot_differences(llama_dpo.panels_of(recorded("llama-dpo")["rows"]), str(RESULTS / "llama-dpo.png"))
    phase_plots.plot_phases(recorded("phase-diagrams"), str(RESULTS / "phase-diagrams.png"))
    growth_plot.plot_growth(recorded("cpu-2-cores-growth"), str(RESULTS / "growth.png"))
    overview(str(RESULTS / "overview.png"))


if __name__ == "__main__":
    main()
