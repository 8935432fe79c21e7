"""Plots of experiments."""

from __future__ import annotations

from typing import Any

SHOWN = ("random", "trace", "trace_two_rounds", "logdet", "trace_floor", "largest_distance", "square_root", "adpo")
STYLE = {"random": {"color": "black", "linestyle": "--"}, "trace": {"color": "C3", "linewidth": 2}}


def plot_gaps(cases: dict[str, Any], file: str) -> None:
    """Mean policy gap against labels, one panel per case, standard errors over seeds; log-log."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(cases), figsize=(4.5 * len(cases), 4), squeeze=False)
    for axis, (case, found) in zip(axes[0], cases.items(), strict=True):
        for arm in [a for a in SHOWN if a in found["arms"]]:
            row = found["arms"][arm]
            counts = list(row["gap"])
            axis.errorbar(
                [int(n) for n in counts],
                [row["gap"][n] for n in counts],
                [row["standard_error"][n] for n in counts],
                label=arm,
                marker="o",
                markersize=3,
                capsize=2,
                **STYLE.get(arm, {}),
            )
        axis.axhline(found["ends"]["reference"], color="grey", linewidth=0.8, label="reference policy")
        if found["ends"]["limit"] > 1e-9:
            axis.axhline(found["ends"]["limit"], color="grey", linestyle=":", label="labels of all pairs")
        axis.set(xscale="log", yscale="log", title=case, xlabel="labels")
    axes[0, 0].set_ylabel("policy gap on held-back prompts")
    axes[0, -1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(file, dpi=150)
    pyplot.close(figure)
