"""The server's line to another rank: orders go out, and at most one answer is owed."""

from collections.abc import Callable
from enum import IntEnum
from typing import Any

import numpy as np

from mpicoded.algorithms.shapes import Array


class Tag(IntEnum):
    """What a message is; between two ranks, those of one tag arrive in order."""

    ORDER = 1
    PAYLOAD = 2  # what belongs to an order
    HEADER = 3  # of an answer, see ``answer_layout``
    RECORDS = 4  # the answer itself
    RELAY = 5  # what the ranks tell each other


class Line:
    """Messages to and from one rank, none of which is waited for. Every method may raise MPI's exception: a death."""

    def __init__(
        self, comm: Any, rank: int, place: int, header: np.dtype[Any], items: Callable[[Array], list[Any]]
    ) -> None:
        """``rank``: in the communicator that all started with; ``place``: in ``comm``; ``items``: an array as MPI's."""
        self._comm, self._place, self._items = comm, place, items
        self.rank = rank
        self.alive = True
        self.header = np.zeros(1, header)
        self.in_records = False  # the header is here, the records are not
        self._buffer = np.empty(0, np.uint8)
        self._request: Any = None
        self._sends: list[tuple[Any, Array]] = []  # requests, and what must not change before they end

    @property
    def owes(self) -> bool:
        """Whether an answer is outstanding."""
        return self._request is not None

    @property
    def sends(self) -> bool:
        """Whether something that was sent may be under way, or is not looked after yet."""
        return bool(self._sends)

    @property
    def records(self) -> Array:
        """The bytes of the answer that has come."""
        return self._buffer[: int(self.header["nbytes"][0])]

    def post(self, array: Array, tag: Tag) -> None:
        """Start to send an array, which must stay as it is."""
        request = self._comm.Isend(self._items(array.reshape(-1)), self._place, tag)
        self._sends.append((request, array))

    def expect(self) -> None:
        """Be ready for an answer."""
        self.in_records = False
        self._request = self._comm.Irecv(self._items(self.header), self._place, Tag.HEADER)

    def look(self) -> bool:
        """Whether the answer is complete now; it is taken by that."""
        if not self._request.Test():
            return False
        nbytes = int(self.header["nbytes"][0])
        if nbytes and not self.in_records:
            if self._buffer.size < nbytes:
                self._buffer = np.empty(nbytes, np.uint8)
            self.records[:] = 0xFF  # not a number: a receive that fails without an error shows
            self.in_records = True
            self._request = self._comm.Irecv(self._items(self.records), self._place, Tag.RECORDS)
            return self.look()
        self._sends = [(request, array) for request, array in self._sends if not request.Test()]
        self._request = None
        return True

    def drop(self) -> None:
        """Forget what is under way: the rank has died."""
        self.alive = False
        self._request, self._sends = None, []
