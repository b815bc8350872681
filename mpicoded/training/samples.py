"""The samples of one rank: read by itself, or one copy for all ranks of its node, of which each reads a part."""

from typing import NamedTuple

import numpy as np

from mpicoded.algorithms.processors import Processor, processor
from mpicoded.algorithms.shapes import Array, Bool, Float, Int, Shaped
from mpicoded.data import layout
from mpicoded.data.layout import Description
from mpicoded.data.shards import Shards, runs_of
from mpicoded.errors import InputError, one_line
from mpicoded.experiment import Experiment
from mpicoded.training.placement import placement
from mpicoded.transport.base import Node, Transport, block
from mpicoded.transport.launched import local_rank

WORTH = 1 << 20  # bytes that a node must save
_ALIGNED = 64


class Samples(NamedTuple):
    """What a rank works on."""

    holders: Bool[Array, "ranks subsets"]  # what the devices of each rank may compute during the run
    shards: Shards
    test: Shards | None  # the rank's part of the test split
    nbytes: int  # that this rank has brought into memory
    apart: str  # why ranks of a node have the same samples more than once; empty where they have not


class Common(NamedTuple):
    """What ranks of a node have in common."""

    subsets: Int[Array, " subsets"]  # ascending
    rows: int
    nbytes: int
    saved: int  # bytes, beside a copy for each rank


def read(experiment: Experiment, description: Description, transport: Transport, node: Node | None) -> Samples:
    """Read what a rank needs, on all ranks of the node together where there is one: each goes to the end of it.

    Raises InputError on all ranks of a node where one of them has read what cannot be used.
    """
    dtype, on_cpu = np.dtype(experiment.compute.dtype), experiment.compute.device == "cpu"
    survives = experiment.transport.survives
    together = node if on_cpu and not survives else None
    memory, wanted = None, 0
    try:
        holders, held = placement(experiment, description, transport.size)
        sharing = np.arange(transport.size) if survives else np.array([transport.rank]) if node is None else node.ranks
        common = in_common(description, held[sharing], dtype)
        wanted = common.nbytes if common.saved >= WORTH else 0
    finally:  # the others wait for what this rank wants, also where it fails
        if together is not None:
            memory = together.memory(wanted)
    mine, where = np.flatnonzero(held[transport.rank]), processor(experiment.compute.device, local_rank())
    if memory is not None and together is not None:
        shards, nbytes = _read_part(description, mine, common, memory, dtype, where, together)
    else:
        shards = Shards.read(description, mine, dtype, where)
        nbytes = shards.nbytes
    test = None
    if description.test_samples and experiment.model.task == "classification":
        test = Shards.read_test(description, transport.rank, transport.size, dtype, where)
        nbytes += test.nbytes
    apart = ""
    if wanted and memory is None and on_cpu:
        why, most = ("ranks may die one by one", "up to ") if survives else ("there is no room in shared memory", "")
        apart = f"{why}: each has its own copy of what others of its node read, too, {most}{common.saved} bytes in all"
    return Samples(holders, shards, test, nbytes, apart)


def in_common(description: Description, held: Bool[Array, "ranks subsets"], dtype: np.dtype) -> Common:
    """What ranks would share that hold these subsets."""
    sizes = np.diff(description.offsets)
    row = description.features * dtype.itemsize + description.target(dtype).itemsize
    rows = int(sizes @ held.any(axis=0))
    return Common(
        subsets=np.flatnonzero(held.any(axis=0)),
        rows=rows,
        nbytes=rows * row + 2 * _ALIGNED,
        saved=int((held @ sizes).sum() - rows) * row,
    )


def _read_part(
    description: Description,
    mine: Int[Array, " held"],
    common: Common,
    memory: Shaped[Array, " bytes"],
    dtype: np.dtype,
    where: Processor,
    node: Node,
) -> tuple[Shards, int]:
    """This rank's shards among those of the node, and how many bytes of these it has read."""
    error = None
    try:
        x, y = _arrays(description, common.rows, memory, dtype)
        first, stop = block(common.rows, node.place, len(node.ranks))
        part = x[first:stop], y[first:stop]
        layout.read_rows(description, "", runs_of(description, common.subsets, first, stop), dtype, part)
    except InputError as problem:
        error = one_line(problem)
    finally:
        error = node.settle(error)
    if error is not None:
        raise InputError(error)
    x.flags.writeable = y.flags.writeable = False  # nobody writes what others read
    shards = Shards.among(description, mine, common.subsets, x, y, where)
    return shards, int(part[0].nbytes + part[1].nbytes)


def _arrays(
    description: Description, rows: int, memory: Shaped[Array, " bytes"], dtype: np.dtype
) -> tuple[Float[Array, "rows features"], Shaped[Array, " rows"]]:
    """Room for samples and targets. Each process sees the memory elsewhere, but at the same place of a page."""
    at = -memory.ctypes.data % _ALIGNED
    size = rows * description.features * dtype.itemsize
    x = memory[at : at + size].view(dtype).reshape(rows, description.features)
    at += -(-size // _ALIGNED) * _ALIGNED
    target = description.target(dtype)
    return x, memory[at : at + rows * target.itemsize].view(target)
