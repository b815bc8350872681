"""Choose the transport: MPI where a launcher started this process, else none."""

import sys

from mpicoded.errors import InputError
from mpicoded.transport.base import Transport
from mpicoded.transport.launched import launched
from mpicoded.transport.local import LocalTransport


def connect() -> Transport:
    """The transport of this process. Raises InputError where launcher and MPI library do not fit."""
    told = launched()
    if told is None and "mpi4py.MPI" not in sys.modules:
        return LocalTransport()
    try:
        from mpicoded.transport.mpi import MpiTransport
    except (ImportError, InputError) as error:
        if told is None or told[0] == 1:  # a shell inside a batch step, say: one process needs no MPI
            return LocalTransport()
        raise InputError(f"started by an MPI launcher, but MPI cannot be loaded: {error}") from None
    transport = MpiTransport()
    if told is not None and told[0] > 1 and transport.size == 1:
        raise InputError(
            f"the launcher started {told[0]} processes, but each is rank 0 of 1 in {transport.description}: launcher "
            "and MPI library do not belong together (try: mpicoded doctor)"
        )
    return transport
