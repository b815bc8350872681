"""Whether an MPI launcher started this process, and what it told it. Imports nothing heavy."""

import os

# Number of processes and own rank, as launchers tell them to each process.
_LAUNCHERS = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),  # Open MPI
    ("PMI_SIZE", "PMI_RANK"),  # MPICH, Intel MPI, Cray, srun --mpi=pmi2
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),
    ("PALS_SIZE", "PALS_RANKID"),
    ("FLUX_JOB_SIZE", "FLUX_TASK_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),  # srun
)
# The rank's number on its host. srun's comes last: it is also told to those that start the ranks of other launchers.
_LOCAL_RANKS = (
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",  # MPICH, Intel MPI
    "PMI_LOCAL_RANK",
    "MV2_COMM_WORLD_LOCAL_RANK",
    "PALS_LOCAL_RANKID",
    "FLUX_TASK_LOCAL_ID",
    "SLURM_LOCALID",
)


def launched() -> tuple[int, int] | None:
    """(processes, own rank) as the launcher says, or None where this process was started by itself."""
    for size, rank in _LAUNCHERS:
        if os.environ.get(size, "").isdigit() and os.environ.get(rank, "").isdigit():
            return int(os.environ[size]), int(os.environ[rank])
    return None


def local_rank() -> int:
    """This process's number among those on its host, as the launcher says; 0 where none says it."""
    return next((int(told) for name in _LOCAL_RANKS if (told := os.environ.get(name, "")).isdigit()), 0)


def local_size() -> int | None:
    """How many ranks are on this host, as Open MPI's launcher says."""
    told = os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", "")
    return int(told) if told.isdigit() else None
