"""Seconds that this process spends in each phase of the round."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import numpy as np

from mpicoded.algorithms.shapes import Array

PHASES = (
    "broadcast",
    "plan",
    "compute",
    "encode",
    "attack",
    "compress",
    "gather",
    "decompress",
    "decode",
    "estimate",
    "filter",
    "aggregate",
    "suspect",
    "step",
    "evaluate",
    "write",
)
OUTSIDE = ("evaluate", "write")  # not part of a round


class Clock:
    """Adds up seconds by phase; phases do not nest."""

    def __init__(self) -> None:
        self.seconds = np.zeros(len(PHASES))
        self.entered = 0  # phases so far
        self.current = ""  # that it is in

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a block."""
        start = perf_counter()
        self.entered += 1
        self.current = name
        try:
            yield
        finally:
            self.current = ""
            self.seconds[PHASES.index(name)] += perf_counter() - start

    def outside(self) -> float:
        """Seconds spent in what is not part of a round."""
        return float(sum(self.seconds[PHASES.index(name)] for name in OUTSIDE))

    @staticmethod
    def table(rows: Array) -> dict[str, Array]:
        """The seconds of all ranks, (ranks, phases), by phase."""
        return {name: rows[:, column].copy() for column, name in enumerate(PHASES)}
