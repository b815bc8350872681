"""What the training loop needs from a transport. All arrays are typed and of a size that both sides know."""

from enum import IntEnum
from typing import Any, NamedTuple, Protocol

import numpy as np

from mpicoded.algorithms.processors import Processor
from mpicoded.algorithms.shapes import Array, Bool, Int

TEXT_BYTES = 1024  # longest text that ranks exchange, in UTF-8
BESIDE = 1 << 12  # bytes that go with an order: as long a message as MPI libraries send at once, without asking


class Kind(IntEnum):
    """What the server wants of all ranks."""

    STEP = 0  # compute, encode and send messages
    LOSSES = 1  # evaluate the parameters
    GRADIENT = 2  # sum gradients for the gradient's norm, on the grid of ``value``
    STATE = 3  # send what devices remember, for a checkpoint
    END = 4  # leave the training; ``value``: whether all rounds are done


class Order(NamedTuple):
    """What the server tells all ranks to do next."""

    kind: Kind
    round: int  # steps done so far
    value: int = 0


class Gathered(NamedTuple):
    """What the server got in one round."""

    records: Array  # (devices,) records, those of silent devices undefined
    arrived: Bool[Array, " devices"]


class Loss(NamedTuple):
    """A rank that has died."""

    rank: int
    round: int  # steps done when it was noticed


class Patience(NamedTuple):
    """How long the server waits in a round, and whether the others go on when a rank dies."""

    deadline: float | None = None  # seconds from the order on
    quickest: int | None = None  # devices whose messages end the waiting
    fewest: int = 0  # devices without whose messages the waiting does not end
    survives: bool = False


class Reach(NamedTuple):
    """Whether messages may go from where they are computed to where they are aggregated without the CPU."""

    direct: bool
    why: str


class RanksMissing(Exception):
    """Ranks have died or not answered: what they should have said is to be asked of the others."""


class ServerLost(Exception):
    """The rank that is the server has died."""


class Node(Protocol):
    """The ranks of a node, which can have memory in common. What it does they all do together."""

    ranks: Int[Array, " ranks"]
    """Their numbers, ascending."""
    place: int
    """Of this rank among them."""

    def memory(self, nbytes: int) -> Array | None:
        """So many bytes that all of them read and write, for as long as they live; all ask for as many.

        None on all of them where one asks for none, or where there is no room.
        """

    def settle(self, error: str | None) -> str | None:
        """Wait until all have come here: what each has written before, the others read from now on.

        The error of the lowest rank that has one, on all of them; None where no rank has any.
        """


class Transport(Protocol):
    """One process's view of all processes. One rank is the server as well as a host of devices: rank 0 at first.

    The server gives orders (``tell``), the others take them (``hear``) and all do the same with them, calling the
    other methods in the same order with arrays of the dtype and shape that they agreed on.
    """

    rank: int
    size: int
    leads: bool
    """Whether this rank is the server."""
    description: str
    """The MPI library, or that there is none."""
    overhead_bytes: int
    """Bytes that all calls of ``gather`` moved beside the records so far: headers of round, count and who sent."""
    present: Bool[Array, " ranks"]
    """Which ranks the last order went to, the same on all of them: not those that had died, or owed an answer."""
    lost: list[Loss]
    """Which ranks have died."""
    wish: int
    """What this rank asks of the server; it travels with its next records."""
    heard: int
    """The largest wish that has reached the server."""

    def tell(self, order: Order) -> None:
        """Give an order: only the server does."""

    def hear(self) -> Order:
        """The server's next order: only the others ask. Raises ServerLost."""

    def beside_orders(self, layout: np.dtype[Any]) -> Array | None:
        """Room for a record that goes with every order from now on, as it is at the server then.

        None where it is too long for that, another record does already, or orders go another way: it is to be
        broadcast. All ranks must ask for the same before the next order.
        """

    def broadcast(self, array: Array) -> None:
        """Copy the server's array into everyone's, in place."""

    def gather(
        self,
        records: Array,
        round: int,
        devices: int,
        sent: Bool[Array, " records"] | None = None,
        out: Array | None = None,
    ) -> Gathered | None:
        """Bring the records of all ``devices`` to the server, in device order; the others get None.

        Ranks host contiguous blocks of devices (see ``block``). ``sent``: which of this rank's devices send at all;
        the records of the others do not travel. ``out``: where the server may put them. Where ``reach`` says so, rows
        of vectors on GPUs are gathered like records, into such rows, if all devices send; nothing may be under way
        on the GPU.
        """

    def share(self, rows: Array, counts: Array, out: Array) -> Array:
        """Give everyone the rows of all ranks, rank by rank, in ``out``; counts[r] rows come from rank r.

        Those of a rank that dies meanwhile are zero.
        """

    def exchange(self, rows: Array, counts: Array, edges: Array, out: Array) -> None:
        """Give each rank its columns of everyone's rows, in ``out``, rank by rank.

        (counts[r], dim) rows come from rank r, and columns edges[r] … edges[r + 1] - 1 go there. The own ones may be
        there already, in the same memory. Only where nobody can be late or lost.
        """

    def reach(self, processor: Processor) -> Reach:
        """Whether it takes buffers from the memory of the ranks' processors, GPUs: all ranks must ask.

        It has been tried out where it does.
        """

    def lowest(self, count: int) -> "Transport | None":
        """The so many lowest ranks by themselves, None on the others. All ranks must call it."""

    def node(self) -> Node | None:
        """The ranks of this rank's node; None where it is alone there. All ranks must call it."""

    def collect(self, rows: Array, counts: Array, out: Array | None = None) -> Array | None:
        """Bring the rows of all ranks to the server, rank by rank; counts[r] rows come from rank r.

        They may be put into ``out``, which is as large, where it is given.

        Raises RanksMissing at the server where not all have come: the order is to be given again.
        """

    def patient(self, devices: int, patience: Patience) -> "Transport":
        """The same ranks, waiting for each other in another way. No collective call.

        Raises InputError where the MPI cannot.
        """

    def recover(self) -> None:
        """After ServerLost, on all ranks that are left: make the lowest of them the server."""

    def close(self, code: int) -> None:
        """Leave after the last order. Where ranks have died this ends the process, with this exit code."""

    def agree(self, error: str | None) -> str | None:
        """The error of the lowest rank that has one, on all ranks; None where no rank has any.

        Where only some ranks have an error, the text says which.
        """

    def texts(self, text: str) -> list[str]:
        """The texts of all ranks (cut to TEXT_BYTES), on all ranks."""

    def fail(self, code: int) -> None:
        """After an error on this rank: end the job, or where the others can go on without it, this process."""

    def abort(self, code: int) -> None:
        """End the whole job with this exit code, on all ranks."""


