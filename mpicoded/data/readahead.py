"""A thread that reads what comes next into one buffer while another is in use."""

import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np

from mpicoded.algorithms.shapes import Array, Float, Int, Shaped
from mpicoded.data.rowfile import Run

_PATIENCE = 60  # seconds: a disk that does not answer must not keep a process for ever


class Read(NamedTuple):
    """Some subsets of a block to be read."""

    block: int
    places: Int[Array, " subsets"]
    runs: list[Run]

    def covers(self, other: "Read") -> bool:
        """Whether nothing of the other is missing here."""
        return self.block == other.block and bool(np.isin(other.places, self.places).all())


class Buffer(NamedTuple):
    """Room for a block."""

    x: Float[Array, "rows features"]
    y: Shaped[Array, " rows"]


class _Request:
    """A read and how it went."""

    def __init__(self, read: Read, buffer: Buffer) -> None:
        self.read, self.buffer = read, buffer
        self.done, self.dropped = threading.Event(), False
        self.error: BaseException | None = None


class ReadAhead:
    """Buffers that a thread fills by ``read(runs, x, y)``. It ends with this object, and before the process does.

    If it did not, it might take a lock of HDF5's with it, for which the end of the process would wait.
    """

    def __init__(self, read: Callable[[list[Run], Array, Array], None], buffers: Sequence[Buffer]) -> None:
        self._free, self._count = deque(buffers), len(buffers)
        self._pending: deque[_Request] = deque()  # in the order in which they are read
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()
        thread = threading.Thread(target=_serve, args=(self._requests, read), name="reading ahead", daemon=True)
        thread.start()
        weakref.finalize(self, _end, self._requests, self._pending, thread)

    def take(self, reads: Sequence[Read], number: int) -> Buffer:
        """The buffer with one of these reads, once it is there; the next ones are begun. Raises what reading raised."""
        self._expect(reads, number)
        request = self._pending.popleft()
        self._expect(reads, number + 1)
        request.done.wait()
        if request.error is not None:
            self._free.append(request.buffer)
            raise request.error
        return request.buffer

    def give_back(self, buffer: Buffer, reads: Sequence[Read], number: int) -> None:
        """The buffer of one of these reads is no longer used."""
        self._free.append(buffer)
        self._expect(reads, number + 1)

    def _expect(self, reads: Sequence[Read], number: int) -> None:
        """Have this read and the next ones in hand, each once at most, and drop what was read for something else.

        The last is followed by the first, as it is likely to be in the next round.
        """
        coming = [reads[(number + ahead) % len(reads)] for ahead in range(min(len(reads), self._count))]
        right = 0
        while right < len(self._pending) and right < len(coming) and self._pending[right].read.covers(coming[right]):
            right += 1
        wrong = [self._pending.pop() for _ in range(len(self._pending) - right)]
        for request in wrong:
            request.dropped = True
        for request in wrong:
            request.done.wait()
            self._free.append(request.buffer)
        while self._free and len(self._pending) < len(coming):
            request = _Request(coming[len(self._pending)], self._free.popleft())
            self._pending.append(request)
            self._requests.put(request)


def _end(requests: "SimpleQueue[_Request | None]", pending: "deque[_Request]", thread: threading.Thread) -> None:
    """Have the thread end, after the read that it is at."""
    for request in pending:
        request.dropped = True
    requests.put(None)
    if thread is not threading.current_thread():  # which may be the one that collects garbage
        thread.join(_PATIENCE)


def _serve(requests: "SimpleQueue[_Request | None]", read: Callable[[list[Run], Array, Array], None]) -> None:
    """The thread's work. It holds no more than these two, so that who owns them can go."""
    while (request := requests.get()) is not None:
        try:
            if not request.dropped:
                read(request.read.runs, *request.buffer)
        except BaseException as error:  # whatever it is, the others wait for it
            request.error = error
        request.done.set()
        del request
