"""One message for each task that a device holds; the replicas of a task vote."""

from typing import Any, ClassVar

import numpy as np

from mpicoded.algorithms.compressors import Compressor
from mpicoded.algorithms.encoders import replicas
from mpicoded.algorithms.encoders.base import Code, Decoded, Decoder, Encoder
from mpicoded.algorithms.encoders.tasks import places, tasks_of
from mpicoded.algorithms.encoders.worst import most_outvoted
from mpicoded.algorithms.shapes import Array, Bool, Float, Int
from mpicoded.errors import InputError


class Ballot(Decoder):
    """A vote for each task, by exact equality of the bits that its holders sent.

    The value that more than half of the usable replicas have wins; without one, the coordinate-wise median of the
    usable replicas does (which is the same where there is a majority), and zero where there is none. Honest replicas
    are more than half of the usable ones wherever liars and missing ones together are fewer than half of the
    *holders*, so missing replicas need no votes held against them.
    Accusing is another matter: a device is accused where it says otherwise than more than half of all *holders*, since
    few usable replicas may all be lies.
    """

    def __init__(self, assignment: Bool[Array, "devices subsets"]) -> None:
        held = tasks_of(assignment).held
        self.held = held
        self.owner, keys = np.nonzero(held)
        self.table = places(held)
        super().__init__(keys, held.shape[1])

    def decode(
        self, messages: Float[Array, "messages dim"], usable: Bool[Array, " messages"], stream: np.random.Generator
    ) -> Decoded:
        """A vote for each task, and who contradicts whom."""
        same = replicas.classes(messages, self.table, usable)
        return Decoded(self.votes_of(messages, same), self.conflicts_of(same), self.outvoted(same))

    def outvoted(self, same: Int[Array, "tasks copies"]) -> Bool[Array, " devices"]:
        """Which devices say otherwise than more than half of all holders of some task."""
        winner, size = replicas.largest(same)
        against = (same >= 0) & (same != winner[:, None]) & (2 * size > self.held.sum(axis=0))[:, None]
        accused = np.zeros(len(self.held), bool)
        accused[self.owner[self.table[against]]] = True
        return accused

    def votes_of(
        self, messages: Float[Array, "messages dim"], same: Int[Array, "tasks copies"]
    ) -> Float[Array, "votes dim"]:
        """What each task's replicas, in classes of equal ones, make of it."""
        winner, size = replicas.largest(same)
        votes: Array = messages[self.table[np.arange(len(winner)), winner]]
        open_ = np.flatnonzero(2 * size <= (same >= 0).sum(axis=1))
        if len(open_):
            votes[open_] = replicas.medians(messages, np.where(same >= 0, self.table, -1)[open_])
        return votes

    def conflicts_of(self, same: Int[Array, "tasks copies"]) -> Bool[Array, "devices devices"]:
        """Which two devices contradict each other on any task."""
        return np.asarray(replicas.conflicts(same, self.owner[self.table], len(self.held)))


class Voting(Encoder):
    """Base of the encoders whose devices send a message for each task they hold.

    A task is the subsets that the same devices hold; its message is T/M times the sum of their gradients (T tasks, M
    subsets), so that the mean over votes is the mean over subsets. There are as many votes as tasks. Honest replicas
    of a task are equal to the bit, and stay so under any compressor, since those of one task use the same random
    numbers.
    """

    replicates: ClassVar[bool] = True

    def check(self, assignment: Bool[Array, "devices subsets"], compressor: Compressor, dtype: Any = "float64") -> None:
        """As many tasks on each device: all send the same number of messages."""
        tasks = tasks_of(assignment).held.sum(axis=1)
        low, high = int(tasks.min()), int(tasks.max())
        if low != high or not high:
            raise InputError(
                f"encoder {self.name()}: needs as many tasks, at least 1, on each device (a task is the subsets that "
                f"the same devices hold); device {tasks.argmin()} holds {low}, device {tasks.argmax()} holds {high}"
            )

    def messages(self, assignment: Bool[Array, "devices subsets"]) -> int:
        """As many as a device holds tasks."""
        return int(tasks_of(assignment).held[0].sum())

    def code(self, assignment: Bool[Array, "devices subsets"], first: int, stop: int) -> Code:
        """Messages by device, then by task; the key is the task."""
        tasks = tasks_of(assignment)
        _, keys = np.nonzero(tasks.held[first:stop])
        return Code(tasks.weights(keys), keys)

    def corrupted(self, assignment: Bool[Array, "devices subsets"], byzantine: int) -> int:
        """The most tasks of which half the holders or more can be Byzantine, or (where a search is long) a bound."""
        return most_outvoted(tasks_of(assignment).held, byzantine)


class MajorityVote(Voting):
    """Each device sends a message for each task it holds, and the server takes what most of a task's holders say.

    A task is the subsets that the same devices hold. Its vote is exact, to the bit, where more than half of its holders
    are honest and heard; without a majority it is the coordinate-wise median of what was heard.
    """

    source: ClassVar[str] = (
        "DRACO, Chen et al. 2018; DETOX, Rajput et al. 2019; ByzShield, Konstantinidis and Ramamoorthy 2021"
    )
    acronym: ClassVar[str] = "DRACO, DETOX, ByzShield"
    cost: ClassVar[str] = "redundancy × dim for each device; every message compared with its task's others"

    def decoder(self, assignment: Bool[Array, "devices subsets"]) -> Decoder:
        """Voting by exact equality."""
        return Ballot(assignment)
