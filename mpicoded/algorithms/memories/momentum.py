"""Momentum of each device's messages, kept by the device or by the server."""

from typing import ClassVar

from mpicoded.algorithms.arrays import clear, into_rows, namespace
from mpicoded.algorithms.component import Fraction
from mpicoded.algorithms.memories.base import Mask, Memory, Messages, State, Turn, Vector, settle


class Momentum(Memory):
    """m_i <- beta m_i + (1 - beta) x_i at the device, which sends m_i: older rounds average its noise out.

    m_i starts at zero. It is made of what the device computed, not of what an attack made of it (with ``label_flip``,
    of what it computed wrongly).
    """

    source: ClassVar[str] = "Karimireddy et al. 2021; with NNM: Allouah et al. 2023"
    acronym: ClassVar[str] = "worker momentum"
    cost: ClassVar[str] = "N dim, and as many numbers kept by all devices together"
    on_gpu: ClassVar[bool] = True
    beta: Fraction = 0.9  # the share of what is old

    @property
    def device_slots(self) -> int:
        """m_i."""
        return 1

    @property
    def wants_fixed(self) -> str:
        """A guarantee; a lie about the message does not spoil m_i, one about the data does."""
        return "has a theory for identities that stay only"

    def prepare(self, messages: Messages, before: Messages | None, state: State, turn: Turn) -> None:
        """The momentum is what is said."""
        mix(state[0], messages, 1 - self.beta)
        settle(state[0], turn.total)
        messages[...] = state[0]


class ServerMomentum(Memory):
    """m_i <- beta m_i + (1 - beta) C(x_i) at the server, and m_i is the vote; devices keep nothing.

    m_i starts at zero. In a round in which nothing usable comes from a device, its m_i stays and its vote is zero.
    """

    source: ClassVar[str] = "arXiv 2508.17129, with rand_k, shared = true"
    acronym: ClassVar[str] = "RoSDHB"
    cost: ClassVar[str] = "N dim, and as many numbers kept by the server"
    on_gpu: ClassVar[bool] = True
    beta: Fraction = 0.9  # the share of what is old

    @property
    def server_slots(self) -> int:
        """m_i."""
        return 1

    def votes(self, received: Messages, state: State, last: Vector, usable: Mask, turn: Turn) -> None:
        """The momenta of those that sent."""
        into_rows(namespace(received).multiply, state[0], self.beta, usable)
        received *= 1 - self.beta
        state[0] += received
        settle(state[0], turn.total)
        received[...] = state[0]
        clear(received, ~usable)


def mix(average: Messages, new: Messages, share: float) -> None:
    """average <- (1 - share) average + share new, in place; ``new`` is used up."""
    average *= 1 - share
    new *= share
    average += new
