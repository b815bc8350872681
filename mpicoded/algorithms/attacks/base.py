"""What an attack is, and what attackers see."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from mpicoded.algorithms.component import Component
from mpicoded.algorithms.randomness import Streams
from mpicoded.algorithms.shapes import Array, Float, Int, UInt8
from mpicoded.algorithms.slices import WHOLE, Sums


class Seen(NamedTuple):
    """What the attackers know."""

    messages: int  # of all devices, attackers among them: N where each sends one
    honest: Float[Array, "honest dim"] | None  # all honest messages in device order, for attacks that collude
    aggregate: Callable[[Float[Array, " dim"]], Float[Array, " dim"]] | None = None
    """What filters and rule make of the honest messages and this one of every attacker, where the rule is known."""
    sums: Sums = WHOLE
    """How to sum over all coordinates where the messages are."""


class Attack(Component):
    """Base of the attacks."""

    colludes: ClassVar[bool] = False
    """Whether the attackers need to see the honest messages."""
    knows_rule: ClassVar[bool] = False
    """Whether the attackers try their messages on the server's filters and rule; only those that collude can."""
    mislabels: ClassVar[bool] = False
    """Whether the own messages are computed on wrong targets."""
    places: ClassVar[bool] = False
    """Whether the attackers choose which devices they are (see ``place``)."""
    tampers: ClassVar[bool] = False
    """Whether the packed records are changed."""
    sends: ClassVar[bool] = True
    """Whether any message is sent at all."""
    on_gpu: ClassVar[bool] = True
    """Whether this class's ``forge`` takes messages on a GPU, and forges them there; else it gets NumPy's."""

    @property
    def spoils(self) -> float | None:
        """What attackers multiply one subset's gradient by before they encode; None: none is spoiled."""
        return None

    def check(self, dim: int, record: np.dtype[Any]) -> None:
        """Raise InputError where messages of ``dim`` numbers, sent as such records, cannot be attacked so."""

    def place(self, devices: int, byzantine: int) -> Int[Array, " byzantine"]:
        """The devices that the attackers take, whatever the round."""
        raise NotImplementedError

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
    cost: ClassVar[str] = "none"
