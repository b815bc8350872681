"""Faults made on purpose, on ranks that are named: to see what a run makes of them."""

from typing import Annotated, ClassVar

import msgspec
import numpy as np

from mpicoded.algorithms.component import Component, Count, PositiveCount
from mpicoded.algorithms.randomness import Streams
from mpicoded.algorithms.shapes import Array, Float
from mpicoded.errors import InputError


class Fault(Component):
    """Base of the faults: something is wrong with some ranks, from one round on (to another).

    Rounds count from 1. Unlike an attack, a fault strikes all devices of a rank, honest ones too.
    """

    source: ClassVar[str] = "fault injection"
    cost: ClassVar[str] = "none"
    ranks: Annotated[tuple[Count, ...], msgspec.Meta(min_length=1)]  # that it strikes
    first: PositiveCount = 1  # round, counted from 1
    last: PositiveCount | None = None  # round; unset: the run's last

    def strikes(self, rank: int, round: int) -> bool:
        """Whether it does so in this round (counted from 1)."""
        return rank in self.ranks and self.first <= round <= (self.last or round)

    def delay(self, seconds: float) -> float:
        """How much longer it takes to compute what takes so many seconds."""
        return 0.0

    @property
    def silences(self) -> bool:
        """Whether the devices send nothing."""
        return False

    @property
    def kills(self) -> bool:
        """Whether the process dies, by SIGKILL."""
        return False

    def corrupt(self, messages: Float[Array, "messages dim"], streams: Streams) -> None:
        """Change the messages in place. ``streams``: those of the messages' devices."""


class Slow(Fault):
    """The ranks take ``factor`` times as long for their gradients: they sleep for the rest of the time."""

    factor: Annotated[float, msgspec.Meta(ge=1)] = 10.0  # how many times longer gradients take

    def delay(self, seconds: float) -> float:
        """So many times longer."""
        return (self.factor - 1) * seconds


class Silent(Fault):
    """The devices of the ranks send nothing."""

    @property
    def silences(self) -> bool:
        """They are."""
        return True


class Killed(Fault):
    """The ranks die in round ``first``, when they have their orders; a run that is resumed after it goes on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.last is not None:
            raise InputError(f"Killed(ranks={self.ranks}) dies once, in round first: last = {self.last} says nothing")

    def strikes(self, rank: int, round: int) -> bool:
        """Once."""
        return rank in self.ranks and round == self.first

    @property
    def kills(self) -> bool:
        """They do."""
        return True


class BitFlips(Fault):
    """A bit of a message of each of the ranks' devices is flipped: a core that computes wrong without a sign of it.

    ``probability``: of a message to be struck, in a round; place and bit are uniform.
    """

    cost: ClassVar[str] = "one number drawn for each message of the ranks"
    probability: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0  # of a message to be struck, in a round

    def corrupt(self, messages: Float[Array, "messages dim"], streams: Streams) -> None:
        """Flip one bit of some messages."""
        bits = 8 * messages.itemsize
        struck, place, bit = streams.uniform("bit flips", 3).T
        rows = np.flatnonzero(struck < self.probability)
        columns = (place[rows] * messages.shape[1]).astype(np.int64)
        words = messages.view(f"u{messages.itemsize}")
        words[rows, columns] ^= (1 << (bit[rows] * bits).astype(words.dtype)).astype(words.dtype)


Choice = Slow | Silent | Killed | BitFlips

__all__ = ["BitFlips", "Choice", "Fault", "Killed", "Silent", "Slow"]
