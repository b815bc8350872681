"""Compressed differences of gradients at two points, with a gradient of all samples now and then."""

from typing import ClassVar, Literal

import numpy as np

from mpicoded.algorithms.allocations import Allocation
from mpicoded.algorithms.arrays import beside, clear, into_rows, namespace, replace, rows
from mpicoded.algorithms.compressors import Compressor
from mpicoded.algorithms.encoders import Encoder
from mpicoded.algorithms.memories.base import (
    Mask,
    Memory,
    Messages,
    Share,
    State,
    Turn,
    Vector,
    coins,
    follow,
    need_task,
    need_unbiased,
    settle,
)
from mpicoded.algorithms.memories.feedback import Feedback
from mpicoded.algorithms.shapes import Array, Bool, Int
from mpicoded.errors import InputError


class Marina(Memory):
    """Gradients of all samples, not compressed, in some rounds; in the others estimate += C(x_t - x_{t-1}).

    A coin common to all devices decides, heads with ``probability`` and always in the first round; both gradients of
    a difference are of the same samples. ``anchor``: what is added to, the ``server``'s previous aggregate as in the
    paper, or each device's ``own`` estimate as in released code.
    """

    source: ClassVar[str] = "arXiv 2206.00529"
    acronym: ClassVar[str] = "Byz-VR-MARINA"
    cost: ClassVar[str] = "N dim and a second gradient; with own anchors N dim numbers kept by the server"
    on_gpu: ClassVar[bool] = True
    probability: Share = 0.1  # of a round with gradients of all samples
    anchor: Literal["server", "own"] = "server"  # what differences are added to

    @property
    def server_slots(self) -> int:
        """The device's estimate, unless all have the aggregate's."""
        return int(self.anchor == "own")

    @property
    def remembers(self) -> bool:
        """The previous aggregate at least."""
        return True

    @property
    def looks_back(self) -> bool:
        """Between the rounds of all samples."""
        return True

    def check(self, allocation: Allocation, compressor: Compressor, dim: int) -> None:
        """An unbiased compressor, and a task that stays where the estimate is the device's own."""
        if self.anchor == "own":
            need_task(self, allocation)
        need_unbiased(self, compressor, dim)

    def check_encoder(self, encoder: Encoder, allocation: Allocation) -> None:
        """Messages that are votes, or an estimate of each message's own."""
        if self.anchor == "server" and encoder.decodes:
            raise InputError(
                f"memory marina: anchor = 'server' adds the aggregate to every message, but encoder {encoder.name()} "
                "makes votes of several; use anchor = 'own' or encoder mean"
            )
        super().check_encoder(encoder, allocation)

    def dense(self, seed: int, rounds: Int[Array, " rounds"]) -> Bool[Array, " rounds"]:
        """Where the coin shows heads."""
        return coins(seed, rounds, self.probability)

    def turn(self, seed: int, round: int, compressor: Compressor, total: int) -> Turn:
        """All samples, or a look back."""
        turn = super().turn(seed, round, compressor, total)
        return turn._replace(whole=turn.dense, looks_back=not turn.dense)

    def prepare(self, messages: Messages, before: Messages | None, state: State, turn: Turn) -> None:
        """The gradient, or its difference to the previous round's."""
        if before is not None:
            messages -= before

    def votes(self, received: Messages, state: State, last: Vector, usable: Mask, turn: Turn) -> None:
        """The estimates of those that sent."""
        if self.anchor == "own":
            if turn.whole:
                places = np.flatnonzero(usable)
                replace(state[0], places, rows(received, places))
            else:
                follow(state[0], received, turn.total)
            received[...] = state[0]
        elif not turn.whole:
            received += beside(last, received)
            settle(received, turn.total)
        clear(received, ~usable)


class DashaPage(Feedback):
    """g_i += C(h_i' - h_i - a (g_i - h_i)) on both sides; g_i is the vote, h_i' the PAGE estimate.

    h_i' is the gradient of all samples with ``probability`` (a coin common to all devices) and in the first round, else
    h_i + x_t - x_{t-1} on the same samples; a = 1/(2 delta + 1). The first round's message is not compressed.
    """

    source: ClassVar[str] = "arXiv 2310.09804"
    acronym: ClassVar[str] = "Byz-DASHA-PAGE"
    cost: ClassVar[str] = (
        "N dim and a second gradient; N dim numbers kept by the server and 3 N dim by all devices together"
    )
    on_gpu: ClassVar[bool] = True
    probability: Share = 0.1  # of a round with gradients of all samples

    @property
    def device_slots(self) -> int:
        """h_i; (1 - a) y_i + a g_i, where y_i is what the device last said; g_i.

        For an honest device y_i = h_i. What an attack makes a device say is in y_i, as it is in g_i, so that their
        difference is never more than what compression has lost; h_i stays the estimate of the true gradient.
        """
        return 3

    @property
    def looks_back(self) -> bool:
        """Where the coin shows tails."""
        return True

    def check(self, allocation: Allocation, compressor: Compressor, dim: int) -> None:
        """A task that stays the device's, and an unbiased compressor."""
        need_task(self, allocation)
        need_unbiased(self, compressor, dim)

    def dense(self, seed: int, rounds: Int[Array, " rounds"]) -> Bool[Array, " rounds"]:
        """The first round."""
        return np.asarray(rounds == 0)

    def turn(self, seed: int, round: int, compressor: Compressor, total: int) -> Turn:
        """All samples, or a look back."""
        whole = bool(coins(seed, np.array([round]), self.probability)[0])
        return super().turn(seed, round, compressor, total)._replace(whole=whole, looks_back=not whole)

    def prepare(self, messages: Messages, before: Messages | None, state: State, turn: Turn) -> None:
        """h_i' is what is said."""
        if before is not None:
            messages -= before
            messages += state[0]
        settle(messages, turn.total)
        state[0] = messages

    def factor(self, compressor: Compressor, dim: int) -> float:
        """1: the step a makes the recursion stable instead."""
        return 1.0

    def residual(self, said: Messages, state: State, turn: Turn) -> None:
        """h_i' - (1 - a) h_i - a g_i."""
        said -= state[1]

    def update(self, state: State, residuals: Messages, received: Messages, usable: Mask, turn: Turn) -> None:
        """g_i += received, and y_i is what was said, where it was received."""
        _, z, g = state
        xp, share = namespace(z), 1 / (2 * (turn.compressor.variance(z.shape[1]) or 0.0) + 1)
        again = self._follow(g, received, turn)
        into_rows(xp.add, z, residuals, usable)
        into_rows(xp.multiply, z, 1 - share, usable)
        received[...] = g
        received *= share
        into_rows(xp.add, z, received, usable)
        again |= settle(z, turn.total)
        places = np.flatnonzero(again)
        replace(z, places, rows(g, places))
