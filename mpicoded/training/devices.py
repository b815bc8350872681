"""What the devices of one rank compute: gradients of their subsets, encoded.

Both are done where the samples are, on the CPU or a GPU. Plans are NumPy's, and so are messages unless they can be sent
from there.
"""

from typing import Any, NamedTuple

import numpy as np

from mpicoded.algorithms.models import Model
from mpicoded.algorithms.processors import Processor
from mpicoded.algorithms.products import Rows, worth_gathering
from mpicoded.algorithms.randomness import Streams
from mpicoded.algorithms.shapes import Array, Bool, Float, Int
from mpicoded.data.shards import Shards, Work
from mpicoded.experiment import Experiment
from mpicoded.training.adversary import Spoiled
from mpicoded.training.clock import Clock
from mpicoded.training.coding import Coding, Even


class Gradients:
    """Gradients of a rank's subsets, each computed once, in a buffer that is allocated once, where the samples are."""

    def __init__(self, model: Model, shards: Shards, dim: int, classes: int) -> None:
        self.model, self.classes, self.shards = model, classes, shards
        self.processor = shards.processor
        self.dim = dim
        self._buffer = self.processor.xp.empty((len(shards.subsets), dim), dtype=shards.dtype)

    def of(self, shards: Shards) -> "Gradients":
        """The same of other subsets."""
        return Gradients(self.model, shards, self.dim, self.classes)

    def compute(
        self,
        parameters: Float[Array, " dim"],
        work: Work,
        streams: Streams | None = None,
        wrong: bool = False,
        losses: Float[Array, " subsets"] | None = None,
        noise: Streams | None = None,
    ) -> Float[Array, "subsets dim"]:
        """The gradients of the planned subsets, in the plan's order. Empty subsets have gradient zero.

        The parameters are where the samples are. ``wrong``: on wrong targets, as a device of ``label_flip`` does.
        ``losses``: where to put these, too, while the samples are at hand. ``noise``: for models that draw.
        """
        out = self._buffer[: len(work.subsets)]
        filled = 0
        seeds = None if noise is None else noise.of(work.subsets).words("model", 1)[:, 0]
        for batch in self.shards.batches(work, streams):
            targets = self.model.wrong_targets(batch.y, self.classes) if wrong else batch.y
            told = {} if seeds is None else {"seeds": seeds[batch.slots]}
            self.model.gradients(parameters, batch.x, targets, batch.weights, out=out[batch.slots], **told)
            if losses is not None:
                losses[batch.slots] = self.model.losses(parameters, batch.x, targets, batch.weights)
            filled = batch.slots.stop
        out[filled:] = 0.0
        return out


class Plan(NamedTuple):
    """What this rank's devices do in a round."""

    work: Work  # the subsets to compute
    weights: Rows  # (messages, those subsets): how they are combined
    matrix: Any  # the same where the gradients are, see Processor.matrix
    keys: Int[Array, " messages"]  # what the messages say, see Code
    draws: bool  # mini-batches


