"""Whether the MPI moves data from one GPU to another by itself: what its library says, and a trial."""

import ctypes
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mpicoded.algorithms.processors import Processor
from mpicoded.errors import one_line

STAGED = "MPICODED_STAGED"  # set it where an MPI says that it can, and does not
_NUMBERS = 1 << 16  # of the trial: 512 kB, sent in another way than a few bytes
_CUDA = 0  # MPICH's MPIX_GPU_SUPPORT_CUDA


def asked(kinds: str = "") -> tuple[bool, str]:
    """What the MPI library of this process says of GPU buffers, and how it was asked.

    ``kinds``: the kinds of memory that it names, as MPI 4.1 has it. Open MPI and MPICH have functions of their own,
    which mpi4py does not know.
    """
    if os.environ.get(STAGED, "0") != "0":
        return False, f"{STAGED} is set"
    if "cuda" in re.split(r"[,:]", kinds):
        return True, f"mpi_memory_alloc_kinds is {kinds}"
    for library in _libraries():
        if function := getattr(library, "MPIX_Query_cuda_support", None):
            return bool(function() == 1), f"MPIX_Query_cuda_support says {'yes' if function() == 1 else 'no'}"
        if function := getattr(library, "MPIX_GPU_query_support", None):
            found = ctypes.c_int(0)
            yes = function(_CUDA, ctypes.byref(found)) == 0 and found.value == 1
            return yes, f"MPIX_GPU_query_support says {'yes' if yes else 'no'}"
    return False, "it has no function that says whether it takes GPU buffers"


def _libraries() -> Iterator[Any]:
    """The MPI library that is loaded, found by its functions or by its name."""
    yield ctypes.CDLL(None)
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return
    for path in dict.fromkeys(re.findall(r"/\S*/libmpi[^/\s]*\.so\S*", maps)):
        yield ctypes.CDLL(path)


def tried(comm: Any, processor: Processor) -> str:
    """What was wrong with a sum over all ranks and a gathering at rank 0, of buffers on their GPUs; empty: nothing.

    All ranks of the communicator must call it. An MPI that does not see that the memory is a GPU's may end the process.
    """
    own = np.arange(float(_NUMBERS)) + comm.rank
    try:
        mine, total = processor.put(own), processor.put(np.zeros(_NUMBERS))
        everyone = processor.put(np.zeros((comm.size if comm.rank == 0 else 0, _NUMBERS)))
        processor.wait()
        comm.Allreduce(mine, total)
        comm.Gather(mine, everyone if comm.rank == 0 else None)
        ranks = np.arange(comm.size)
        right = np.array_equal(processor.fetch(total), comm.size * np.arange(_NUMBERS) + ranks.sum())
        if comm.rank == 0:
            right &= np.array_equal(processor.fetch(everyone), np.arange(_NUMBERS) + ranks[:, None])
    except Exception as error:  # what an MPI makes of a buffer that it does not know has no end
        return f"a trial failed: {one_line(error)}"
    return "" if right else "a trial gave wrong numbers"
