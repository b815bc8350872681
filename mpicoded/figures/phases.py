"""Where the seconds of each rank went."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpicoded.algorithms.shapes import Array
from mpicoded.data.compare import Group
from mpicoded.data.results import Results
from mpicoded.errors import InputError
from mpicoded.figures import look

_NAMED = 8  # phases; what else there is counts together
_BARS = 40  # ranks that are named
_LEGEND = 4  # phases in a row of it
_OTHERS = "all others"
_HATCHES = ("", "////", "xxxx", "----", "\\\\", "||||", "++++", "//")


def shares(result: Results) -> dict[str, Array]:
    """Seconds (ranks,) of the phases that took most, the longest first, and of all others together."""
    if not result.timings or not len(next(iter(result.timings.values()))):
        raise InputError(f"result file {result.path} has no timings")
    return _largest(result.timings)


def _largest(seconds: dict[str, Array]) -> dict[str, Array]:
    ordered = sorted(seconds.items(), key=lambda item: -item[1].sum())
    if len(ordered) <= _NAMED:
        return dict(ordered)
    rest = np.sum([values for _, values in ordered[_NAMED - 1 :]], axis=0)
    return dict(ordered[: _NAMED - 1]) | {_OTHERS: rest}


def draw(result: Results, title: str | None = None, width: float = look.PAGE) -> Any:
    """A matplotlib figure: for each rank a bar, made of phases."""
    found = shares(result)
    names = [f"{rank} ({host})" for rank, host in enumerate(result.hosts)]
    with look.style():
        made, axis = _bars(found, names, width)
        axis.set_ylabel("rank (host)" if len(names) <= _BARS else "rank")
        axis.set_xlabel("seconds")
        text = title or f"{Path(result.path).name}, {int(result.history['round'][-1])} rounds"
        axis.set_title(look.fitting(text, 0.8 * width))
        return made


def compare(groups: Sequence[Group], names: Sequence[str], width: float = look.PAGE) -> Any:
    """A matplotlib figure: for each experiment a bar, the milliseconds of a round, means over its ranks and seeds."""
    table = {
        phase: np.array([np.mean([_milliseconds(result, phase) for result in group.results]) for group in groups])
        for phase in _phases(groups)
    }
    with look.style():
        made, axis = _bars(_largest(table), names, width)
        axis.set_xlabel("ms of a round, mean over ranks")
        return made


def _phases(groups: Sequence[Group]) -> list[str]:
    return list(dict.fromkeys(phase for group in groups for result in group.results for phase in result.timings))


def _milliseconds(result: Results, phase: str) -> float:
    seconds = result.timings.get(phase, np.zeros(1))
    return 1e3 * float(seconds.mean()) / max(int(result.history["round"][-1]), 1)


def _bars(found: dict[str, Array], names: Sequence[str], width: float) -> tuple[Any, Any]:
    """A bar for each name, made of phases."""
    bars = len(names)
    rows = -(-len(found) // _LEGEND)
    made, axes = look.figure(width, min(0.9 + 0.15 * rows + 0.26 * min(bars, _BARS), 7))
    axis, left = axes[0, 0], np.zeros(bars)
    for number, (phase, sizes) in enumerate(found.items()):
        colour = look.GREY if phase == _OTHERS else look.COLOURS[number % len(look.COLOURS)]
        full = bars > _BARS  # too many for gaps
        axis.barh(
            np.arange(bars),
            sizes,
            height=1.0 if full else 0.75,
            left=left,
            label=look.plain(phase),
            color=colour,
            hatch="" if full else _HATCHES[number % len(_HATCHES)],
            edgecolor="none" if full else "white",
            linewidth=0.0,
        )
        left = left + sizes
    if bars <= _BARS:
        axis.set_yticks(range(bars), [look.plain(name) for name in names])
    axis.set_ylim(bars - 0.5, -0.5)
    axis.grid(False, axis="y")
    made.legend(loc="outside lower center", ncols=_LEGEND)
    return made, axis
