"""One look for all figures: sizes of a printed page, colours and dashes that are told apart, words for the axes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpicoded.data.naming import COLUMNS
from mpicoded.errors import InputError

COLUMN, PAGE = 3.5, 7.0
"""Widths in inches: one column of a two-column page, and all of it."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, told apart by colour-blind readers; dashes and marks tell them apart in grey print."""
DASHES = ("-", "--", "-.", ":")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
_LETTER = 0.072  # inches of a letter in a title
GREY = "#767676"
SEQUENCE = "cividis"
"""The colours of numbers: the same to colour-blind readers, and in grey print."""
ENDINGS = (".png", ".pdf", ".svg")
_STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "pdf.fonttype": 42,
    "axes.formatter.use_mathtext": True,
}


def figure(width: float, height: float, rows: int = 1, columns: int = 1, **words: Any) -> tuple[Any, Any]:
    """A matplotlib figure of this size in inches, and its axes (rows, columns). ``words`` go to ``subplots``.

    Raises InputError where there is no matplotlib.
    """
    with style():
        from matplotlib.figure import Figure

        made = Figure(figsize=(width, height), layout="constrained")
        return made, made.subplots(rows, columns, squeeze=False, **words)


def style() -> Any:
    """The context in which figures are made and saved. Raises InputError where there is no matplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise InputError("a picture needs matplotlib: pip install 'mpicoded[plots]'") from None
    return matplotlib.rc_context(_STYLE)


def line(number: int, dense: bool = True) -> dict[str, Any]:
    """How the line of this number looks; the colour changes first. Not ``dense``: with a mark at each point."""
    again, place = divmod(number, len(COLOURS))
    dash = DASHES[again % len(DASHES)] if dense else DASHES[number % len(DASHES)]
    looks: dict[str, Any] = {"color": COLOURS[place], "linestyle": dash, "linewidth": 1.4, "markersize": 3.5}
    if not dense:
        looks["marker"] = MARKS[(place + 3 * again) % len(MARKS)]  # another one where the colour comes again
    elif number >= len(COLOURS) * len(DASHES):  # some marks, where colours and dashes are at their end
        looks |= {"marker": MARKS[(number // (len(COLOURS) * len(DASHES)) - 1) % len(MARKS)], "markevery": 0.1}
    return looks


def words(name: str) -> str:
    """A column of the history in words, its unit among them."""
    return COLUMNS.get(name, ("1", name))[1]


def plain(text: str) -> str:
    """Text in which matplotlib sees no mathematics."""
    return text.replace("$", r"\$")


def shortened(text: str, most: int) -> str:
    """At most so many letters of a label: what stands in the middle is left out."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half].rstrip()}…{text[-half:].lstrip()}"


def fitting(text: str, width: float) -> str:
    """A title that fits into so many inches."""
    return plain(shortened(text, int(width / _LETTER)))


def check_output(path: str) -> None:
    """Raise InputError where a picture of this name cannot be made."""
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise InputError(f"picture {path}: the ending must be one of {', '.join(ENDINGS)}, got {ending or 'none'!r}")


def save(made: Any, path: str) -> None:
    """Write a figure; the ending says as what. Raises InputError where it cannot be written."""
    check_output(path)
    try:
        with style():
            made.savefig(path, dpi=200)
    except OSError as error:
        raise InputError(f"picture {path} cannot be written: {error.strerror or error}") from None


def shared_columns(histories: Sequence[dict[str, Any]]) -> list[str]:
    """What all histories have."""
    return [name for name in histories[0] if all(name in history for history in histories)]
