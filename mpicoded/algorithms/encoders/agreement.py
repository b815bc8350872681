"""Votes of those who agree with each other: who contradicts too many is out before the vote."""

from typing import ClassVar

import numpy as np

from mpicoded.algorithms.component import Count
from mpicoded.algorithms.encoders import replicas
from mpicoded.algorithms.encoders.base import Decoded, Decoder
from mpicoded.algorithms.encoders.evidence import certain_liars
from mpicoded.algorithms.encoders.majority_vote import Ballot, Voting
from mpicoded.algorithms.encoders.tasks import tasks_of
from mpicoded.algorithms.shapes import Array, Bool, Float, Int


class Trial(Ballot):
    """A ballot without the devices that lie for certain, if no more than ``byzantine`` do."""

    def __init__(self, assignment: Bool[Array, "devices subsets"], byzantine: int) -> None:
        super().__init__(assignment)
        self.byzantine = byzantine

    def decode(
        self, messages: Float[Array, "messages dim"], usable: Bool[Array, " messages"], stream: np.random.Generator
    ) -> Decoded:
        """A vote for each task, who contradicts whom, and who lies for certain."""
        same = replicas.classes(messages, self.table, usable)
        conflicts = self.conflicts_of(same)
        found = certain_liars(conflicts, self.byzantine)
        if found is None:
            return Decoded(self.votes_of(messages, same), conflicts, self.outvoted(same))
        liars, all_explained = found
        trusted = np.where(liars[self.owner[self.table]], -1, same)
        votes = self.votes_of(messages, trusted)
        if all_explained:
            self._settle(votes, trusted, int(liars.sum()))
        return Decoded(votes, conflicts, liars)

    def _settle(self, votes: Float[Array, "votes dim"], trusted: Int[Array, "tasks copies"], liars: int) -> None:
        """Turn votes that all devices left agree on into their mean, where no liar can be among them."""
        heard = (trusted >= 0).sum(axis=1)
        if not heard.any():
            return
        mean = votes[heard > 0].mean(axis=0, dtype=np.float64)
        votes[heard == 0 if heard.min() <= self.byzantine - liars else slice(None)] = mean


class Agreement(Voting):
    """Messages as with ``majority_vote``; devices that contradict too many others are left out of the vote.

    In Aspis' graph two devices are joined where they agree on all tasks that they share. All honest devices agree, so
    with ``byzantine`` liars at most they are among N - ``byzantine`` devices that do. Where there is one largest such
    clique alone, whoever is outside lies. Then, if every task has more holders inside than liars can be left, every
    vote becomes the mean of all: any rule returns it, and it is the mean over subsets to the rounding. Otherwise a task
    may be held by liars alone, whom nobody contradicts: votes stay apart for a robust rule (Aspis takes their mean: the
    rule ``mean``), and a task that nobody trusted holds gets the mean of the others. Where several cliques are large
    enough, devices in none are left out and the others vote by majority; so do all where no clique is or the search
    is long.

    Aspis trusts the unique *maximum* clique, whatever its size; but liars who contradict fewer honest devices than they
    are themselves make one with the rest that is larger than the honest one. With their number known it is not alone.
    """

    source: ClassVar[str] = "Aspis, Konstantinidis and Ramamoorthy, arXiv 2108.02416"
    acronym: ClassVar[str] = "Aspis"
    cost: ClassVar[str] = (
        "redundancy × dim for each device; every message compared with its task's others, and a clique"
    )
    byzantine: Count  # how many devices lie at most

    def decoder(self, assignment: Bool[Array, "devices subsets"]) -> Decoder:
        """Voting by exact equality among devices that do not lie for certain."""
        return Trial(assignment, self.byzantine)

    def corrupted(self, assignment: Bool[Array, "devices subsets"], byzantine: int) -> int:
        """As with ``majority_vote``; all votes where there are more liars than assumed."""
        held = tasks_of(assignment).held
        return super().corrupted(assignment, byzantine) if byzantine <= self.byzantine else held.shape[1]
