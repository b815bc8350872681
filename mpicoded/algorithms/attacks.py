"""What Byzantine devices send instead of their message.

An attack is a function of what the attacker can see. It runs on the rank that hosts the device, before
the message is sent. mu and sigma are the mean and the coordinate standard deviation of the honest messages.
"""

from statistics import NormalDist
from typing import ClassVar, NamedTuple

import numpy as np

from mpicoded.algorithms.component import Component, NonNegative
from mpicoded.algorithms.randomness import Streams
from mpicoded.algorithms.shapes import Array, Float, Int


class Seen(NamedTuple):
    """What the attackers know."""

    devices: int  # all devices, N
    attackers: Int[Array, " byzantine"]  # those of them that this rank hosts, ascending
    honest: Float[Array, "honest dim"] | None  # all honest messages in device order, for attacks that collude


class Attack(Component):
    """Base of the attacks."""

    colludes: ClassVar[bool] = False
    """Whether the attackers need to see the honest messages."""

    def forge(
        self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams
    ) -> Float[Array, "byzantine dim"] | Float[Array, " dim"]:
        """What is sent instead of ``own``, the messages that the devices would send if they were honest."""
        raise NotImplementedError


class NoAttack(Attack, tag="none"):
    """Byzantine devices behave."""

    source: ClassVar[str] = "baseline"

    def forge(self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams) -> Float[Array, "byzantine dim"]:
        """The honest message."""
        return own


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
        noise = self.deviation * streams.normal("gaussian", seen.attackers, own.shape[1])
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


def alie_z(devices: int, byzantine: int) -> float:
    """The default z; 0 where the formula has no value (more than half of the devices are Byzantine)."""
    honest = devices - byzantine
    share = (honest - (devices // 2 + 1 - byzantine)) / max(honest, 1)
    return NormalDist().inv_cdf(share) if 0 < share < 1 else 0.0


Choice = NoAttack | SignFlip | Gaussian | SampleDuplicate | Ipm | Alie
