"""A running job, read from its result file: ``mpicoded show --follow``."""

import os
import sys
import time
from collections.abc import Iterator

from mpicoded.data.results import Results, load_results

_POLL_SECONDS = 0.5
_QUANTITIES = ("loss", "suboptimality", "accuracy", "test_loss", "seconds")


def versions(path: str) -> Iterator[Results]:
    """The result as it is now, and again whenever it is replaced, until the run is finished.

    Waits where there is no file yet. Raises InputError where it is something else than a result.
    """
    seen: tuple[int, ...] | None = None
    said = False
    while True:
        try:
            state = os.stat(path)
        except FileNotFoundError:
            if not said:
                print(f"mpicoded: waiting for {path}", file=sys.stderr, flush=True)
            said = True
        else:
            stamp = state.st_ino, state.st_mtime_ns, state.st_size
            if stamp != seen:
                seen, result = stamp, load_results(path)
                yield result
                if result.finished:
                    return
        time.sleep(_POLL_SECONDS)


def follow(path: str) -> int:
    """Print each new row of the history, and each new warning, until the run is finished."""
    rows = warnings = 0
    for result in versions(path):
        history = result.history
        if len(history["round"]) < rows:
            print("begun anew")
            rows = warnings = 0
        for line in result.warnings[warnings:]:
            print(f"warning: {line}")
        for row in range(rows, len(history["round"])):
            print(_line(result, row))
        rows, warnings = len(history["round"]), len(result.warnings)
        sys.stdout.flush()
    print("finished")
    return 0


def _line(result: Results, row: int) -> str:
    of = str(result.experiment.get("rounds", "?"))
    values = [f"{name} {result.history[name][row]:.4g}" for name in _QUANTITIES if name in result.history]
    return f"round {int(result.history['round'][row]):>{len(of)}}/{of}  {'  '.join(values)}"
