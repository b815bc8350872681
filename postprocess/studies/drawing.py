"""Figures of studies, in the look of all figures: panels of curves with one legend below."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpicoded.data.results import Results
from mpicoded.figures import look


def style(number: int) -> dict[str, Any]:
    """Colour, dashes and mark of a curve."""
    return look.line(number, dense=False)


def panels(rows: int, columns: int, height: float, **words: Any) -> tuple[Any, Any]:
    """A figure as wide as a page and its axes, an array of two dimensions."""
    return look.figure(look.PAGE, height, rows, columns, **words)


def curve(
    axes: Any, found: Sequence[Results], number: int, label: str, x: str = "round", y: str = "suboptimality"
) -> None:
    """The runs' geometric mean (of accuracies the mean) over rounds or MB, with about ten marks."""
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
    with look.style():
        figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=columns)
    look.save(figure, str(path))
