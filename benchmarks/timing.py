"""Timing on machines that have other things to do."""

import time
from collections.abc import Callable, Mapping

_SHORTEST = 2e-3  # seconds that one measurement takes at least, or the clock and the loop would show

# glibc's malloc hands large blocks back to the system and has them paged in anew at each call, until it has seen one of
# about this size freed, as it soon has in a run. Without this, figures would depend on what was measured before them.
bytes(31 << 20)


def fastest(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each call at its fastest.

    The calls are taken in turn, so that a change of the machine's load hits all of them and their ratios stay.
    """
    loops = {}
    for name, call in calls.items():
        call()  # caches and tables are filled, pages are there
        loops[name] = 1 + int(_SHORTEST / _seconds(call, 1))
    seconds = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name] = min(seconds[name], _seconds(call, loops[name]))
    return seconds


def _seconds(call: Callable[[], object], loops: int) -> float:
    start = time.perf_counter()
    for _ in range(loops):
        call()
    return (time.perf_counter() - start) / loops
