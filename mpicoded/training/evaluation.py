"""Global loss, gradient norm and test accuracy: the same bits on any number of ranks."""

import numpy as np

from mpicoded.algorithms.shapes import Array, Float, Int
from mpicoded.algorithms.summation import grid_exponent, partial_sum, total
from mpicoded.data.layout import Description
from mpicoded.data.shards import Shards
from mpicoded.training.devices import Gradients
from mpicoded.transport.base import Transport


class Evaluator:
    """Evaluates the subsets that fall to this rank; rank 0 puts the numbers together in subset order."""

    def __init__(
        self,
        transport: Transport,
        description: Description,
        gradients: Gradients,
        evaluator: Int[Array, " subsets"],
        test: Shards | None,
    ) -> None:
        self._transport, self._description = transport, description
        self._gradients, self._test = gradients, test
        mine = np.flatnonzero(evaluator == transport.rank)
        self._work = gradients.shards.work(mine)
        self._order = np.argsort(self._work.subsets)
        self._counts = np.bincount(evaluator, minlength=transport.size)
        self._subset_of_row = np.argsort(evaluator, kind="stable")  # rank by rank, ascending within each
        self._ones = np.ones(transport.size, np.int64)
        self._test_work = test.work(test.subsets) if test is not None else None

    def __call__(self, parameters: Float[Array, " dim"]) -> dict[str, float] | None:
        """A row of the history on rank 0. Collective."""
        losses = self._losses(parameters)
        norm = self._gradient_norm(parameters)
        correct = self._correct(parameters)
        if losses is None:
            return None
        row = {"loss": float(np.mean(losses))}
        if self._description.optimum_loss is not None:
            row["suboptimality"] = row["loss"] - self._description.optimum_loss
        if correct is not None:
            row["accuracy"] = correct / self._description.test_samples
        row["gradient_norm"] = norm
        return row

    def _losses(self, parameters: Float[Array, " dim"]) -> Float[Array, " subsets"] | None:
        """The losses of all subsets by number, on rank 0."""
        mine = np.zeros(len(self._work.subsets))
        for batch in self._gradients.shards.batches(self._work):
            mine[batch.slots] = self._gradients.model.losses(parameters, batch.x, batch.y, batch.weights)
        rows = self._transport.collect(mine[self._order], self._counts)
        if rows is None:
            return None
        losses = np.empty_like(rows)
        losses[self._subset_of_row] = rows
        return losses

    def _gradient_norm(self, parameters: Float[Array, " dim"]) -> float:
        """||grad F||, NaN where a gradient is not finite; meaningful on rank 0."""
        gradients = self._gradients.compute(parameters, self._work)
        mine = np.max(np.abs(gradients), initial=0.0, keepdims=True).reshape(1).astype(np.float64)
        largest = float(np.max(self._transport.share(mine, self._ones, np.empty(self._transport.size))))
        if not np.isfinite(largest):
            return float("nan")
        exponent = grid_exponent(largest, self._description.subsets)
        partials = self._transport.collect(partial_sum(gradients, exponent)[None, :], self._ones)
        if partials is None:
            return float("nan")
        return float(np.linalg.norm(total(partials, exponent) / self._description.subsets))

    def _correct(self, parameters: Float[Array, " dim"]) -> int | None:
        """How many test samples are classified right, on rank 0."""
        if self._test is None or self._test_work is None:
            return None
        mine = np.zeros(1, np.int64)
        for batch in self._test.batches(self._test_work):
            right = self._gradients.model.correct(parameters, batch.x, batch.y)
            mine += np.sum(right * (batch.weights > 0), dtype=np.int64)
        rows = self._transport.collect(mine, self._ones)
        return None if rows is None else int(rows.sum())
