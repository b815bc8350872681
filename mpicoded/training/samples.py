"""The samples of one rank: read by itself, or one copy for all ranks of its node, of which each reads a part.

Where neither fits into the memory that a rank may use, it reads its own again in every round (``Streamed``).
"""

from typing import NamedTuple

import numpy as np

from mpicoded.algorithms.processors import Processor, processor
from mpicoded.algorithms.shapes import Array, Bool, Float, Int, Shaped
from mpicoded.data import layout
from mpicoded.data.layout import Description, row_bytes
from mpicoded.data.shards import Shards, runs_of, test_rows
from mpicoded.errors import InputError, one_line
from mpicoded.experiment import Experiment
from mpicoded.training.allowance import allowance
from mpicoded.training.placement import placement
from mpicoded.transport.base import Node, Transport, block
from mpicoded.transport.launched import local_rank, local_size

WORTH = 1 << 20  # bytes that a node must save
_ALIGNED = 64
_LIMITED = "the memory limit of their control group leaves"


class Samples(NamedTuple):
    """What a rank works on."""

    holders: Bool[Array, "ranks subsets"]  # what the devices of each rank may compute during the run
    shards: Shards
    test: Shards | None  # the rank's part of the test split
    nbytes: int  # that this rank has brought into memory
    apart: str  # why ranks of a node do not have the same samples once and for all; empty where they have


class Share(NamedTuple):
    """Bytes of samples of a rank by itself."""

    held: int  # in memory
    read: int  # again, in every round


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
        here = local_size() or transport.size if survives else 1 if node is None else len(node.ranks)
        sharing = np.arange(transport.size) if survives else np.array([transport.rank]) if node is None else node.ranks
        common = in_common(description, held[sharing], dtype)
        tests = _test_bytes(experiment, description, transport.rank, transport.size)
        budget = allowance(experiment, here)
        wanted = common.nbytes if common.saved >= WORTH and _fits(common, budget, tests, here) else 0
    finally:  # the others wait for what this rank wants, also where it fails
        if together is not None:
            memory = together.memory(wanted)
    mine, where = np.flatnonzero(held[transport.rank]), processor(experiment.compute.device, local_rank())
    apart, told = "", experiment.data.memory is not None
    if memory is not None and together is not None:
        shards, nbytes = _read_part(description, mine, common, memory, dtype, where, together)
    else:
        shards, streams = _read_own(description, mine, dtype, where, budget, tests, told)
        nbytes = shards.nbytes
        if wanted and on_cpu and not streams:
            why, most = ("ranks may die one by one", "up to ") if survives else ("there is no room for one copy", "")
            apart = f"{why}: each has its own copy of what others of its node read, {most}{common.saved} bytes in all"
        elif budget is not None and not told and nbytes + tests > budget and not streams:
            apart = (
                f"{_LIMITED} {budget} bytes to a rank for samples, too few to read them by blocks: all are in memory"
            )
        elif streams and not told:
            apart = (
                f"{_LIMITED} {budget} bytes to a rank for samples: it reads what has no room again in every round "
                "(data.memory says how many it may use)"
            )
    test = None
    if _tests(experiment, description):
        test = Shards.read_test(description, transport.rank, transport.size, dtype, where)
        nbytes += test.nbytes
    return Samples(holders, shards, test, nbytes, apart)


def _read_own(
    description: Description,
    mine: Int[Array, " held"],
    dtype: np.dtype,
    where: Processor,
    budget: int | None,
    tests: int,
    told: bool,
) -> tuple[Shards, bool]:
    """This rank's shards, in memory or, where they have no room there, on their way into it; whether it is the latter.

    A budget that nobody has ``told`` never ends a run: where it is too small for buffers, all are in memory.
    """
    own = int(np.diff(description.offsets)[mine].sum()) * row_bytes(description, dtype)
    if budget is not None and own + tests > budget:
        from mpicoded.data.streaming import Streamed, least_budget  # few runs need them

        if told or least_budget(description, mine, dtype, tests) <= budget:
            return Streamed(description, mine, dtype, budget, where, tests), True
    return Shards.read(description, mine, dtype, where), False


def _tests(experiment: Experiment, description: Description) -> bool:
    """Whether the test split is used."""
    return description.test_samples > 0 and description.classes > 0


def _test_bytes(experiment: Experiment, description: Description, rank: int, ranks: int) -> int:
    """What a rank's part of the test split takes in memory, where it is used."""
    if not _tests(experiment, description):
        return 0
    return int(np.ptp(test_rows(description, rank, ranks))) * row_bytes(description, experiment.compute.dtype)


def shares(experiment: Experiment, description: Description, held: Bool[Array, "ranks subsets"]) -> list[Share]:
    """What each rank takes by itself, as the experiment says. Raises InputError where a rank may use too little."""
    budget, dtype, found = experiment.data.budget(), experiment.compute.dtype, []
    samples = held @ np.diff(description.offsets) * row_bytes(description, dtype)
    for rank, own in enumerate(samples.tolist()):
        tests = _test_bytes(experiment, description, rank, len(held))
        share = Share(own + tests, 0)
        if budget is not None and share.held > budget:
            from mpicoded.data.streaming import divide

            division = divide(description, np.flatnonzero(held[rank]), dtype, budget, tests)
            share = Share(division.nbytes + tests, division.read_bytes)
        found.append(share)
    return found


def saved(experiment: Experiment, description: Description, held: Bool[Array, "ranks subsets"]) -> int:
    """Bytes of samples that these ranks do not have twice if they are on one node."""
    if experiment.compute.device != "cpu" or experiment.transport.survives:
        return 0
    ranks, common = len(held), in_common(description, held, np.dtype(experiment.compute.dtype))
    tests = max(_test_bytes(experiment, description, rank, ranks) for rank in range(ranks))
    worth = common.saved >= WORTH and _fits(common, experiment.data.budget(), tests, ranks)
    return common.saved if worth else 0


def _fits(common: Common, budget: int | None, tests: int, ranks: int) -> bool:
    """Whether one copy for so many ranks takes no more than each of them may use; ``tests``: bytes of each one's."""
    return budget is None or common.nbytes <= (budget - tests) * ranks


def in_common(description: Description, held: Bool[Array, "ranks subsets"], dtype: np.dtype) -> Common:
    """What ranks would share that hold these subsets."""
    sizes = np.diff(description.offsets)
    row = row_bytes(description, dtype)
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
