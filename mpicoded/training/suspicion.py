"""Who was it? How oddly the votes of each device lie around what the rule makes of all."""

from typing import Any

import numpy as np

from mpicoded.algorithms.shapes import Array, Bool, Float
from mpicoded.algorithms.slices import WHOLE, Sums
from mpicoded.algorithms.spread import deviations

_MOST = 10.0  # of one round: a single absurd vote must not outweigh a hundred doubtful ones


class Suspicion:
    """How far out a device's votes are: the root mean square, over rounds, of two z-scores.

    One is of the vote's distance to the aggregate, the other of its component along the aggregate: (value - median) /
    deviation over the devices, with a robust deviation (from the median of |value - median|), up to 10 in size; a bad
    or missing record counts 10. Honest devices score near 1, up to about 2 where the allocation is fixed, since a
    device's own data is always the same. A lie may lie too far away, too near, or in another direction. Where the code
    itself shows who contradicts what was decoded, a device scores 10 in the rounds in which it did, else 0.
    """

    def __init__(self, devices: int) -> None:
        self._squares = np.zeros(devices)
        self._rounds = np.zeros(devices, np.int64)

    def note(
        self,
        messages: Float[Array, "messages dim"],
        vote: Float[Array, " dim"],
        usable: Bool[Array, " messages"],
        accused: Bool[Array, " devices"] | None,
        scored: Bool[Array, " devices"],
        sums: Sums = WHOLE,
    ) -> None:
        """Take in the messages of a round, ordered by device, and what came out. ``scored``: of these devices.

        ``sums``: over all coordinates, where these are some of them.
        """
        devices = len(self._squares)
        if not usable.any():
            return
        self._rounds += scored
        if accused is not None:
            absent = ~usable.reshape(devices, -1).all(axis=1)
            self._squares[(accused | absent) & scored] += _MOST**2
            return

        # The votes are read once. What cancels in ||x||^2 - 2 x.v + ||v||^2 is far below any honest distance unless all
        # honest votes are equal, and then any lie is far above it.
        def products(piece: slice) -> Array:
            some, part = messages[:, piece], vote[piece]
            found = np.empty((3, len(messages)), vote.dtype)
            found[0], found[1], found[2] = some @ part, np.vecdot(some, some), part @ part
            return found

        along, squares, length = sums.over(len(vote), products)
        squares = squares - 2 * along + length
        values = np.stack([np.sqrt(np.maximum(squares, 0)), along]).astype(np.float64, copy=False)
        sizes = np.abs(deviations(values, usable))
        sizes[:, ~usable] = _MOST
        squares = (np.minimum(sizes, _MOST) ** 2).mean(axis=0).reshape(devices, -1).mean(axis=1)
        self._squares[scored] += squares[scored]

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        return {"squares": self._squares, "rounds": self._rounds}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._squares[:], self._rounds[:] = state["squares"], state["rounds"]

    @property
    def scores(self) -> Float[Array, " devices"]:
        """Over the rounds so far."""
        return np.sqrt(self._squares / np.maximum(self._rounds, 1))
