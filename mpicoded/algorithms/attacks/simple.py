"""Attacks with a formula of their own: on the own message, or on mean and deviation of the honest ones."""

from typing import ClassVar, Literal

import numpy as np

from mpicoded.algorithms.arrays import beside, fetched, namespace, numpy_type
from mpicoded.algorithms.attacks.base import Attack, Seen
from mpicoded.algorithms.component import NonNegative
from mpicoded.algorithms.randomness import Streams
from mpicoded.algorithms.shapes import Array, Float, Int
from mpicoded.algorithms.slices import centred_gram


class SignFlip(Attack):
    """``scale`` times the own message; the papers' coefficient is not known to us."""

    source: ClassVar[str] = "experiments of CRA-DL and LAD"
    acronym: ClassVar[str] = "SF"
    cost: ClassVar[str] = "f dim"
    on_gpu: ClassVar[bool] = True
    scale: float = -1.0  # what the attacker multiplies by

    def forge(self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams) -> Float[Array, "byzantine dim"]:
        """Scale × own."""
        return own * float(self.scale)


class Gaussian(Attack):
    """Noise N(0, deviation^2) in each coordinate, whatever the own message is."""

    source: ClassVar[str] = "experiments of CRA-DL"
    cost: ClassVar[str] = "f dim random numbers"
    on_gpu: ClassVar[bool] = True
    deviation: NonNegative = 1.0  # standard deviation of each coordinate

    def forge(self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams) -> Float[Array, "byzantine dim"]:
        """Each device draws from a stream of its own."""
        noise = self.deviation * streams.normal("gaussian", own.shape[1])
        return beside(noise.astype(numpy_type(own), copy=False), own)


class SampleDuplicate(Attack):
    """All attackers send the message of one honest device, drawn anew in each round."""

    source: ClassVar[str] = "experiments of CRA-DL"
    acronym: ClassVar[str] = "SD"
    cost: ClassVar[str] = "dim"
    on_gpu: ClassVar[bool] = True
    colludes: ClassVar[bool] = True

    def forge(self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams) -> Float[Array, " dim"]:
        """One honest row."""
        assert seen.honest is not None
        return seen.honest[int(streams.generator("sample_duplicate").integers(seen.honest.shape[0])), :]


class Ipm(Attack):
    """Inner product manipulation, or fall of empires: -scale × mu."""

    source: ClassVar[str] = "Xie et al. 2019"
    acronym: ClassVar[str] = "IPM, FoE"
    cost: ClassVar[str] = "n dim"
    on_gpu: ClassVar[bool] = True
    colludes: ClassVar[bool] = True
    scale: float = 0.9  # minus this times the honest mean is sent

    def forge(self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams) -> Float[Array, " dim"]:
        """Against the honest mean."""
        assert seen.honest is not None
        return namespace(own).mean(seen.honest, axis=0) * float(-self.scale)


class Alie(Attack):
    """A little is enough: mu - z sigma, inside the honest spread.

    Without ``z``: the largest that still finds enough honest supporters, Phi^-1((n-f-s)/(n-f)) with
    s = floor(n/2 + 1) - f.
    """

    source: ClassVar[str] = "Baruch et al. 2019"
    acronym: ClassVar[str] = "ALIE, LIE"
    cost: ClassVar[str] = "n dim"
    on_gpu: ClassVar[bool] = True
    colludes: ClassVar[bool] = True
    z: float | None = None  # deviations from the honest mean; unset: by the formula

    def forge(self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams) -> Float[Array, " dim"]:
        """Shift the honest mean by z standard deviations in each coordinate."""
        assert seen.honest is not None
        z = alie_z(seen.messages, seen.messages - seen.honest.shape[0]) if self.z is None else self.z
        xp = namespace(own)
        return xp.mean(seen.honest, axis=0) - float(z) * xp.std(seen.honest, axis=0)


class Mimic(Attack):
    """All attackers copy the honest device that lies furthest out along the direction of most honest variance.

    Nothing stands out, but that device's data counts f + 1 times. The direction is that of the round alone, not an
    average over rounds.
    """

    source: ClassVar[str] = "Karimireddy et al. 2022"
    cost: ClassVar[str] = "n^2 dim"
    on_gpu: ClassVar[bool] = True
    colludes: ClassVar[bool] = True

    def forge(self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams) -> Float[Array, " dim"]:
        """The top eigenvector of the honest messages' inner products about their mean says how far out each is.

        Of messages that are too large for that, the first is copied.
        """
        assert seen.honest is not None
        gram = fetched(centred_gram(seen.honest, seen.sums)[1])  # small: an eigenvector of it is the CPU's work
        centred = gram - gram.mean(axis=0) - gram.mean(axis=1)[:, None] + gram.mean()
        if not np.isfinite(centred).all():
            return seen.honest[0, :]
        out = np.linalg.eigh(centred)[1][:, -1]
        return seen.honest[int(np.argmax(np.abs(out))), :]


class LabelFlip(Attack):
    """Honest computation on wrong targets: label L - 1 - y of L classes, or -y in a regression."""

    source: ClassVar[str] = "Biggio et al. 2012"
    acronym: ClassVar[str] = "LF"
    cost: ClassVar[str] = "the attackers' gradients a second time"
    mislabels: ClassVar[bool] = True


class CodeAware(Attack):
    """Attackers with consecutive device numbers, whose windows overlap most under a fixed cyclic code.

    ``lies = "message"``: each sends ``scale`` times its own message. ``lies = "subset"``: each multiplies by ``scale``
    the gradient of one subset in its message, the one that most attackers hold in the round (of several, the first), so
    that they agree in what they say of it and are honest in all else. Subsets in the middle of their windows are on few
    honest devices or on none. Against windows that are permuted anew in each round, the place of a device says nothing.
    The experiment's ``identities`` do not matter.
    """

    source: ClassVar[str] = (
        "placement attack on DETOX (ByzShield, Konstantinidis and Ramamoorthy 2021), on cyclic windows"
    )
    cost: ClassVar[str] = "f dim"
    on_gpu: ClassVar[bool] = True
    places: ClassVar[bool] = True
    scale: float = -1.0  # what the attacker multiplies by
    lies: Literal["message", "subset"] = "message"  # about all of the message, or about one subset in it

    @property
    def spoils(self) -> float | None:
        """The scale, where a subset is what they lie about."""
        return float(self.scale) if self.lies == "subset" else None

    def place(self, devices: int, byzantine: int) -> Int[Array, " byzantine"]:
        """The first ones."""
        return np.arange(byzantine)

    def forge(self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams) -> Float[Array, "byzantine dim"]:
        """Scale × own; own where a subset in it is spoiled already."""
        return own * float(self.scale) if self.spoils is None else own


def alie_z(devices: int, byzantine: int) -> float:
    """The default z; 0 where the formula has no value (more than half of the devices are Byzantine)."""
    from statistics import NormalDist  # 2 ms: for this attack alone

    honest = devices - byzantine
    share = (honest - (devices // 2 + 1 - byzantine)) / max(honest, 1)
    return NormalDist().inv_cdf(share) if 0 < share < 1 else 0.0
