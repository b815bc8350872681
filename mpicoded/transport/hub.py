"""The server's end of the star: the lines to all other ranks, and how long it waits for their answers."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from mpi4py import MPI

from mpicoded.algorithms.shapes import Array, Bool
from mpicoded.transport.base import Patience
from mpicoded.transport.line import Line, Tag

_NAP = 2e-5  # seconds between two looks
_LATE = 10.0  # times the deadline, or seconds where there is none: for answers that there is no round without


class Hub:
    """Sends to the ranks that the present order is for, and takes answers, also late ones to an order before.

    ``lose(line, error)`` is called for a rank that cannot be reached: it raises the error, or the line is dropped.
    """

    def __init__(self, lines: list[Line], patience: Patience, lose: Callable[[Line, MPI.Exception], None]) -> None:
        self.patience = patience
        self.wish = 0  # the largest that has come with an answer
        self._lines, self._lose = lines, lose
        self._asked: list[Line] = []  # the present order is for them
        self._told: Array | None = None  # what was broadcast last: stays as it is until all have it
        self._number = 0  # of the present order
        self._since = 0.0

    def free(self) -> list[Line]:
        """Those that owe no answer: a new order can go to them."""
        for line in self._owing():
            self._look(line)
        return [line for line in self._lines if line.alive and not line.owes]

    def begin(self, number: int, asked: list[Line]) -> None:
        """Another order begins."""
        self._number, self._asked, self._since = number, asked, time.monotonic()

    def post(self, array: Array, tag: Tag, answered: bool = False) -> None:
        """Start to send an array, which must stay as it is. ``answered``: be ready for an answer."""
        for line in self._asked:
            if line.alive:
                try:
                    line.post(array, tag)
                except MPI.Exception as error:
                    self._lose(line, error)
            if answered and line.alive:
                line.expect()

    def broadcast(self, array: Array) -> None:
        """Send an array that may change at once."""
        told, pending = self._told, any(line.sends for line in self._lines)
        if told is None or pending or (told.shape, told.dtype) != (array.shape, array.dtype):
            self._told = told = array.copy()  # a slow rank may not have the last one yet
        else:
            told[...] = array
        self.post(told, Tag.PAYLOAD)

    def answers(self, arrived: Bool[Array, " devices"] | None = None) -> Iterator[Line]:
        """The answers to the present order as they come; those to an order before are thrown away.

        ``arrived``: which devices' messages have come, kept up to date by the caller, where not all are waited for.
        """
        awaited, limit = list(self._asked), None
        if arrived is None and self.patience.deadline is not None:
            # What an order asks may take longer than a round: the server has just done its own part of it.
            limit = self._since + _LATE * max(self.patience.deadline, time.monotonic() - self._since)
        while True:
            news = False
            for line in self._owing():
                if self._look(line):
                    news = True
                    if line.header["number"][0] == self._number:
                        awaited.remove(line)
                        yield line
            awaited = [line for line in awaited if line.owes]
            if not awaited or (arrived is not None and self._enough(int(arrived.sum()), awaited)):
                return
            if limit is not None and time.monotonic() >= limit:
                return
            if not news:
                time.sleep(_NAP)

    def settle(self) -> None:
        """Wait for those who owe an answer, for a while."""
        limit = time.monotonic() + _LATE * (self.patience.deadline or 1.0)
        while self._owing() and time.monotonic() < limit:
            for line in self._owing():
                self._look(line)
            time.sleep(_NAP)

    def owing(self) -> list[int]:
        """The ranks that owe an answer."""
        return [line.rank for line in self._owing()]

    def _owing(self) -> list[Line]:
        return [line for line in self._lines if line.owes]

    def _enough(self, arrived: int, awaited: list[Line]) -> bool:
        """Whether to wait no longer. Records that are on their way get some more time."""
        patience = self.patience
        if arrived < patience.fewest:
            return False
        if patience.quickest is not None and arrived >= patience.quickest:
            return True
        allowed: Any = patience.deadline
        if allowed is not None and any(line.in_records for line in awaited):
            allowed = 2 * allowed
        return allowed is not None and time.monotonic() - self._since >= allowed

    def _look(self, line: Line) -> bool:
        """Whether the answer of a rank is complete now."""
        try:
            if not line.look():
                return False
        except MPI.Exception as error:
            self._lose(line, error)
            return False
        self.wish = max(self.wish, int(line.header["wish"][0]))
        return True
