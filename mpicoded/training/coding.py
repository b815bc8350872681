"""The code of a run: how many messages a device sends in a round, and how they become votes."""

from typing import Any

import numpy as np

from mpicoded.algorithms import theory
from mpicoded.algorithms.encoders import Decoder
from mpicoded.algorithms.shapes import Array, Bool, Int
from mpicoded.experiment import Experiment


class Coding:
    """Encoder and allocation together. Where devices send several messages, these are ordered by device."""

    def __init__(self, experiment: Experiment, subsets: int) -> None:
        self._experiment, self._subsets = experiment, subsets
        self.each = 1  # how many messages a device sends in a round
        self._decoder: Decoder | None = None
        self._round = -1
        self._corrupted: dict[int, int] = {}
        if experiment.encoder.decodes:
            self.each = experiment.encoder.messages(self.assignment(0))

    def assignment(self, round: int) -> Bool[Array, "devices subsets"]:
        """Who computes what in this round."""
        experiment = self._experiment
        return experiment.allocation.assignment(experiment.devices, self._subsets, round, experiment.seed)

    def decoder(self, round: int) -> Decoder:
        """How this round's messages become votes: the same in all rounds of a fixed allocation."""
        encoder, devices = self._experiment.encoder, self._experiment.devices
        again = encoder.decodes and self._experiment.allocation.varies and round != self._round
        if self._decoder is None or again:
            whole = self.assignment(round) if encoder.decodes else np.zeros((devices, 0), bool)
            self._decoder, self._round = encoder.decoder(whole), round
        return self._decoder

    def corrupted(self, byzantine: int) -> int:
        """The most votes that so many devices can corrupt."""
        if not self._experiment.encoder.decodes:
            return byzantine
        if byzantine not in self._corrupted:
            self._corrupted[byzantine] = self._experiment.encoder.corrupted(self.assignment(0), byzantine)
        return self._corrupted[byzantine]

    def tolerated(self) -> int:
        """How many devices may lie or be missing in a round, by what the code, filters and rule stand together."""
        experiment = self._experiment
        votes = self.decoder(0).votes
        stood = theory.tolerated(experiment.aggregator, experiment.filters, votes)
        if not experiment.encoder.decodes:
            return stood
        low, high = 0, (experiment.devices - 1) // 2
        while low < high:  # more devices corrupt as many votes or more
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.corrupted(middle) <= stood else (low, middle - 1)
        return low

    def messages(self, mask: Bool[Array, " devices"]) -> Bool[Array, " messages"]:
        """Which messages come from the devices of a mask."""
        return mask if self.each == 1 else np.repeat(mask, self.each)

    def all_of(self, mask: Bool[Array, " messages"]) -> Bool[Array, " devices"]:
        """Which devices have all of their messages in a mask."""
        return mask if self.each == 1 else mask.reshape(-1, self.each).all(axis=1)

    def total(self, counts: Int[Array, " messages"]) -> Int[Array, " devices"]:
        """The sum over each device's messages."""
        return counts if self.each == 1 else counts.reshape(-1, self.each).sum(axis=1)

    def by_device(self, records: Array) -> Array:
        """The same records, those of a device as one item, as they travel."""
        return records if self.each == 1 else records.view(self.travelling(records.dtype))

    def by_message(self, items: Array) -> Array:
        """The records of ``by_device`` again."""
        return items if self.each == 1 else items.view(items.dtype["messages"].base)

    def travelling(self, layout: np.dtype[Any]) -> np.dtype[Any]:
        """What a device sends in a round, where a message is a record of this layout."""
        return layout if self.each == 1 else np.dtype([("messages", layout, (self.each,))])
