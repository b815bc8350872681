"""Alpha and beta of the line between two ranks: how long a message takes, and each byte of a large one."""

from collections.abc import Callable
from time import perf_counter

import numpy as np
from mpi4py import MPI

from mpicoded.transport.base import Transport

_SMALL, _LARGE = 8, 1 << 24  # bytes
_TIMES, _LARGE_TIMES = 300, 12


def ping_pong(transport: Transport) -> tuple[float, float, float]:
    """Seconds of a message between ranks 0 and 1, of a byte of it, and of a collective call beside its messages.

    All ranks of MPI's world call it; the third is of all of them, and means something for few. Each is that of the
    fastest of several trips: what others do on the machine is not the line's.
    """
    comm = MPI.COMM_WORLD.Dup()
    try:
        small = _trip(comm, _SMALL, _TIMES) / 2
        large = _trip(comm, _LARGE, _LARGE_TIMES) / 2
        record, parameters = np.zeros(1, [("value", "f8")]), np.zeros(1)

        def round() -> None:
            transport.broadcast(parameters)
            transport.gather(record, 0, transport.size)

        calls = 3  # a Bcast, and a Gather and a Gatherv for the records
        call = (_fastest(comm, round, _TIMES) - calls * small) / calls
    finally:
        comm.Free()
    return small, max(0.0, large - small) / _LARGE, max(0.0, call)


def _trip(comm: "MPI.Comm", nbytes: int, times: int) -> float:
    there = np.ones(nbytes if comm.rank < 2 else 0, np.uint8)

    def trip() -> None:
        if comm.rank == 0:
            comm.Send(there, 1)
            comm.Recv(there, 1)
        elif comm.rank == 1:
            comm.Recv(there, 0)
            comm.Send(there, 0)

    return _fastest(comm, trip, times)


def _fastest(comm: "MPI.Comm", call: Callable[[], None], times: int) -> float:
    seconds = float("inf")
    for _ in range(times):
        comm.Barrier()
        start = perf_counter()
        call()
        seconds = min(seconds, perf_counter() - start)
    return seconds
