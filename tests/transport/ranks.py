"""Run under mpiexec by test_mpi.py: each collective of MpiTransport against what it must give."""

import platform
import sys
from typing import NoReturn

import numpy as np
from mpi4py import MPI

from mpicoded.transport.base import Kind, Order, block, block_sizes
from mpicoded.transport.mpi import MpiTransport


class BuffersOnly:
    """A communicator that refuses every call that would pickle."""

    def __init__(self, comm: MPI.Comm) -> None:
        self._comm = comm

    def __getattr__(self, name: str) -> object:
        value = getattr(self._comm, name)
        if callable(value) and name[0].islower():
            self.refuse(name)
        return BuffersOnly(value()).pretend if name == "Dup" else value

    def pretend(self) -> "BuffersOnly":
        return self

    def refuse(self, name: str) -> NoReturn:
        raise AssertionError(f"pickling call {name}")


transport = MpiTransport(BuffersOnly(MPI.COMM_WORLD))
rank, size = transport.rank, transport.size
assert size == int(sys.argv[1])

for dtype in (np.float64, np.float32):
    array = np.arange(7, dtype=dtype) if rank == 0 else np.full(7, -1, dtype)
    transport.broadcast(array)
    assert (array == np.arange(7)).all()

assert transport.beside_orders(np.dtype([("values", "<f8", (1000,))])) is None  # that is to be broadcast
room = transport.beside_orders(np.dtype([("nonce", "<u8"), ("values", "<f4", (5,))]))
assert room is not None
assert transport.beside_orders(np.dtype("<u8")) is None  # there is one already
for order in (Order(Kind.STEP, 7), Order(Kind.GRADIENT, 8, -3)):
    if rank == 0:
        room["nonce"], room["values"] = order.round, order.round + np.arange(5)
        transport.tell(order)
    else:
        assert transport.hear() == order
    assert room["nonce"] == order.round
    assert (room["values"] == order.round + np.arange(5)).all()

DEVICES = 11
first, stop = block(DEVICES, rank, size)
layout = np.dtype([("index", "u1"), ("values", "f4", (3,))])  # 13 bytes: no power of two
records = np.zeros(stop - first, layout)
records["index"] = np.arange(first, stop)
records["values"] = np.arange(first, stop)[:, None] + [0.25, 0.5, 0.75]
for round in range(3):
    records["values"] += 1
    gathered = transport.gather(records, round, DEVICES)
    if rank == 0:
        assert gathered is not None
        assert gathered.arrived.all()
        assert gathered.arrived.shape == (DEVICES,)
        assert (gathered.records["index"] == np.arange(DEVICES)).all()
        assert (gathered.records["values"][:, 1] == np.arange(DEVICES) + 1.5 + round).all()
    else:
        assert gathered is None
header = 16 + (int(block_sizes(DEVICES, size).max()) + 7) // 8  # round, count, a bit for each device of a block
assert transport.overhead_bytes == 3 * header * size

sends = np.arange(DEVICES) % 3 != 1
gathered = transport.gather(records, 3, DEVICES, sends[first:stop])
if rank == 0:
    assert (gathered.arrived == sends).all()
    assert (gathered.records["index"][sends] == np.flatnonzero(sends)).all()
    assert (gathered.records["values"][sends, 2] == np.flatnonzero(sends) + 3.75).all()
gathered = transport.gather(records, 4, DEVICES, np.zeros(stop - first, bool))
assert rank != 0 or not gathered.arrived.any()

counts = np.arange(size) % 3  # some ranks have nothing to say
rows = np.full((counts[rank], 2), float(rank))
expected = np.repeat(np.arange(size, dtype=float), counts)
shared = transport.share(rows, counts, np.empty((DEVICES, 2)))
assert (shared[:, 0] == expected).all()
assert shared.shape == (counts.sum(), 2)
collected = transport.collect(rows.astype(np.int64), counts)
assert (collected is None) == (rank != 0)
if rank == 0:
    assert (collected[:, 1] == expected).all()

assert transport.agree(None) is None
where = f"rank {size - 1} on {platform.node()}: " if size > 1 else ""
assert transport.agree("ä only the last" if rank == size - 1 else None) == f"{where}ä only the last"
assert transport.agree(f"rank {rank}") == "rank 0"
assert transport.texts(f"host{rank}") == [f"host{r}" for r in range(size)]
assert len(transport.texts("x" * 5000)[0]) == 1024
assert block_sizes(DEVICES, size).sum() == DEVICES

for nbytes in (1, 13, 2**30, 2**31 + 5, 3 * 2**30):  # no message of that size here, but its type must exist
    item = transport._item_type(nbytes)
    assert (item.Get_size(), item.extent) == (nbytes, nbytes)

# Columns: some that are short and travel as a type with gaps, and some that are long and travel row by row; the last of
# several ranks is no server and gets none. Buffers change between two exchanges, and in place. Own rows may be where
# they go already.
counts = block_sizes(DEVICES, size)
for dim in (40, 200_000):
    servers = max(1, size - 1)
    edges = np.array([*(place * dim // servers for place in range(servers + 1)), *[dim] * (size - servers)])
    whole = np.arange(DEVICES * dim, dtype=np.float32).reshape(DEVICES, dim)
    mine = slice(int(edges[rank]), int(edges[rank + 1]))
    for change in (0, 1, 1, 2):
        if change != 1:
            rows = whole[first:stop] + np.float32(change)
            part = np.full((DEVICES, mine.stop - mine.start), -1, np.float32)
        else:
            rows += np.float32(1)
        transport.exchange(rows, counts, edges, part)
        expected = whole[:, mine] + (rows[0, 0] - whole[first, 0] if len(rows) else 0)
        np.testing.assert_array_equal(part, expected)
    for change in (0, 1):
        room = np.full((DEVICES, dim), -1, np.float32)
        room[first:stop] = whole[first:stop] + np.float32(change)
        transport.exchange(room[first:stop], counts, edges, room[:, mine])
        np.testing.assert_array_equal(room[:, mine], whole[:, mine] + np.float32(change))
        np.testing.assert_array_equal(room[first:stop], whole[first:stop] + np.float32(change))
        others = np.delete(np.delete(room, slice(first, stop), axis=0), mine, axis=1)
        np.testing.assert_array_equal(others, -1)

if rank == 0:
    print("all good")
