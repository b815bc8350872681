"""The server's step."""

from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np

from mpicoded.algorithms.component import Component, Count, Fraction, Positive, PositiveCount
from mpicoded.algorithms.shapes import Array, Float

Small = Annotated[float, msgspec.Meta(gt=0, le=1)]


class Optimizer(Component):
    """Base of the server's optimisers. State is one array, handed in and changed in place.

    ``schedule``: with t steps done, the step size is multiplied by 1 (``constant``),
    1/(1 + t/decay_rounds) (``inverse``) or 1/sqrt(1 + t/decay_rounds) (``inverse_sqrt``), and by
    (t + 1)/warmup_rounds in the first ``warmup_rounds``. ``clip_norm``: a longer vote is shortened to this norm before
    anything else.
    """

    step_size: Positive = 0.01  # what the vote is multiplied by
    schedule: Literal["constant", "inverse", "inverse_sqrt"] = "constant"  # how it falls
    decay_rounds: PositiveCount = 100  # how fast
    warmup_rounds: Count = 0  # in which it rises from nearly zero
    clip_norm: Positive | None = None  # to which longer votes are shortened; unset: none are

    def initial(self, parameters: Float[Array, " dim"]) -> Float[Array, " state"]:
        """State before the first round."""
        raise NotImplementedError

    def rate(self, round: int) -> float:
        """The step size after ``round`` steps."""
        power = {"constant": 0.0, "inverse": 1.0, "inverse_sqrt": 0.5}[self.schedule]
        warm = min(1.0, (round + 1) / self.warmup_rounds) if self.warmup_rounds else 1.0
        return float(self.step_size * (1 + round / self.decay_rounds) ** -power * warm)

    def step(
        self,
        parameters: Float[Array, " dim"],
        vote: Float[Array, " dim"],
        state: Float[Array, " state"],
        round: int,
    ) -> None:
        """One step, in place; round counts the steps done before. The vote is used up."""
        if self.clip_norm is not None:
            length = float(np.linalg.norm(vote))
            if length > self.clip_norm:
                vote *= self.clip_norm / length
        self._direct(vote, state, round)
        vote *= self.rate(round)
        parameters -= vote

    def _direct(self, vote: Float[Array, " dim"], state: Float[Array, " state"], round: int) -> None:
        """Turn the vote into the direction of the step, in place."""
        raise NotImplementedError


class Sgd(Optimizer):
    """parameters -= step_size × vote, with a step size that may decay and heavy-ball momentum.

    ``momentum`` m: v <- m v + vote and the step is along v; 0 is plain SGD.
    """

    source: ClassVar[str] = "Robbins and Monro 1951; Polyak 1964"
    acronym: ClassVar[str] = "SGD; with momentum: heavy ball"
    cost: ClassVar[str] = "dim"
    momentum: Fraction = 0.0  # the share of the last step's direction that is added

    def initial(self, parameters: Float[Array, " dim"]) -> Float[Array, " state"]:
        """The velocity, where there is momentum."""
        return np.zeros_like(parameters) if self.momentum else np.empty(0, parameters.dtype)

    def _direct(self, vote: Float[Array, " dim"], state: Float[Array, " state"], round: int) -> None:
        if self.momentum:
            state *= self.momentum
            state += vote
            vote[...] = state


class Adam(Optimizer):
    """Each coordinate's mean of votes over the root of the mean of their squares, both over earlier rounds too.

    m <- beta1 m + (1 - beta1) vote, v <- beta2 v + (1 - beta2) vote², and the step is along
    (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon) after t votes.
    """

    source: ClassVar[str] = "Kingma and Ba 2015"
    acronym: ClassVar[str] = "Adam"
    cost: ClassVar[str] = "dim, and 2 dim numbers kept"
    beta1: Fraction = 0.9  # the share of what is old in the mean
    beta2: Fraction = 0.999  # the same, of squares
    epsilon: Small = 1e-8  # added to the root

    def initial(self, parameters: Float[Array, " dim"]) -> Float[Array, " state"]:
        """Both means, one after the other."""
        return np.zeros(2 * parameters.size, parameters.dtype)

    def _direct(self, vote: Float[Array, " dim"], state: Float[Array, " state"], round: int) -> None:
        mean, square = state[: vote.size], state[vote.size :]
        mean *= self.beta1
        mean += (1 - self.beta1) * vote
        square *= self.beta2
        vote *= vote
        vote *= 1 - self.beta2
        square += vote
        np.divide(square, 1 - self.beta2 ** (round + 1), out=vote)
        np.sqrt(vote, out=vote)
        vote += self.epsilon
        np.divide(mean, vote, out=vote)
        vote /= 1 - self.beta1 ** (round + 1)


Choice = Sgd | Adam
