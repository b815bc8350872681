"""Curves of the history: one for each experiment, the mean over its seeds with a band around it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mpicoded.algorithms.shapes import Array
from mpicoded.data.compare import Group
from mpicoded.errors import InputError
from mpicoded.figures import look

BANDS = ("deviation", "range", "none")
QUANTITIES = ("accuracy", "suboptimality", "loss", "test_loss")
_FAR = 1e30  # times the least value
_MANY = 20  # points of a line, for which marks would be too many


class Curve(NamedTuple):
    """Mean and band over the seeds of an experiment."""

    x: Array
    mean: Array
    low: Array
    high: Array


def curve(group: Group, x: str, y: str, band: str = "deviation") -> Curve:
    """What is drawn of a group, at the rounds that all its results have. ``band``: one of BANDS."""
    rounds = group.results[0].history["round"]
    for result in group.results[1:]:
        rounds = np.intersect1d(rounds, result.history["round"])
    places = [np.searchsorted(result.history["round"], rounds) for result in group.results]
    xs, ys = (
        np.array([one.history[name][at] for one, at in zip(group.results, places, strict=True)], float)
        for name in (x, y)
    )
    with np.errstate(invalid="ignore", over="ignore"):  # runs that diverge
        mean = ys.mean(axis=0)
        spread = ys.std(axis=0, ddof=1) if len(ys) > 1 else np.zeros_like(mean)
        if band == "range":
            return Curve(xs.mean(axis=0), mean, ys.min(axis=0), ys.max(axis=0))
        return Curve(xs.mean(axis=0), mean, mean - spread, mean + spread)


def _falls(mean: Array) -> bool:
    """Whether it fits on a logarithmic axis: above zero but for what rounding leaves at the end."""
    there = mean[np.isfinite(mean)]
    return bool(len(there) and there[0] > 0 and (there > -1e-9 * there[0]).all() and (there > 0).mean() > 0.5)


def _thin(one: Curve, most: int | None) -> Curve:
    step = 1 if most is None else max(1, len(one.x) // most)
    kept = np.union1d(np.arange(0, len(one.x), step), [len(one.x) - 1])
    return Curve(*(values[kept] for values in one))


def quantity(groups: Sequence[Group], asked: str | None = None) -> str:
    """What to draw: what was asked for, or the first of QUANTITIES that all have. Raises InputError."""
    shared = columns(groups)
    if asked is not None and asked not in shared:
        raise InputError(f"not all files have the history {asked!r}; they share: {', '.join(shared)}")
    found = asked or next((name for name in QUANTITIES if name in shared), None)
    if found is None:
        raise InputError(f"the files share none of {', '.join(QUANTITIES)}: say which to draw of {', '.join(shared)}")
    return found


def columns(groups: Sequence[Group]) -> list[str]:
    """What the histories of all results have."""
    return look.shared_columns([result.history for group in groups for result in group.results])


def draw(
    groups: Sequence[Group],
    x: str,
    y: str,
    *,
    title: str | None = None,
    log_x: bool = False,
    band: str = "deviation",
    width: float = look.PAGE,
    height: float | None = None,
    legend: bool = True,
    most: int | None = None,
) -> Any:
    """A matplotlib figure with a curve for each group; log scale upwards but for accuracies and values below zero.

    ``most``: points of a curve, about; of more every second, third, … is drawn, and the last.
    """
    rows = _legend_rows(groups, width) if legend and len(groups) > 1 else 0
    with look.style():
        made, axes = look.figure(width, (height or 0.6 * width) + 0.14 * rows)
        axis = axes[0, 0]
        drawn = [_thin(curve(group, x, y, band), most) for group in groups]
        log_y = y != "accuracy" and all(_falls(one.mean) for one in drawn)
        if log_y:
            drawn = _without_the_diverged(drawn)
        for group, one, style in zip(groups, drawn, styles(groups, drawn), strict=True):
            if np.isfinite(one.mean).sum() == 1:
                style = style | {"marker": "o"}  # a line of one point is none
            axis.plot(one.x, one.mean, label=look.plain(look.shortened(group.label, _letters(width))), **style)
            if band != "none" and len(group.results) > 1:
                # On a logarithmic axis a band that reaches zero goes to the axis, not to infinity.
                low = np.where(one.low > 0, one.low, one.mean * 1e-3) if log_y else one.low
                axis.fill_between(one.x, low, one.high, color=style["color"], alpha=0.15, linewidth=0)
        if log_y:
            axis.set_yscale("log", nonpositive="mask")
            _clip(axis, drawn)
        if log_x:  # a first point at zero rounds or bytes falls off
            axis.set_xscale("log", nonpositive="mask")
        else:
            axis.ticklabel_format(axis="x", scilimits=(-3, 5))
        axis.set_xlabel(look.words(x))
        axis.set_ylabel(look.words(y))
        if title:
            axis.set_title(look.fitting(title, width))
        if rows:
            made.legend(loc="outside lower center", ncols=-(-len(groups) // rows), handlelength=2.6)
        elif legend and len(groups) > 1:
            axis.legend(handlelength=2.6)
        return made


def styles(groups: Sequence[Group], drawn: Sequence[Curve]) -> list[dict[str, Any]]:
    """How each curve looks. Where two settings vary, the dashes say the one and colours the other."""
    keys = [list(dict.fromkeys(group.settings[key] for group in groups)) for key in groups[0].settings]
    dense = len(groups) > len(look.COLOURS) or any(len(one.x) > _MANY for one in drawn)
    if len(keys) == 2 and len(groups) > len(look.COLOURS):
        few, many = sorted(range(2), key=lambda number: len(keys[number]))
        if len(keys[few]) <= len(look.DASHES) and len(keys[many]) <= len(look.COLOURS):
            places = [[keys[k].index(value) for k, value in enumerate(group.settings.values())] for group in groups]
            return [look.line(len(look.COLOURS) * place[few] + place[many]) for place in places]
    return [look.line(number, dense) for number in range(len(groups))]


def _legend_rows(groups: Sequence[Group], width: float) -> int:
    """How many rows a legend below the axes has; 0: it has room inside them."""
    longest = min(_letters(width), max(len(group.label) for group in groups))
    if len(groups) <= 5 and longest <= 0.6 * _letters(width):
        return 0
    fits = max(1, min(4, int(width * 16 // (longest + 9))))
    return -(-len(groups) // fits)


def _letters(width: float) -> int:
    """Of a label in a legend as wide as the figure."""
    return min(70, int((width - 0.55) / 0.062))


def _without_the_diverged(drawn: Sequence[Curve]) -> list[Curve]:
    """Curves end where they leave any picture: matplotlib cannot make an axis that reaches there."""
    least = min((one.mean[one.mean > 0].min(initial=np.inf) for one in drawn), default=1.0)
    return [
        one._replace(mean=np.where(one.mean < _FAR * least, one.mean, np.nan), high=np.minimum(one.high, _FAR * least))
        for one in drawn
    ]


def _clip(axis: Any, drawn: Sequence[Curve]) -> None:
    """Keep bands that reach zero from squeezing the means."""
    means = np.concatenate([one.mean for one in drawn])
    means = means[np.isfinite(means) & (means > 0)]
    if len(means):
        axis.set_ylim(bottom=max(axis.get_ylim()[0], means.min() / 3))
