"""What the training loop needs from a transport. All arrays are typed and of a size that both sides know."""

from typing import Any, NamedTuple, Protocol

import numpy as np

from mpicoded.algorithms.shapes import Array, Bool

TEXT_BYTES = 1024  # longest text that ranks exchange, in UTF-8


class Gathered(NamedTuple):
    """What the server got in one round."""

    records: Array  # (devices,) records, those of silent devices undefined
    arrived: Bool[Array, " devices"]


class Transport(Protocol):
    """One process's view of all processes. Rank 0 is the server as well as a host of devices.

    Every method is collective: all ranks call it, with arrays of the dtype and shape that they agreed on.
    """

    rank: int
    size: int
    description: str
    """The MPI library, or that there is none."""
    overhead_bytes: int
    """Bytes that all calls of ``gather`` moved beside the records so far: headers of round, count and who sent."""

    def broadcast(self, array: Array) -> None:
        """Copy rank 0's array into everyone's, in place."""

    def gather(
        self, records: Array, round: int, devices: int, sent: Bool[Array, " records"] | None = None
    ) -> Gathered | None:
        """Bring the records of all ``devices`` to rank 0, in device order; the others get None.

        Ranks host contiguous blocks of devices (see ``block``). ``sent``: which of this rank's devices send at all;
        the records of the others do not travel.
        """

    def share(self, rows: Array, counts: Array, out: Array) -> Array:
        """Give everyone the rows of all ranks, rank by rank, in ``out``; counts[r] rows come from rank r."""

    def collect(self, rows: Array, counts: Array) -> Array | None:
        """Bring the rows of all ranks to rank 0, rank by rank; counts[r] rows come from rank r."""

    def largest(self, number: int) -> int:
        """The largest of all ranks' numbers, on all ranks."""

    def agree(self, error: str | None) -> str | None:
        """The error of the lowest rank that has one, on all ranks; None where no rank has any.

        Where only some ranks have an error, the text says which.
        """

    def texts(self, text: str) -> list[str]:
        """The texts of all ranks (cut to TEXT_BYTES), on all ranks."""

    def abort(self, code: int) -> None:
        """End the whole job with this exit code, on all ranks, after an error on this one."""


def header_layout(devices: int) -> np.dtype[Any]:
    """What goes before a rank's records: the round, their number, and a bit for each device: whether it sends.

    ``devices``: the most that a rank hosts.
    """
    return np.dtype([("round", "<i8"), ("count", "<i8"), ("sent", "u1", (-(-devices // 8),))])


def block(total: int, part: int, parts: int) -> tuple[int, int]:
    """First and past-the-last of the contiguous block that one of ``parts`` parts gets."""
    return part * total // parts, (part + 1) * total // parts


def block_starts(total: int, parts: int) -> Any:
    """The first of each block."""
    return np.arange(parts) * total // parts


def block_sizes(total: int, parts: int) -> Any:
    """The sizes of all blocks."""
    return np.diff(np.arange(parts + 1) * total // parts)


def encode_text(text: str) -> Array:
    """Text as a fixed number of bytes, padded with zeros."""
    raw = text.encode(errors="backslashreplace")[:TEXT_BYTES]
    return np.frombuffer(raw.ljust(TEXT_BYTES, b"\0"), np.uint8).copy()


def decode_text(raw: Array) -> str:
    """The text of ``encode_text``."""
    return bytes(raw).rstrip(b"\0").decode(errors="replace")
