"""Choose the transport: MPI where a launcher started this process, else none."""

import os
import sys

from mpicoded.errors import InputError
from mpicoded.transport.base import Transport
from mpicoded.transport.local import LocalTransport

# Number of processes and own rank, as launchers tell them to each process.
_LAUNCHERS = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),  # Open MPI
    ("PMI_SIZE", "PMI_RANK"),  # MPICH, Intel MPI, Cray, srun --mpi=pmi2
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),
    ("PALS_SIZE", "PALS_RANKID"),
    ("FLUX_JOB_SIZE", "FLUX_TASK_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),  # srun
)


def launched() -> tuple[int, int] | None:
    """(processes, own rank) as the launcher says, or None where this process was started by itself."""
    for size, rank in _LAUNCHERS:
        if os.environ.get(size, "").isdigit() and os.environ.get(rank, "").isdigit():
            return int(os.environ[size]), int(os.environ[rank])
    return None


def connect() -> Transport:
    """The transport of this process. Raises InputError where launcher and MPI library do not fit."""
    told = launched()
    if told is None and "mpi4py.MPI" not in sys.modules:
        return LocalTransport()
    try:
        from mpicoded.transport.mpi import MpiTransport
    except ImportError as error:
        raise InputError(f"started by an MPI launcher, but mpi4py cannot be imported: {error}") from None
    transport = MpiTransport()
    if told is not None and told[0] > 1 and transport.size == 1:
        raise InputError(
            f"the launcher started {told[0]} processes, but each is rank 0 of 1 in {transport.description}: launcher "
            "and MPI library do not belong together (try: mpicoded doctor)"
        )
    return transport
