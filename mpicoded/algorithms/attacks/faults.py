"""What broken hardware and broken senders do: bad numbers, flipped bits, nonsense, silence."""

from typing import Any, ClassVar, Literal

import numpy as np

from mpicoded.algorithms.arrays import flat_places, namespace, put_flat
from mpicoded.algorithms.attacks.base import Attack, Seen
from mpicoded.algorithms.component import Component, PositiveCount
from mpicoded.algorithms.randomness import Streams
from mpicoded.algorithms.shapes import Array, Float, UInt8
from mpicoded.errors import InputError


class NonFinite(Attack):
    """NaN or infinity, in all coordinates or in ``coordinates`` of them at random, of the own message."""

    source: ClassVar[str] = "faults of hardware and of training code"
    cost: ClassVar[str] = "f dim"
    on_gpu: ClassVar[bool] = True
    value: Literal["nan", "inf", "-inf"] = "nan"  # what the numbers become
    coordinates: PositiveCount | None = None  # how many of them; unset: all

    def check(self, dim: int, record: np.dtype[Any]) -> None:
        """At most all coordinates."""
        _check_most(self, "coordinates", self.coordinates, dim, "coordinates of a message")

    def forge(self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams) -> Float[Array, "byzantine dim"]:
        """Put the value at its places."""
        xp, dim = namespace(own), own.shape[1]
        if self.coordinates is None:
            return xp.full_like(own, float(self.value))
        forged, places = xp.astype(own, own.dtype), streams.choices("non_finite", dim, self.coordinates)
        put_flat(forged, flat_places(places, dim), float(self.value))
        return forged


class BitFlip(Attack):
    """``bits`` random bits of the packed record are flipped: silent data corruption."""

    source: ClassVar[str] = "Dixit et al. 2021, silent data corruptions at scale"
    acronym: ClassVar[str] = "SDC"
    cost: ClassVar[str] = "f × bits"
    tampers: ClassVar[bool] = True
    bits: PositiveCount = 1  # of each record, that are flipped

    def check(self, dim: int, record: np.dtype[Any]) -> None:
        """At most all bits."""
        _check_most(self, "bits", self.bits, 8 * record.itemsize, "bits of a record")

    def tamper(self, records: UInt8[Array, "byzantine bytes"], streams: Streams) -> None:
        """Flip different bits."""
        places = streams.choices("bit_flip", 8 * records.shape[1], self.bits)
        rows = np.arange(len(records))[:, None]
        np.bitwise_xor.at(records, (rows, places >> 3), np.uint8(1) << (places & 7).astype(np.uint8))


class Malformed(Attack):
    """Random bytes instead of the packed record, or of ``bytes`` of its bytes."""

    source: ClassVar[str] = "baseline"
    cost: ClassVar[str] = "f × bytes"
    tampers: ClassVar[bool] = True
    bytes: PositiveCount | None = None  # of each record, that are replaced; unset: all

    def check(self, dim: int, record: np.dtype[Any]) -> None:
        """At most all bytes."""
        _check_most(self, "bytes", self.bytes, record.itemsize, "bytes of a record")

    def tamper(self, records: UInt8[Array, "byzantine bytes"], streams: Streams) -> None:
        """Overwrite different bytes."""
        width = self.bytes or records.shape[1]
        noise = streams.words("malformed", -(-width // 8)).astype("<u8", copy=False).view(np.uint8)[:, :width]
        if width == records.shape[1]:
            records[...] = noise
        else:
            np.put_along_axis(records, streams.choices("malformed, where", records.shape[1], width), noise, axis=1)


class Silent(Attack):
    """No message at all."""

    source: ClassVar[str] = "crash faults"
    cost: ClassVar[str] = "none"
    sends: ClassVar[bool] = False


def _check_most(part: Component, field: str, value: int | None, most: int, what: str) -> None:
    if value is not None and value > most:
        raise InputError(f"attack {part.name()}: {field} must be at most the {most} {what}, got {value}")
