"""Two settings that vary, and what came of them: a field of numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpicoded.algorithms.shapes import Array
from mpicoded.data.compare import SEED, flatten
from mpicoded.data.results import Results
from mpicoded.errors import InputError
from mpicoded.figures import look

_UNLIKELY = ("data.path", SEED)  # as the settings that vary, unless they are asked for


def varied(results: Sequence[Results]) -> list[str]:
    """The settings that are not the same in all results."""
    flats = [flatten(result.experiment) for result in results]
    keys = dict.fromkeys(key for flat in flats for key in flat)
    return [key for key in keys if any(flat.get(key) != flats[0].get(key) for flat in flats)]


def axes_of(results: Sequence[Results], rows: str | None, columns: str | None) -> tuple[str, str]:
    """The two settings that are asked for, or the only two that vary. Raises InputError."""
    there = varied(results)
    for key in (rows, columns):
        if key is not None and key not in there:
            raise InputError(f"the setting {key!r} is the same in all files; these vary: {', '.join(there) or 'none'}")
    left = [key for key in there if key not in (rows, columns, *_UNLIKELY)]
    for key in (rows, columns):
        if key is None and len(left) != 2 - (rows is not None) - (columns is not None):
            raise InputError(f"which two settings? --rows and --columns choose from: {', '.join(there) or 'none'}")
    chosen = iter(left)
    return rows or next(chosen), columns or next(chosen)


def field(results: Sequence[Results], rows: str, columns: str, y: str) -> tuple[list[Any], list[Any], Array]:
    """The values of both settings, and the mean of the last ``y`` over all results that have them (NaN: none)."""
    flats = [flatten(result.experiment) for result in results]
    downwards, across = ([flat.get(key, "–") for flat in flats] for key in (rows, columns))
    names = _ordered(downwards), _ordered(across)
    values: dict[tuple[Any, Any], list[float]] = {}
    for result, row, column in zip(results, downwards, across, strict=True):
        if y not in result.history:
            raise InputError(f"{result.path} has no history {y!r}; it has: {', '.join(result.history)}")
        values.setdefault((row, column), []).append(float(result.history[y][-1]))
    return (
        *names,
        np.array([[np.mean(values.get((row, column), [np.nan])) for column in names[1]] for row in names[0]]),
    )


def _ordered(values: Sequence[Any]) -> list[Any]:
    """Numbers by size, other things as they come."""
    found = list(dict.fromkeys(values))
    numeric = all(isinstance(value, (int, float)) for value in found)
    return sorted(found) if numeric else found


def draw(results: Sequence[Results], rows: str, columns: str, y: str, *, log: bool, title: str | None = None) -> Any:
    """A matplotlib figure with a cell for each pair of values, and the number in it."""
    names = field(results, rows, columns, y)
    values = names[2]
    with look.style():
        from matplotlib.colors import LogNorm, Normalize

        made, axes = look.figure(min(look.PAGE, 1.7 + 0.62 * len(names[1])), 0.9 + 0.32 * len(names[0]))
        axis = axes[0, 0]
        there = values[np.isfinite(values) & ((values > 0) | (not log))]
        bounds = (there.min(), there.max()) if len(there) else (1.0, 1.0)
        norm = (LogNorm if log else Normalize)(*bounds)
        image = axis.imshow(values, cmap=look.SEQUENCE, norm=norm, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            dark = np.isfinite(value) and norm(value) < 0.55
            text = "–" if np.isnan(value) else f"{value:.3g}"
            axis.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
        axis.set_xticks(range(len(names[1])), [look.plain(str(name)) for name in names[1]])
        axis.set_yticks(range(len(names[0])), [look.plain(str(name)) for name in names[0]])
        axis.set_xlabel(look.plain(columns))
        axis.set_ylabel(look.plain(rows))
        axis.grid(False)
        axis.set_title(look.plain(title or f"{look.words(y)}, at the end"))
        made.colorbar(image, ax=axis, pad=0.02)
        return made
