"""Figures of studies: seven inches wide, colours for all eyes, and styles that tell curves apart without them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpicoded.data.results import Results

# Okabe and Ito's colours.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000", "#56B4E9")
STYLES, MARKERS = ("-", "--", "-.", ":"), "osD^vP*X"


def style(number: int) -> dict[str, Any]:
    """Colour, line and marker of a curve."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": STYLES[number % len(STYLES)],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 3.5,
        "linewidth": 1.3,
    }


def panels(rows: int, columns: int, height: float, **words: Any) -> tuple[Any, Any]:
    """A figure and its axes, an array of two dimensions."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **words)
    for one in axes.flat:
        one.grid(alpha=0.25)
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(labelsize=7)
    return figure, axes


def curve(
    axes: Any, found: Sequence[Results], number: int, label: str, x: str = "round", y: str = "suboptimality"
) -> None:
    """The runs' geometric mean (of accuracies the mean) over rounds or MB, with about ten markers."""
    values = np.array([one.history[y] for one in found])
    middle = values.mean(axis=0) if y == "accuracy" else np.exp(np.log(np.maximum(values, 1e-13)).mean(axis=0))
    over = found[0].history[x] / (1e6 if x == "bytes_up" else 1)
    first = 1 if x == "bytes_up" else 0  # zero has no place on a logarithmic axis
    axes.plot(over[first:], middle[first:], label=label, markevery=max(1, len(over) // 8), **style(number))


def finish(figure: Any, axes: Any, path: Path, columns: int = 3) -> None:
    """One legend below all panels, and the file."""
    found: dict[str, Any] = {}
    for one in axes.flat:
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=columns, frameon=False, fontsize=7.5)
    figure.savefig(path, dpi=160)
