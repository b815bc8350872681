"""A running job, read from its result file: ``mpicoded show --follow``."""

import os
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mpicoded.data.results import Results, load_results
from mpicoded.errors import InputError, one_line, printable, understood

_POLL_SECONDS = 0.5
_QUANTITIES = ("loss", "suboptimality", "accuracy", "test_loss", "seconds")


class News(NamedTuple):
    """The result as it is now."""

    result: Results
    first: int  # its first row that has not come before
    anew: bool  # whether it is another run than before


def news(path: str) -> Iterator[News]:
    """The result as it is now, and again whenever it is replaced, until the run is finished.

    Waits where there is no file yet. A run that goes on from a checkpoint repeats rows: those are not new. Raises
    InputError where the file is something else than a result.
    """
    seen: Results | None = None
    for result in _versions(path):
        anew = seen is not None and not _continues(seen, result)
        known = 0 if seen is None or anew else len(seen.history["round"])
        yield News(result, known, anew)
        if known <= len(result.history["round"]):
            seen = result


def _versions(path: str) -> Iterator[Results]:
    stamp: tuple[int, ...] | None = None
    said = False
    while True:
        try:
            state = os.stat(path)
        except FileNotFoundError:
            if not said:
                print(f"mpicoded: waiting for {path}", file=sys.stderr, flush=True)
            said = True
        except (OSError, ValueError) as error:
            raise InputError(f"result file {path} cannot be read: {one_line(error)}") from None
        else:
            now = state.st_ino, state.st_mtime_ns, state.st_size
            if now != stamp:
                stamp, result = now, load_results(path)
                yield result
                if result.finished:
                    return
        time.sleep(_POLL_SECONDS)


def _continues(seen: Results, result: Results) -> bool:
    """Whether one is the other, at another time."""
    both = min(len(seen.history["round"]), len(result.history["round"]))
    return seen.toml == result.toml and all(
        np.array_equal(seen.history[name][:both], result.history[name][:both], equal_nan=True)
        for name in ("round", "loss", "test_loss")
        if name in seen.history and name in result.history
    )


def follow(path: str) -> int:
    """Print each new row of the history, and each new warning, until the run is finished."""
    warned: list[str] = []
    for result, first, anew in news(path):
        if anew:
            print("begun anew")
            warned = []
        for line in result.warnings:
            if line not in warned:
                print(printable(f"warning: {line}"))
        with understood(f"cannot show {path}"):
            for row in range(first, len(result.history["round"])):
                print(_line(result, row))
        warned = result.warnings
        sys.stdout.flush()
    print("finished")
    return 0


def _line(result: Results, row: int) -> str:
    of = str(result.experiment.get("rounds", "?"))
    values = [f"{name} {result.history[name][row]:.4g}" for name in _QUANTITIES if name in result.history]
    return f"round {int(result.history['round'][row]):>{len(of)}}/{of}  {'  '.join(values)}"
