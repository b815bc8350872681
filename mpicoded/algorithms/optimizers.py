"""The server's step."""

from typing import ClassVar, Literal

import numpy as np

from mpicoded.algorithms.component import Component, Fraction, Positive, PositiveCount
from mpicoded.algorithms.shapes import Array, Float


class Optimizer(Component):
    """Base of the server's optimisers. State is one array, handed in and changed in place."""

    def initial(self, parameters: Float[Array, " dim"]) -> Float[Array, " state"]:
        """State before the first round."""
        raise NotImplementedError

    def step(
        self,
        parameters: Float[Array, " dim"],
        vote: Float[Array, " dim"],
        state: Float[Array, " state"],
        round: int,
    ) -> None:
        """Change parameters and state in place; round counts the steps done before."""
        raise NotImplementedError


class Sgd(Optimizer):
    """parameters -= step_size × vote, with a step size that may decay and heavy-ball momentum.

    ``schedule``: with t steps done, the step size is multiplied by 1 (``constant``),
    1/(1 + t/decay_rounds) (``inverse``) or 1/sqrt(1 + t/decay_rounds) (``inverse_sqrt``).
    ``momentum`` m: v <- m v + vote and the step is along v; 0 is plain SGD.
    """

    source: ClassVar[str] = "Robbins and Monro 1951; Polyak 1964"
    acronym: ClassVar[str] = "SGD; with momentum: heavy ball"
    cost: ClassVar[str] = "dim"
    step_size: Positive = 0.01
    momentum: Fraction = 0.0
    schedule: Literal["constant", "inverse", "inverse_sqrt"] = "constant"
    decay_rounds: PositiveCount = 100

    def initial(self, parameters: Float[Array, " dim"]) -> Float[Array, " state"]:
        """The velocity, where there is momentum."""
        return np.zeros_like(parameters) if self.momentum else np.empty(0, parameters.dtype)

    def rate(self, round: int) -> float:
        """The step size after ``round`` steps."""
        power = {"constant": 0.0, "inverse": 1.0, "inverse_sqrt": 0.5}[self.schedule]
        return float(self.step_size * (1 + round / self.decay_rounds) ** -power)

    def step(
        self,
        parameters: Float[Array, " dim"],
        vote: Float[Array, " dim"],
        state: Float[Array, " state"],
        round: int,
    ) -> None:
        """One step, in place; the vote is used up."""
        if self.momentum:
            state *= self.momentum
            state += vote
            vote[...] = state
        vote *= self.rate(round)
        parameters -= vote


Choice = Sgd
