"""Seconds that this process spends in each phase of the round."""

from time import perf_counter

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


class Phase:
    """Times blocks. A class, since contextlib's generators take as long as some of what is timed."""

    def __init__(self, clock: "Clock", name: str, column: int) -> None:
        self._clock, self._name, self._column = clock, name, column
        self._start = 0.0

    def __enter__(self) -> None:
        self._clock.entered += 1
        self._clock.current = self._name
        self._start = perf_counter()

    def __exit__(self, *error: object) -> None:
        self._clock.seconds[self._column] += perf_counter() - self._start
        self._clock.current = ""


class Clock:
    """Adds up seconds by phase; phases do not nest."""

    def __init__(self) -> None:
        self.seconds = [0.0] * len(PHASES)  # a list: to add to a number of an array would take as long as some phases
        self.entered = 0  # phases so far
        self.current = ""  # that it is in
        self._phases = {name: Phase(self, name, column) for column, name in enumerate(PHASES)}

    def phase(self, name: str) -> "Phase":
        """To time a block."""
        return self._phases[name]

    def reset(self) -> None:
        """Begin at zero again."""
        self.seconds[:] = [0.0] * len(PHASES)

    def outside(self) -> float:
        """Seconds spent in what is not part of a round."""
        return float(sum(self.seconds[PHASES.index(name)] for name in OUTSIDE))

    @staticmethod
    def table(rows: Array) -> dict[str, Array]:
        """The seconds of all ranks, (ranks, phases), by phase."""
        return {name: rows[:, column].copy() for column, name in enumerate(PHASES)}
