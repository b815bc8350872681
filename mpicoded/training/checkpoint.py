"""When to save, when to stop, and what of a run is saved."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType
from typing import Any

from mpicoded.errors import one_line
from mpicoded.transport.base import Transport

_MARGIN = 10.0  # seconds that the last round and its checkpoint may take, where a run has a time limit
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Wish(IntEnum):
    """What a rank wants before the next round."""

    GO_ON = 0
    SAVE = 1
    STOP = 2  # save and end the run, to be resumed


class Keeper:
    """When to save or stop: the server asks, the signals of other ranks reach it with what they send."""

    def __init__(
        self,
        transport: Transport,
        rounds: int | None,
        seconds: float | None,
        save: Callable[[int, dict[str, Any]], None],
        limit: float | None = None,
    ) -> None:
        """Save after so many rounds or seconds; ``limit``: stop before so many seconds are over.

        ``save`` gets the round and the state.
        """
        self._transport, self._rounds, self._seconds, self._save = transport, rounds, seconds, save
        self._limit = limit
        self._signalled = 0
        self._over = False
        self._start = self._last_time = self._last_wish = time.monotonic()
        self._longest = 0.0  # seconds of a round, with what is between rounds
        self._last_round: int | None = None

    def wish(self, round: int) -> Wish:
        """What all ranks do before this round."""
        if self._last_round is None:
            self._last_round = round
        if self._up(round) or self._transport.heard == Wish.STOP:
            return Wish.STOP
        due = self._rounds is not None and round % self._rounds == 0
        late = self._seconds is not None and time.monotonic() - self._last_time >= self._seconds
        return Wish.SAVE if round > self._last_round and (due or late) else Wish.GO_ON

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

    def begin_again(self) -> None:
        """Forget the rounds so far: another server goes on from the last checkpoint."""
        self._last_round = None

    @property
    def cause(self) -> str:
        """What this rank stopped for: a signal, by name, or the time limit; empty: another rank had the reason."""
        if self._signalled:
            return signal.Signals(self._signalled).name
        return "the time limit" if self._over else ""

    def keep(self, round: int, state: dict[str, Any]) -> None:
        """Save the state before this round. Raises OSError."""
        try:
            self._save(round, state)
        except OSError as error:
            raise OSError(f"the checkpoint cannot be written: {one_line(error)}") from error
        self._last_round, self._last_time = round, time.monotonic()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals that end a job as a wish to stop. A second Ctrl-C interrupts at once."""

        def note(number: int, frame: FrameType | None) -> None:
            # Other signals may come twice where the batch system and the launcher both pass them on.
            if self._signalled and number == signal.SIGINT:
                raise KeyboardInterrupt
            self._signalled = number
            self._transport.wish = Wish.STOP
            if self._transport.leads:
                self._transport.heard = Wish.STOP

        before = {number: signal.signal(number, note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
