"""Byzantine devices: who they are in a round, and what they send instead of their message."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mpicoded.algorithms.arrays import beside, fetched, namespace, picked, replace, rows
from mpicoded.algorithms.attacks import Seen
from mpicoded.algorithms.component import works_on_gpu
from mpicoded.algorithms.processors import Processor
from mpicoded.algorithms.randomness import Streams, generator, generators
from mpicoded.algorithms.shapes import Array, Bool, Float, Int
from mpicoded.algorithms.slices import WHOLE, told_sums
from mpicoded.experiment import Experiment
from mpicoded.training.coding import Coding
from mpicoded.training.tolerance import Tolerance
from mpicoded.transport.base import Transport, block, block_starts, devices_on

_ROUNDS = 32  # whose liars are drawn together


def byzantine_devices(experiment: Experiment, round: int) -> Bool[Array, " devices"]:
    """Which devices are Byzantine in this round: the same draw on every rank."""
    draw = round if experiment.identities == "resampled" else 0
    return _drawn(experiment, range(draw, draw + 1))[0]


def _drawn(experiment: Experiment, draws: range) -> Bool[Array, "draws devices"]:
    """Those of several rounds."""
    devices, byzantine = experiment.devices, experiment.byzantine
    chosen = np.zeros((len(draws), devices), bool)
    if experiment.attack.places:
        chosen[:, experiment.attack.place(devices, byzantine)] = True
        return chosen
    for row, stream in zip(chosen, generators(experiment.seed, "byzantine", draws), strict=True):
        row[stream.permutation(devices)[:byzantine]] = True
    return chosen


def lying(experiment: Experiment, round: int) -> Bool[Array, " devices"]:
    """Those of them that do: none where there is no attack."""
    return byzantine_devices(experiment, round) if experiment.attacked else np.zeros(experiment.devices, bool)


class Spoiled(NamedTuple):
    """A subset whose gradient attackers multiply in their messages."""

    messages: Bool[Array, " messages"]  # of this rank, those of attackers
    subset: int
    factor: float


class Adversary:
    """The attackers among the devices of this rank, and what reaches them from the others.

    Where devices send several messages, attackers forge each of theirs as if it came from a device of its own.
    """

    def __init__(
        self, experiment: Experiment, transport: Transport, coding: Coding, dim: int, processor: Processor
    ) -> None:
        self._experiment, self._transport, self._coding = experiment, transport, coding
        self._first, self._stop = block(experiment.devices, transport.rank, transport.size)
        self._starts = block_starts(experiment.devices, transport.size)
        self.active, attack = experiment.attacked, experiment.attack
        # The server as attackers think of it.
        self._tolerance = Tolerance(experiment, coding, processor.sums) if self.active and attack.knows_rule else None
        self._forges = self.active and attack.sends and not attack.tampers
        self._everyone = np.ones(experiment.devices, bool)
        self._drawn: tuple[range, Bool[Array, "draws devices"]] = range(0), np.zeros((0, experiment.devices), bool)
        self._heard = coding.each * (experiment.devices - experiment.byzantine), dim
        self._room: Array | None = None  # for the honest messages of all ranks, of this shape
        self._processor, self._on_gpu = processor, works_on_gpu(attack, "forge")
        self.direct = False  # whether the transport takes rows on a GPU

    def byzantine(self, round: int) -> Bool[Array, " devices"]:
        """Which devices are Byzantine in this round."""
        draw = round if self._experiment.identities == "resampled" else 0
        if draw not in self._drawn[0]:  # of several rounds together: one costs little more alone
            draws = range(draw, draw + (_ROUNDS if self._experiment.identities == "resampled" else 1))
            self._drawn = draws, _drawn(self._experiment, draws)
        draws, drawn = self._drawn
        return drawn[draw - draws.start]

    def mislabelled(self, round: int) -> Bool[Array, " messages"] | None:
        """Which of this rank's messages are computed on wrong targets; None: none of them."""
        if not self.active or not self._experiment.attack.mislabels:
            return None
        mine = self._mine(self.byzantine(round))
        return mine if mine.any() else None

    def spoiled(self, round: int) -> Spoiled | None:
        """What this rank's attackers make of one subset's gradient; None: nothing."""
        factor = self._experiment.attack.spoils
        if not self.active or factor is None:
            return None
        byzantine = self.byzantine(round)
        held = self._coding.assignment(round)[byzantine].sum(axis=0)
        mine = self._mine(byzantine)
        return Spoiled(mine, int(held.argmax()), factor) if mine.any() else None

    def _mine(self, devices: Bool[Array, " devices"]) -> Bool[Array, " messages"]:
        return self._coding.messages(devices[self._first : self._stop])

    def act(self, messages: Float[Array, "messages dim"], round: int) -> None:
        """Replace the messages of this rank's Byzantine devices, in place.

        What colluding attackers know travels on an exchange of its own, which no byte counter sees: it stands
        for what an attacker listens in on, not for traffic of the training. Messages on a GPU are forged there, if the
        attack can; else those that attackers see or change are fetched.
        """
        if not self._forges:
            return
        byzantine = self.byzantine(round)
        mine, there = self._mine(byzantine), self._on_gpu and not isinstance(messages, np.ndarray)
        honest = self._listen(messages, byzantine, there) if self._experiment.attack.colludes else None
        (places,) = mine.nonzero()
        if len(places):
            present, alive = self._transport.present, self._everyone
            if np.count_nonzero(present) < len(present):
                alive = devices_on(present, len(alive))  # not the devices of ranks that have died
            trial = self._trial(byzantine, alive, honest, round)
            sums = self._processor.sums if there else WHOLE
            seen = Seen(self._coding.each * int(np.count_nonzero(alive)), honest, trial, sums)
            own = rows(messages, places) if there else picked(messages, places)
            replace(messages, places, self._experiment.attack.forge(own, seen, self._streams(places, round)))

    def _listen(self, messages: Array, byzantine: Bool[Array, " devices"], there: bool) -> Float[Array, "honest dim"]:
        """The honest messages of all ranks; ``there``: where this rank's are, on a GPU, else as NumPy's.

        They stay on GPUs where the transport takes them from there, and in one process.
        """
        transport, mine = self._transport, self._mine(byzantine)
        own: Array
        if there and (self.direct or transport.size == 1):
            own = rows(messages, np.flatnonzero(~mine))
            self._processor.wait()
        else:
            own = picked(messages, np.flatnonzero(~mine))
        if self._room is None and transport.size > 1:
            self._room = namespace(own).empty(self._heard, dtype=own.dtype)
        counts = self._coding.each * np.add.reduceat(~byzantine, self._starts, dtype=np.int64)
        honest = transport.share(own, counts * transport.present, own if self._room is None else self._room)
        return self._processor.put(honest) if there else honest

    def tamper(self, records: Array, round: int) -> Bool[Array, " devices"] | None:
        """Change the packed records of this rank's Byzantine devices, in place; which devices send (None: all)."""
        attack = self._experiment.attack
        if not self.active or (attack.sends and not attack.tampers):
            return None
        if not attack.sends:
            return ~self.byzantine(round)[self._first : self._stop]
        mine = self._mine(self.byzantine(round))
        if mine.any():
            raw = records.view(np.uint8).reshape(len(records), records.itemsize)
            forged = raw[mine]
            attack.tamper(forged, self._streams(np.flatnonzero(mine), round))
            raw[mine] = forged
        return None

    def _trial(
        self, byzantine: Bool[Array, " devices"], alive: Bool[Array, " devices"], honest: Array | None, round: int
    ) -> Callable[[Array], Array] | None:
        """What the server would make of a forged message, for attacks that try."""
        experiment, tolerance = self._experiment, self._tolerance
        if honest is None or tolerance is None:
            return None
        liars, come = self._coding.messages(byzantine), self._coding.messages(alive)
        messages = namespace(honest).zeros((len(liars), honest.shape[1]), dtype=honest.dtype)
        decoder, sums = self._coding.decoder(round), WHOLE if isinstance(honest, np.ndarray) else self._processor.sums

        def aggregate(forged: Array) -> Array:
            replace(messages, np.flatnonzero(~liars & come), honest)
            replace(messages, np.flatnonzero(liars & come), forged)
            coded = fetched(messages) if experiment.encoder.decodes else messages  # codes are decoded on the CPU
            mixed = decoder.decode(coded, come, generator(experiment.seed, "trial code", round)).votes
            mixed = beside(mixed, messages)
            if not (come.all() or experiment.encoder.decodes):
                mixed = rows(mixed, np.flatnonzero(come))
            filters, aggregator = tolerance.trial(mixed)
            for item in filters:
                stream = generator(experiment.seed, "trial", round)
                mixed = item.apply(mixed, stream=stream, **told_sums(item.apply, sums))
            if aggregator.told:
                mixed = rows(mixed, np.flatnonzero(~liars[come]))
            return aggregator.aggregate(mixed, **told_sums(aggregator.aggregate, sums))

        return aggregate

    def _streams(self, mine: Int[Array, " byzantine"], round: int) -> Streams:
        return Streams(self._experiment.seed, round, self._first * self._coding.each + mine)
