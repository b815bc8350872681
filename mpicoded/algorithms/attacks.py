"""What Byzantine devices send instead of their message.

An attack is a function of what the attacker can see. It runs on the rank that hosts the device, before
the message is sent: it forges the vector that is then compressed, or tampers with the packed record, or keeps silent.
mu and sigma are the mean and the coordinate standard deviation of the honest messages.
"""

from statistics import NormalDist
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from mpicoded.algorithms.component import Component, NonNegative, PositiveCount
from mpicoded.algorithms.randomness import Streams
from mpicoded.algorithms.shapes import Array, Float, UInt8
from mpicoded.errors import InputError


class Seen(NamedTuple):
    """What the attackers know."""

    devices: int  # all devices, N
    honest: Float[Array, "honest dim"] | None  # all honest messages in device order, for attacks that collude


class Attack(Component):
    """Base of the attacks."""

    colludes: ClassVar[bool] = False
    """Whether the attackers need to see the honest messages."""
    tampers: ClassVar[bool] = False
    """Whether the packed records are changed."""
    sends: ClassVar[bool] = True
    """Whether any message is sent at all."""

    def check(self, dim: int, record: np.dtype[Any]) -> None:
        """Raise InputError where messages of ``dim`` numbers, sent as such records, cannot be attacked so."""

    def forge(
        self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams
    ) -> Float[Array, "byzantine dim"] | Float[Array, " dim"]:
        """What is sent instead of ``own``, the messages that the devices would send if they were honest: here, those.

        ``streams`` are those of the attackers.
        """
        return own

    def tamper(self, records: UInt8[Array, "byzantine bytes"], streams: Streams) -> None:
        """Change the packed records of the attackers in place."""


class NoAttack(Attack, tag="none"):
    """Byzantine devices behave."""

    source: ClassVar[str] = "baseline"


class SignFlip(Attack):
    """``scale`` times the own message; the papers' coefficient is not known to us."""

    source: ClassVar[str] = "experiments of CRA-DL and LAD"
    scale: float = -1.0

    def forge(self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams) -> Float[Array, "byzantine dim"]:
        """Scale × own."""
        return own * np.asarray(self.scale, own.dtype)


class Gaussian(Attack):
    """Noise N(0, deviation^2) in each coordinate, whatever the own message is."""

    source: ClassVar[str] = "experiments of CRA-DL"
    deviation: NonNegative = 1.0

    def forge(self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams) -> Float[Array, "byzantine dim"]:
        """Each device draws from a stream of its own."""
        noise = self.deviation * streams.normal("gaussian", own.shape[1])
        return noise.astype(own.dtype, copy=False)


class SampleDuplicate(Attack):
    """All attackers send the message of one honest device, drawn anew in each round."""

    source: ClassVar[str] = "experiments of CRA-DL"
    colludes: ClassVar[bool] = True

    def forge(self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams) -> Float[Array, " dim"]:
        """One honest row."""
        assert seen.honest is not None
        return seen.honest[streams.generator("sample_duplicate").integers(len(seen.honest))]


class Ipm(Attack):
    """Inner product manipulation, or fall of empires: -scale × mu."""

    source: ClassVar[str] = "Xie et al. 2019"
    colludes: ClassVar[bool] = True
    scale: float = 0.9

    def forge(self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams) -> Float[Array, " dim"]:
        """Against the honest mean."""
        assert seen.honest is not None
        return np.mean(seen.honest, axis=0) * np.asarray(-self.scale, own.dtype)


class Alie(Attack):
    """A little is enough: mu - z sigma, inside the honest spread.

    Without ``z``: the largest that still finds enough honest supporters, Phi^-1((n-f-s)/(n-f)) with
    s = floor(n/2 + 1) - f.
    """

    source: ClassVar[str] = "Baruch et al. 2019"
    colludes: ClassVar[bool] = True
    z: float | None = None

    def forge(self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams) -> Float[Array, " dim"]:
        """Shift the honest mean by z standard deviations in each coordinate."""
        assert seen.honest is not None
        z = alie_z(seen.devices, seen.devices - len(seen.honest)) if self.z is None else self.z
        return np.mean(seen.honest, axis=0) - np.asarray(z, own.dtype) * np.std(seen.honest, axis=0)


class NonFinite(Attack):
    """NaN or infinity, in all coordinates or in ``coordinates`` of them at random, of the own message."""

    source: ClassVar[str] = "faults of hardware and of training code"
    value: Literal["nan", "inf", "-inf"] = "nan"
    coordinates: PositiveCount | None = None

    def check(self, dim: int, record: np.dtype[Any]) -> None:
        """At most all coordinates."""
        _check_most(self, "coordinates", self.coordinates, dim, "coordinates of a message")

    def forge(self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams) -> Float[Array, "byzantine dim"]:
        """Put the value at its places."""
        forged = own.copy()
        places = streams.choices("non_finite", own.shape[1], self.coordinates or own.shape[1])
        np.put_along_axis(forged, places, float(self.value), axis=1)
        return forged


class BitFlip(Attack):
    """``bits`` random bits of the packed record are flipped: silent data corruption."""

    source: ClassVar[str] = "Dixit et al. 2021, silent data corruptions at scale"
    tampers: ClassVar[bool] = True
    bits: PositiveCount = 1

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
    tampers: ClassVar[bool] = True
    bytes: PositiveCount | None = None

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
    sends: ClassVar[bool] = False


def _check_most(part: Component, field: str, value: int | None, most: int, what: str) -> None:
    if value is not None and value > most:
        raise InputError(f"attack {part.name()}: {field} must be at most the {most} {what}, got {value}")


def alie_z(devices: int, byzantine: int) -> float:
    """The default z; 0 where the formula has no value (more than half of the devices are Byzantine)."""
    honest = devices - byzantine
    share = (honest - (devices // 2 + 1 - byzantine)) / max(honest, 1)
    return NormalDist().inv_cdf(share) if 0 < share < 1 else 0.0


Choice = NoAttack | SignFlip | Gaussian | SampleDuplicate | Ipm | Alie | NonFinite | BitFlip | Malformed | Silent
