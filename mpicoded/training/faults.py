"""What was wrong with the messages: who sent bad records or none, in which rounds."""

from typing import Any

import numpy as np

from mpicoded.algorithms.shapes import Array, Bool, Int

_BY_DEVICE = ("bad", "missing", "first_round", "last_round")
_NUMBERS = ("saturated", "most_at_once", "undecoded", "first_undecoded", "skipped", "first_skipped")
_MOST_EVENTS = 10_000  # bad or missing records that are kept one by one; all are counted


class Faults:
    """Counts by device, and the first faults one by one. Rounds count from 1 here, as users do.

    ``tolerated``: the most bad and missing records of one round that filters and rule stand. ``leaves_out``: missing
    ones do them no harm, and are only counted.
    """

    def __init__(self, devices: int, tolerated: int, leaves_out: bool = False) -> None:
        self.tolerated, self.leaves_out = tolerated, leaves_out
        self.beyond: tuple[int, int] | None = None  # the first round with more, and how many it had
        self.bad = np.zeros(devices, np.int64)
        self.missing = np.zeros(devices, np.int64)
        self.first_round = np.zeros(devices, np.int64)  # 0: never
        self.last_round = np.zeros(devices, np.int64)
        self.saturated = 0  # numbers at the limit of the wire's type
        self.most_at_once = 0  # bad and missing records in one round
        self.undecoded = 0  # rounds whose code found more lies than it corrects
        self.first_undecoded = 0  # 0: none
        self.skipped = 0  # rounds without a step, since too few messages came
        self.first_skipped = 0  # 0: none
        self._events = np.empty((_MOST_EVENTS, 3), np.int64)
        self._kept = 0

    def note(
        self,
        round: int,
        arrived: Bool[Array, " devices"],
        bad: Bool[Array, " devices"],
        saturated: Int[Array, " devices"],
    ) -> None:
        """Take in a round (counted from 0)."""
        if np.count_nonzero(saturated):
            self.saturated += int(saturated[arrived].sum())
        if not np.count_nonzero(bad) and np.count_nonzero(arrived) == len(arrived):  # as in nearly all rounds
            return
        self.bad += bad
        self.missing += ~arrived
        wrong = bad & arrived if self.leaves_out else bad | ~arrived
        if not wrong.any():
            return
        self.first_round[wrong & (self.first_round == 0)] = round + 1
        self.last_round[wrong] = round + 1
        devices = np.flatnonzero(wrong)
        self.most_at_once = max(self.most_at_once, len(devices))
        if self.beyond is None and len(devices) > self.tolerated:
            self.beyond = (round + 1, len(devices))
        room = self._events[self._kept : self._kept + len(devices)]
        room[:, 0] = round + 1
        room[:, 1] = devices[: len(room)]
        room[:, 2] = ~arrived[room[:, 1]]
        self._kept += len(room)

    def give_up(self, round: int) -> None:
        """Take in a round (counted from 0) that could not be decoded."""
        self.undecoded += 1
        self.first_undecoded = self.first_undecoded or round + 1

    def skip(self, round: int) -> None:
        """Take in a round (counted from 0) in which the parameters stayed as they were."""
        self.skipped += 1
        self.first_skipped = self.first_skipped or round + 1

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        counts = {name: getattr(self, name) for name in (*_BY_DEVICE, *_NUMBERS)}
        return counts | {"events": self.events, "beyond": np.array(self.beyond or (0, 0))}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        for name in _BY_DEVICE:
            getattr(self, name)[:] = state[name]
        for name in _NUMBERS:
            setattr(self, name, int(state[name]))
        self._kept = len(state["events"])
        self._events[: self._kept] = state["events"]
        round, count = state["beyond"].tolist()
        self.beyond = (round, count) if round else None

    @property
    def count(self) -> int:
        """How many faults there were."""
        return int(self.bad.sum() + (0 if self.leaves_out else self.missing.sum()))

    @property
    def events(self) -> Int[Array, "events 3"]:
        """Round, device and whether the record was missing (1) or bad (0), of the first faults."""
        return self._events[: self._kept]
