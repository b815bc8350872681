"""When to save, when to stop, and what of a run is saved."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType
from typing import Any

from mpicoded.transport.base import Transport

_MARGIN = 10.0  # seconds that the last round and its checkpoint may take, where a run has a time limit
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Wish(IntEnum):
    """What a rank wants before the next round; all do what the most urgent wish says."""

    GO_ON = 0
    SAVE = 1
    STOP = 2  # save and end the run, to be resumed


class Keeper:
    """Agrees on when to save or stop. ``save`` is called on rank 0 with the state; the others get None."""

    def __init__(
        self,
        transport: Transport,
        rounds: int | None,
        seconds: float | None,
        save: Callable[[int, dict[str, Any]], None],
        limit: float | None = None,
    ) -> None:
        """Save after so many rounds or seconds; ``limit``: stop before so many seconds are over."""
        self._transport, self._rounds, self._seconds, self.save = transport, rounds, seconds, save
        self._limit = limit
        self._signalled = 0
        self._over = False
        self._start = self._last_time = self._last_wish = time.monotonic()
        self._longest = 0.0  # seconds of a round, with what is between rounds
        self._last_round: int | None = None

    def wish(self, round: int) -> Wish:
        """What all ranks do before this round. Collective."""
        if self._last_round is None:
            self._last_round = round
        mine = Wish.STOP if self._signalled or (self._transport.rank == 0 and self._up(round)) else Wish.GO_ON
        due = self._rounds is not None and round % self._rounds == 0
        late = self._seconds is not None and time.monotonic() - self._last_time >= self._seconds
        if round > self._last_round and (due or (late and self._transport.rank == 0)):
            mine = max(mine, Wish.SAVE)
        return Wish(self._transport.largest(mine))

    def _up(self, round: int) -> bool:
        """Whether another round and the checkpoint might not fit into the time that is left."""
        now = time.monotonic()
        if round > (self._last_round or 0):
            self._longest = max(self._longest, now - self._last_wish)
        self._last_wish = now
        if self._limit is None:
            return False
        self._over = now - self._start + 2 * self._longest + min(_MARGIN, self._limit / 10) >= self._limit
        return self._over

    @property
    def cause(self) -> str:
        """What this rank stopped for: a signal, by name, or the time limit; empty: another rank had the reason."""
        if self._signalled:
            return signal.Signals(self._signalled).name
        return "the time limit" if self._over else ""

    def saved(self, round: int) -> None:
        """Note that the state before this round is safe."""
        self._last_round, self._last_time = round, time.monotonic()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals that end a job as a wish to stop; a second one interrupts at once."""

        def note(number: int, frame: FrameType | None) -> None:
            if self._signalled:
                raise KeyboardInterrupt
            self._signalled = number

        before = {number: signal.signal(number, note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
