"""Memory that the ranks of a node have in common: MPI's shared windows."""

import ctypes
import errno
import os
from typing import Any

import numpy as np
from mpi4py import MPI

from mpicoded.algorithms.shapes import Array
from mpicoded.errors import RunError, one_line
from mpicoded.transport.base import block
from mpicoded.transport.mpi import MpiTransport

_FOLDER = "/dev/shm"
_TOLD_FOLDER = "OMPI_MCA_osc_sm_backing_directory"  # where Open MPI has been told to make windows
_RESERVE = 16 << 20  # bytes for each rank: the MPI's own messages take theirs there when they need them
_POPULATE_WRITE = 23  # of Linux' madvise, from 5.14 on


class MpiNode:
    """The ranks of a communicator whose processes can have memory in common."""

    def __init__(self, comm: Any, rank: int) -> None:
        """``rank``: this one's number in the run."""
        self._comm, self._everyone = comm, MpiTransport(comm, private=True)
        self.place: int = comm.rank
        self.ranks = np.empty(comm.size, np.int64)
        comm.Allgather(np.array([rank], np.int64), self.ranks)
        self._windows: list[Any] = []

    def memory(self, nbytes: int) -> Array | None:
        """A window. Whether there is room is found out first: else Open MPI's other ranks would wait for ever.

        Each rank takes a part of it at once, so that nobody meets a bus error later, when others have filled the room.
        Raises RunError where others have filled it just now.
        """
        room = self.place > 0 or _has_room(nbytes + _RESERVE * len(self.ranks))
        if not self._all(nbytes > 0 and room) or not self._all(self._can()):
            return None
        try:
            window = self._window(nbytes)
        except MPI.Exception as error:
            raise RunError(f"{nbytes} bytes of shared memory were refused: {one_line(error)}") from None
        buffer: Any = window.Shared_query(0)[0]
        memory: Array = np.frombuffer(buffer, np.uint8)
        if not self._all(_take(memory[slice(*block(nbytes, self.place, len(self.ranks)))])):
            window.Free()
            return None
        window.Fence()
        self._windows.append(window)
        return memory

    def settle(self, error: str | None) -> str | None:
        """A fence of each window."""
        for window in self._windows:
            window.Fence()
        return next((text for text in self._everyone.texts(error or "") if text), None)

    def _window(self, nbytes: int) -> Any:
        """All of it on the first rank's account, so that it is in one piece."""
        return MPI.Win.Allocate_shared(nbytes if self.place == 0 else 0, 1, comm=self._comm)

    def _can(self) -> bool:
        """Whether this MPI has such windows at all. Where it has none it says so on all ranks."""
        try:
            self._window(1).Free()
        except (NotImplementedError, MPI.Exception):
            return False
        return True

    def _all(self, good: bool) -> bool:
        return self._everyone.agree(None if good else "no") is None


def _has_room(nbytes: int) -> bool:
    """Whether shared memory has room for so many bytes, as its file system says. Where there is none, nobody knows."""
    folder = os.environ.get(_TOLD_FOLDER, _FOLDER)
    try:
        state = os.statvfs(folder)
    except OSError:
        return False
    return os.access(folder, os.W_OK) and state.f_bavail * state.f_frsize >= nbytes


def _take(memory: Array) -> bool:
    """Have the system provide these pages now; whether it can. Systems that cannot be asked are believed."""
    page = os.sysconf("SC_PAGE_SIZE")
    start = memory.ctypes.data // page * page
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    failed = madvise(start, memory.ctypes.data + memory.nbytes - start, _POPULATE_WRITE)
    return not failed or ctypes.get_errno() == errno.EINVAL