class Devices:
    """The contiguous block of devices that a rank hosts."""

    def __init__(
        self, experiment: Experiment, coding: Coding, first: int, stop: int, gradients: Gradients, clock: Clock
    ) -> None:
        self.first, self.stop = first, stop
        self.fetches = True  # messages, from where they are computed
        self._experiment, self._coding = experiment, coding
        self._gradients, self._clock = gradients, clock
        self._varies, self._batches = experiment.allocation.varies, experiment.data.batch_size is not None
        self._dtype, self._keys = np.dtype(experiment.compute.dtype), np.arange(first, stop)
        self._weights, self._starts = np.empty(0, self._dtype), np.zeros(1, np.int64)  # of equal messages
        self._plans: dict[bool, tuple[int, Plan]] = {}  # and of which round, by whether they draw
        self._room: dict[str, Array] = {}  # messages, by what they are for
        self._last_work: dict[bool, tuple[bytes, Work, Int[Array, " subsets"] | None]] = {}

    def plan(self, round: int, whole: bool = False) -> Plan:
        """Which subsets to compute and how to combine them; the same in all rounds of a fixed allocation.

        ``whole``: use all samples, also where the experiment draws mini-batches.
        """
        self._clock.enter("plan")
        draws = self._batches and not whole
        made = self._plans.get(draws)
        if made is None or (made[0] != round and self._varies):
            self._plans[draws] = made = round, self._new_plan(round, draws)
        self._clock.leave()
        return made[1]

    def compute_into(self, room: Float[Array, "messages dim"] | None) -> None:
        """From now on put what is sent there, in the CPU's memory; None: anywhere."""
        if room is not None:
            self._room["sent"] = room

    def messages(
        self,
        plan: Plan,
        round: int,
        parameters: Float[Array, " dim"],
        wrong: bool = False,
        spoiled: Spoiled | None = None,
        use: str = "sent",
    ) -> Float[Array, "messages dim"]:
        """The messages of this round, ordered by device; the next ones for the same ``use`` take their place.

        ``wrong``: on wrong targets; ``spoiled``: some with another gradient of one subset.
        """
        processor = self._gradients.processor
        self._clock.enter("compute")
        streams = Streams(self._experiment.seed, round)
        samples, noise = streams if plan.draws else None, streams if self._gradients.model.draws else None
        gradients = self._gradients.compute(processor.put(parameters), plan.work, samples, wrong, noise=noise)
        processor.wait()
        self._clock.enter("encode")
        if use not in self._room:
            self._room[use] = processor.xp.empty((len(plan.keys), gradients.shape[1]), dtype=gradients.dtype)
        messages = processor.combine(plan.matrix, gradients, self._room[use])
        if spoiled is not None:
            _spoil(messages, plan, gradients, spoiled, processor)
        if self.fetches:
            messages = processor.fetch(messages)
        else:
            processor.wait()
        self._clock.leave()
        return messages

    def _new_plan(self, round: int, draws: bool) -> Plan:
        even = self._coding.even(round, self.first, self.stop)
        if even is None:
            assignment = self._coding.assignment(round)
            code = self._experiment.encoder.code(assignment, self.first, self.stop)
            wanted = assignment[self.first : self.stop].any(axis=0)
            weights, keys = code.rows._replace(values=code.rows.values.astype(self._dtype, copy=False)), code.keys
        else:
            wanted = np.zeros(self._coding.subsets, bool)
            wanted[even.subsets] = True
            weights, keys = self._even(even), self._keys
        work, row = self._work(wanted, draws)
        # The order of a message's subsets stays, so that it is the same sum whatever else this rank computes.
        columns = weights.columns if row is None else row[weights.columns]
        weights = Rows(weights.values, columns, weights.starts, len(work.subsets), weights.gathered)
        return Plan(work, weights, self._gradients.processor.matrix(weights), keys, draws)

    def _even(self, even: Even) -> Rows:
        """Equal weights."""
        count, held = even.subsets.shape
        if len(self._weights) != count * held:
            self._weights = np.full(count * held, even.weight, self._dtype)
            self._starts = np.arange(0, count * held + 1, held)
        numbers = self._experiment.devices * held * self._gradients.dim
        gathered = self._gradients.dim > 1 and worth_gathering(numbers, self._experiment.rounds)
        return Rows(self._weights, even.subsets.ravel(), self._starts, self._coding.subsets, gathered)

    def _work(self, wanted: Bool[Array, " subsets"], draws: bool) -> tuple[Work, Int[Array, " subsets"] | None]:
        """What to compute, and at which row of the gradients the subset of each number will be; None: at its number.

        Often the same subsets are wanted as in the round before, though by other devices.
        """
        last = self._last_work.get(draws)
        if last is None or last[0] != wanted.tobytes():
            batch_size = self._experiment.data.batch_size if draws else None
            work = self._gradients.shards.work(np.flatnonzero(wanted), batch_size)
            row = np.zeros(len(wanted), np.int64)
            row[work.subsets] = np.arange(len(work.subsets))
            in_place = np.array_equal(work.subsets, np.arange(len(wanted)))
            self._last_work[draws] = last = wanted.tobytes(), work, None if in_place else row
        return last[1:]


def _spoil(
    messages: Array, plan: Plan, gradients: Float[Array, "subsets dim"], spoiled: Spoiled, processor: Processor
) -> None:
    """Add what a factor on the subset's gradient changes in the attackers' messages."""
    row = np.flatnonzero(plan.work.subsets == spoiled.subset)
    if len(row):
        weights, there = np.zeros(len(plan.keys), gradients.dtype), plan.weights.columns == row
        message = np.repeat(np.arange(len(weights)), np.diff(plan.weights.starts))
        weights[message[there]] = plan.weights.values[there]
        weights = (spoiled.factor - 1) * (weights * spoiled.messages)
        messages += processor.put(weights)[:, None] * gradients[int(row[0])]
