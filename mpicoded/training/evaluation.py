"""Global loss, gradient norm and test accuracy: the same bits on any number of ranks."""

from typing import NamedTuple

import numpy as np

from mpicoded.algorithms.arrays import namespace
from mpicoded.algorithms.shapes import Array, Bool, Float
from mpicoded.algorithms.summation import grid_exponent, partial_sum, total
from mpicoded.data.layout import Description
from mpicoded.data.shards import Shards, Work, test_rows
from mpicoded.training.devices import Gradients
from mpicoded.training.placement import evaluators
from mpicoded.transport.base import Transport


class Measured(NamedTuple):
    """What the server knows after the ranks have evaluated their subsets."""

    values: dict[str, float]
    exponent: int | None  # of the grid for the sum of gradients; None: there are none, or one of them is not finite
    extra: Float[Array, "present numbers"]  # what the ranks have told beside


class Evaluator:
    """Evaluates the subsets that fall to this rank; the server puts the numbers together in subset order.

    ``whole``: the subsets at all, and not the test split alone.

    ``holders``: which subsets each rank's devices hold. What no rank that takes part holds, the lowest one reads.
    ``test``: this rank's part of the test split, where all take part; where some do not, the others read theirs.
    """

    def __init__(
        self,
        transport: Transport,
        description: Description,
        gradients: Gradients,
        holders: Bool[Array, "ranks subsets"],
        test: Shards | None,
        whole: bool,
    ) -> None:
        self._whole = whole
        self._transport, self._description, self._processor = transport, description, gradients.processor
        self._gradients, self._holders, self._test = gradients, holders, test
        self._tested = test  # those that are there share the whole of it
        self._split_among = np.zeros(0, bool)
        self._order = self._counts = self._blocks = self._subset_of_row = np.empty(0, np.int64)  # see _split
        self._parts: list[tuple[Gradients, Work]] = []
        self._found: list[tuple[Array, Array]] = []  # gradients of those parts, in their buffers, and losses
        self._round = -1  # before which they were computed

    def losses(self, round: int, parameters: Float[Array, " dim"], extra: Float[Array, " numbers"]) -> Measured | None:
        """Everything but the norm, at the server; ``extra`` numbers of each rank travel with it. An order's work."""
        self._split()
        parameters = self._processor.put(parameters)
        found = self._at(round, parameters) if self._whole else []
        largest = [_largest(gradients) for gradients, _ in found]
        tested, correct = self._on_test_split(parameters)
        told = np.concatenate([[np.max(largest, initial=0), correct], extra])
        own = np.concatenate([np.empty(0), *(self._processor.fetch(losses) for _, losses in found)])
        counts = np.stack([self._counts, self._blocks, len(told) * self._transport.present])
        row = np.concatenate([own[self._order], tested, told])
        rows = self._transport.collect(row, counts.sum(axis=0))
        if rows is None:
            return None
        kind = np.repeat(np.tile(np.arange(3), counts.shape[1]), counts.T.ravel())  # rank by rank
        about = rows[kind == 2].reshape(-1, len(told))
        values: dict[str, float] = {}
        if self._whole:
            losses = np.empty(self._description.subsets)
            losses[self._subset_of_row] = rows[kind == 0]
            values["loss"] = float(np.mean(losses))
            if self._description.optimum_loss is not None:
                values["suboptimality"] = values["loss"] - self._description.optimum_loss
        if self._test is not None:
            values["accuracy"] = float(about[:, 1].sum() / self._description.test_samples)
            values["test_loss"] = float(rows[kind == 1].sum() / self._description.test_samples)
        most = float(np.max(about[:, 0]))
        exponent = grid_exponent(most, self._description.subsets) if self._whole and np.isfinite(most) else None
        return Measured(values, exponent, about[:, 2:])

    def gradient_norm(self, round: int, parameters: Float[Array, " dim"], exponent: int) -> float | None:
        """||grad F||, at the server. An order's work."""
        self._split()
        found = self._at(round, self._processor.put(parameters))
        mine = np.sum([self._processor.fetch(partial_sum(part, exponent)) for part, _ in found], axis=0)[None, :]
        partials = self._transport.collect(mine, self._transport.present.astype(np.int64))
        if partials is None:
            return None
        return float(np.linalg.norm(total(partials, exponent) / self._description.subsets))

    def _split(self) -> None:
        """Split the subsets among those who take part."""
        present = self._transport.present
        if np.array_equal(present, self._split_among):
            return
        there = np.flatnonzero(present)
        evaluator = there[evaluators(self._holders[there])]
        if not self._whole:
            evaluator = evaluator[:0]
        mine = np.flatnonzero(evaluator == self._transport.rank)
        own = np.isin(mine, self._gradients.shards.subsets)
        self._parts = [(self._gradients, self._gradients.shards.work(mine[own]))]
        if not own.all():
            read = self._gradients.of(self._gradients.shards.others(self._description, mine[~own]))
            self._parts.append((read, read.shards.work(mine[~own])))
        self._order = np.argsort(np.concatenate([work.subsets for _, work in self._parts]))
        self._counts = np.bincount(evaluator, minlength=len(present))
        self._blocks = np.zeros_like(self._counts)  # of the test split, of each rank
        self._subset_of_row = np.argsort(evaluator, kind="stable")  # rank by rank, ascending within each
        if self._test is not None:
            dtype, place = self._test.dtype, int(np.count_nonzero(present[: self._transport.rank]))
            words = self._description, place, len(there), dtype, self._processor
            self._tested = self._test if len(there) == len(present) else Shards.read_test(*words)
            parts = len(there)
            self._blocks[there] = [len(test_rows(self._description, part, parts)) - 1 for part in range(parts)]
        self._split_among, self._round = present.copy(), -1

    def _at(
        self, round: int, parameters: Float[Array, " dim"]
    ) -> list[tuple[Float[Array, "mine dim"], Float[Array, " mine"]]]:
        """Gradients and losses of this rank's subsets before a round: what is asked twice is computed once."""
        if round != self._round:
            xp, self._found = self._processor.xp, []
            for part, work in self._parts:
                losses = xp.zeros(len(work.subsets))
                self._found.append((part.compute(parameters, work, losses=losses), losses))
            self._round = round
        return self._found

    def _on_test_split(self, parameters: Float[Array, " dim"]) -> tuple[Float[np.ndarray, " blocks"], int]:
        """Of this rank's part of it, the losses summed over each block, and how many samples are classified right."""
        if self._tested is None:
            return np.empty(0), 0
        tested, xp, model = self._tested, self._processor.xp, self._gradients.model
        correct, losses, work = 0, np.empty(len(tested.subsets)), tested.work(tested.subsets)
        for batch in tested.batches(work):
            right = model.correct(parameters, batch.x, batch.y)
            correct += int(xp.sum(right * (batch.weights > 0)))
            found = model.losses(parameters, batch.x, batch.y, batch.weights)
            losses[work.places[batch.slots]] = self._processor.fetch(found)
        return losses, correct


def _largest(gradients: Float[Array, "subsets dim"]) -> float:
    """The largest of their numbers in size; not a number where one of them is none."""
    xp = namespace(gradients)
    return float(xp.max(xp.abs(gradients))) if gradients.size else 0.0
