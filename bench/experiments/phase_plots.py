"""Pictures of phase diagrams: the entropy that rounds end with, where they circle, and the lines that were known."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.experiments import plots
from jaxdesign.dynamics import Regime

LINES = {  # field: name, colour, dashes; a condition holds where the field is below 1
    "rho": ("local rate rho = 1", "#000000", "-"),
    "c2": ("C2", "#d62728", "-"),
    "c1r": ("C1r", "#ff7f0e", "--"),
    "c1": ("C1", "#ffffff", ":"),
}
TURNING = (Regime.CIRCLING.value, Regime.SPIRALLING.value)


def plot_phases(results: dict[str, Any], file: str) -> None:
    """A row of panels for every matrix, a column for every share."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names, shares = list(results["panels"]), results["shares"]
    x, y = np.array(results["strengths"]), np.array(results["alphas"])
    figure, axes = plots._pyplot().subplots(
        len(names), len(shares), figsize=(3.1 * len(shares) + 1.2, 2.5 * len(names) + 0.9), squeeze=False,
        sharex=True, sharey=True, layout="constrained",
    )  # fmt: skip
    for row, name in enumerate(names):
        for column, share in enumerate(shares):
            axis, panel = axes[row, column], results["panels"][name][f"{share:g}"]
            shades = axis.pcolormesh(
                x, y, grid(panel["entropy"]), cmap="viridis", vmin=0, vmax=np.log(4), shading="nearest"
            )
            regimes = np.array([[int(digit) for digit in line] for line in panel["regime"]])
            turning = np.isin(regimes, TURNING)
            if turning.any():
                axis.contourf(x, y, turning, levels=[0.5, 1.5], colors="none", hatches=["////"])
            for field, (_, colour, dashes) in LINES.items():
                values = np.minimum(grid(panel[field]), 1e3)
                if values.min() < 1 < values.max():
                    axis.contour(x, y, values, levels=[1.0], colors=colour, linestyles=dashes, linewidths=1.6)
            axis.set(xscale="log", title=f"{name}, {share:.0%} the policy's own answers")
            axis.title.set_fontsize(8)
            axis.tick_params(labelsize=8)
            if row == len(names) - 1:
                axis.set_xlabel("strength, 1 / tau", fontsize=8)
            if column == 0:
                axis.set_ylabel("alpha", fontsize=8)
    bar = figure.colorbar(shades, ax=axes, shrink=0.6)
    bar.set_label("entropy after the last round, nats", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    keys = [Line2D([], [], color=colour, linestyle=dashes, label=label) for label, colour, dashes in LINES.values()]
    keys.append(Patch(facecolor="#b0b0b0", hatch="////", label="rounds circle (simulated)"))
    figure.legend(handles=keys, ncols=5, loc="outside lower center", fontsize=8, facecolor="#b0b0b0")
    plots.save(figure, file)


def grid(rows: list[str]) -> np.ndarray:
    """Numbers of a field, (alphas, strengths)."""
    return np.array([[float(value) for value in row.split()] for row in rows])
