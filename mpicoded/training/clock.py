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


_COLUMNS = {name: column for column, name in enumerate(PHASES)}


class Phase:
    """Times blocks. A class, since contextlib's generators take as long as some of what is timed."""

    def __init__(self, clock: "Clock", name: str) -> None:
        self._clock, self._name = clock, name

    def __enter__(self) -> None:
        self._clock.enter(self._name)

    def __exit__(self, *error: object) -> None:
        self._clock.leave()


class Clock:
    """Adds up seconds by phase; phases do not nest.

    The phases of a round, which follow each other, are entered one by one: blocks would cost as much as some of them.
    """

    def __init__(self) -> None:
        self.seconds = [0.0] * len(PHASES)  # a list: to add to a number of an array would take as long as some phases
        self.entered = 0  # phases so far
        self.current = ""  # that it is in
        self._column, self._since = 0, 0.0
        self._phases = {name: Phase(self, name) for name in PHASES}

    def enter(self, name: str) -> None:
        """Begin a phase, and end the one that it is in."""
        now = perf_counter()
        if self.current:
            self.seconds[self._column] += now - self._since
        self.current, self._column, self._since = name, _COLUMNS[name], now
        self.entered += 1

    def leave(self) -> None:
        """End the phase that it is in."""
        if self.current:
            self.seconds[self._column] += perf_counter() - self._since
        self.current = ""

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
