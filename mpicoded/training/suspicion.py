"""Who was it? How oddly the votes of each device lie around what the rule makes of all."""

from typing import Any

import numpy as np

from mpicoded.algorithms.arrays import fetched, namespace, squared_lengths
from mpicoded.algorithms.shapes import Array, Bool, Float
from mpicoded.algorithms.slices import WHOLE, Sums
from mpicoded.algorithms.spread import deviations

_MOST = 10.0  # of one round: a single absurd vote must not outweigh a hundred doubtful ones
_TOGETHER = 32  # rounds


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
        # Products of the last rounds, to be scored together: by themselves, small ones would cost more than the rule.
        self._waiting = np.empty((0, 3, 0))
        self._count = 0
        self._masks = b"", b""  # which messages of those rounds are usable, and which devices scored

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

        ``sums``: over all coordinates, where these are some of them. The vote is in the same memory as the messages.
        """
        devices = len(self._squares)
        if not np.count_nonzero(usable):
            return
        if accused is not None:
            self._score()
            self._rounds += scored
            absent = ~usable.reshape(devices, -1).all(axis=1)
            self._squares[(accused | absent) & scored] += _MOST**2
            return

        found = fetched(sums.over(len(vote), lambda piece: _products(messages[:, piece], vote[piece])))
        masks = usable.tobytes(), scored.tobytes()
        if self._count == len(self._waiting) or self._masks != masks:
            self._score()
            self._masks = masks
        if self._waiting.shape[1:] != found.shape:
            self._waiting = np.empty((_TOGETHER, *found.shape), found.dtype)
        self._waiting[self._count] = found
        self._count += 1

    def _score(self) -> None:
        """Score the rounds that wait, and add them up one by one: the sum is the same however many have waited."""
        if not self._count:
            return
        usable, scored = (np.frombuffer(mask, bool) for mask in self._masks)
        found = self._waiting[: self._count]
        along, squares = found[:, 0], found[:, 1] - 2 * found[:, 0] + found[:, 2]
        values = np.stack([np.sqrt(np.maximum(squares, 0)), along], axis=1).astype(np.float64, copy=False)
        sizes = np.abs(deviations(values, usable))
        sizes[..., ~usable] = _MOST
        of_messages = (np.minimum(sizes, _MOST) ** 2).mean(axis=1)
        for squares in of_messages.reshape(self._count, len(self._squares), -1).mean(axis=2) * scored:
            self._squares += squares
        self._rounds += self._count * scored
        self._count = 0

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        self._score()
        return {"squares": self._squares, "rounds": self._rounds}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._squares[:], self._rounds[:] = state["squares"], state["rounds"]

    @property
    def scores(self) -> Float[Array, " devices"]:
        """Over the rounds so far."""
        self._score()
        return np.sqrt(self._squares / np.maximum(self._rounds, 1))


def _products(messages: Float[Array, "messages columns"], vote: Float[Array, " columns"]) -> Float[Array, "3 messages"]:
    """Of each message with the vote, with itself, and of the vote with itself: the messages are read once.

    What cancels in ||x||^2 - 2 x.v + ||v||^2 is far below any honest distance unless all honest votes are equal, and
    then any lie is far above it.
    """
    found = namespace(messages).empty((3, len(messages)), dtype=vote.dtype)
    found[0, :], found[1, :], found[2, :] = messages @ vote, squared_lengths(messages), vote @ vote
    return found