def copy_unless_there(rows: Array, out: Array) -> None:
    """Copy rows to where they may be already."""
    if rows.ctypes.data != out.ctypes.data or rows.strides != out.strides:
        out[...] = rows


def header_layout(devices: int) -> np.dtype[Any]:
    """What goes before a rank's records: the round, their number, a wish, and a bit for each device: whether it sends.

    ``devices``: the most that a rank hosts.
    """
    bits = -(-devices // 8)
    return np.dtype([("round", "<i8"), ("count", "<i4"), ("wish", "<i4"), ("sent", "u1", (bits,))])


def order_layout(ranks: int) -> np.dtype[Any]:
    """An order as it travels: a bit for each rank that takes part, and for each that is alive."""
    bits = -(-ranks // 8)
    numbers = [(name, "<i8") for name in ("number", "kind", "round", "value")]
    return np.dtype([*numbers, ("present", "u1", (bits,)), ("alive", "u1", (bits,))])


def answer_layout(devices: int) -> np.dtype[Any]:
    """What goes before an answer: the number of its order, its bytes, a wish, and who of these devices sends."""
    bits = -(-devices // 8)
    return np.dtype([("number", "<i8"), ("nbytes", "<i8"), ("wish", "<i8"), ("sent", "u1", (bits,))])


def pack_bits(mask: Bool[Array, " items"], into: Array) -> None:
    """A bit for each item, the rest zero."""
    bits = np.packbits(mask, bitorder="little")
    into[: len(bits)] = bits
    into[len(bits) :] = 0


def unpack_bits(bits: Array, items: int) -> Bool[Array, " items"]:
    """The items of ``pack_bits``."""
    return np.unpackbits(bits, count=items, bitorder="little").astype(bool)


def block(total: int, part: int, parts: int) -> tuple[int, int]:
    """First and past-the-last of the contiguous block that one of ``parts`` parts gets."""
    return part * total // parts, (part + 1) * total // parts


def block_starts(total: int, parts: int) -> Any:
    """The first of each block."""
    return np.arange(parts) * total // parts


def block_sizes(total: int, parts: int) -> Any:
    """The sizes of all blocks."""
    return np.diff(np.arange(parts + 1) * total // parts)


def devices_on(ranks: Bool[Array, " ranks"], devices: int) -> Bool[Array, " devices"]:
    """Which devices these ranks host."""
    return np.repeat(ranks, block_sizes(devices, len(ranks)))


def encode_text(text: str) -> Array:
    """Text as a fixed number of bytes, padded with zeros."""
    raw = text.encode(errors="backslashreplace")[:TEXT_BYTES]
    return np.frombuffer(raw.ljust(TEXT_BYTES, b"\0"), np.uint8).copy()


def decode_text(raw: Array) -> str:
    """The text of ``encode_text``."""
    return bytes(raw).rstrip(b"\0").decode(errors="replace")
