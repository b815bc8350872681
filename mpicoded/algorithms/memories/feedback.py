"""Error feedback: both sides remember g_i, and only what it lacks is compressed; g_i is the vote."""

from typing import ClassVar

from mpicoded.algorithms.allocations import Allocation
from mpicoded.algorithms.arrays import clear
from mpicoded.algorithms.compressors import Compressor
from mpicoded.algorithms.memories.base import (
    Mask,
    Memory,
    Messages,
    Share,
    State,
    Turn,
    Vector,
    follow,
    need_contraction,
    need_task,
    settle,
)
from mpicoded.algorithms.memories.momentum import mix


class Feedback(Memory):
    """Base of the memories of which both sides keep g_i <- g_i + c C(…), the device as its last slot.

    What lies have made too long for any rule starts again from zero. In a round in which nothing usable comes from a
    device, its g_i stays on both sides and its vote is zero.
    """

    on_gpu: ClassVar[bool] = True

    @property
    def server_slots(self) -> int:
        """g_i."""
        return 1

    def factor(self, compressor: Compressor, dim: int) -> float:
        """c: 1 for contractive compressors, 1/(1 + delta) for unbiased ones, which makes them contractive."""
        return compressor.damping(dim)

    def residual(self, said: Messages, state: State, turn: Turn) -> None:
        """What is said, less g_i."""
        said -= state[-1]

    def update(self, state: State, residuals: Messages, received: Messages, usable: Mask, turn: Turn) -> None:
        """g_i, as the server has it."""
        self._follow(state[-1], received, turn)

    def votes(self, received: Messages, state: State, last: Vector, usable: Mask, turn: Turn) -> None:
        """g_i of those that sent."""
        self._follow(state[-1], received, turn)
        received[...] = state[-1]
        clear(received, ~usable)

    def _follow(self, estimates: Messages, received: Messages, turn: Turn) -> Mask:
        factor = self.factor(turn.compressor, received.shape[1])
        if factor != 1:
            received *= factor
        return follow(estimates, received, turn.total)


class Ef21(Feedback):
    """g_i <- g_i + c C(x_i - g_i) on both sides, and g_i is the vote: what is lost now is sent later.

    c = 1 for contractive compressors, 1/(1 + delta) for unbiased ones, which makes them contractive. With a robust rule
    this is Byz-EF21.
    """

    source: ClassVar[str] = "Richtarik et al. 2021; with a robust rule: arXiv 2310.09804"
    acronym: ClassVar[str] = "EF21, Byz-EF21"
    cost: ClassVar[str] = "N dim, and as many numbers kept by the server and by all devices together"

    @property
    def device_slots(self) -> int:
        """g_i."""
        return 1

    def check(self, allocation: Allocation, compressor: Compressor, dim: int) -> None:
        """A task that stays the device's, and a contractive compressor."""
        need_task(self, allocation)
        need_contraction(self, compressor, dim)


class Dm21(Feedback):
    """v <- (1-eta) v + eta x; u <- (1-eta) u + eta v; g <- g + c C(u - g) on both sides, and g is the vote.

    With ``variance_reduced`` v <- x_t + (1-eta) (v - x_{t-1}), both computed on the same samples, at a
    second gradient a round. v and u start at the first round's x. c as in ef21.
    """

    source: ClassVar[str] = "arXiv 2603.15144"
    acronym: ClassVar[str] = "Byz-DM21, Byz-VR-DM21"
    cost: ClassVar[str] = (
        "N dim, and with variance_reduced a second gradient; N dim numbers kept by the server and 3 N dim by all "
        "devices together"
    )
    on_gpu: ClassVar[bool] = True
    eta: Share = 0.1  # the share of what is new in v and u
    variance_reduced: bool = False  # a second gradient, at the previous parameters

    @property
    def device_slots(self) -> int:
        """v, u, g."""
        return 3

    @property
    def looks_back(self) -> bool:
        """Where variance is reduced."""
        return self.variance_reduced

    def check(self, allocation: Allocation, compressor: Compressor, dim: int) -> None:
        """A contractive compressor; tasks may vary where u is a mean over rounds."""
        if self.eta == 1:
            need_task(self, allocation)
        need_contraction(self, compressor, dim)

    def turn(self, seed: int, round: int, compressor: Compressor, total: int) -> Turn:
        """The first round has nothing to look back to."""
        return super().turn(seed, round, compressor, total)._replace(looks_back=self.looks_back and round > 0)

    def prepare(self, messages: Messages, before: Messages | None, state: State, turn: Turn) -> None:
        """u is what is said."""
        v, u, _ = state
        share = 1.0 if turn.round == 0 else self.eta
        if before is None:
            mix(v, messages, share)
        else:
            v -= before
            v *= 1 - share
            v += messages
        settle(v, turn.total)
        messages[...] = v
        mix(u, messages, share)
        settle(u, turn.total)
        messages[...] = u
