"""The battery of the server's optimisers."""

from typing import Any

import numpy as np

from mpicoded.algorithms.optimizers import Optimizer
from mpicoded.algorithms.shapes import Array
from mpicoded.testing.battery import ComponentBattery


def draw(rounds: int = 10, dim: int = 4) -> Array:
    """A vote for each round."""
    return np.random.default_rng(0).normal(size=(rounds, dim))


def descend(part: Optimizer, votes: Array, dtype: Any = float) -> Array:
    """Where the votes take parameters of one; the votes stay as they are."""
    parameters = np.ones(votes.shape[1], dtype)
    state = part.initial(parameters)
    for round, vote in enumerate(votes.astype(dtype)):
        part.step(parameters, vote, state, round)
    return parameters


class OptimizerBattery(ComponentBattery):
    """What holds for every optimiser."""

    def test_state_goes_on_after_a_stop(self, part: Optimizer) -> None:
        """All that it knows is in parameters, state and the number of the round."""
        votes = draw()
        parameters = np.ones(4)
        state = part.initial(parameters)
        for round in range(10):
            parameters, state = parameters.copy(), state.copy()
            part.step(parameters, votes[round].copy(), state, round)
        np.testing.assert_array_equal(parameters, descend(part, votes))

    def test_precision_is_kept(self, part: Optimizer) -> None:
        result = descend(part, draw(), np.float32)
        assert result.dtype == np.float32
        assert part.initial(result).dtype == np.float32
        np.testing.assert_allclose(result, descend(part, draw()), rtol=1e-4)

    def test_initial_leaves_the_parameters_alone(self, part: Optimizer) -> None:
        parameters = np.ones(4)
        part.initial(parameters)[...] = 7.0
        np.testing.assert_array_equal(parameters, np.ones(4))

    def test_a_step_along_the_gradient_goes_downhill(self, part: Optimizer) -> None:
        parameters = np.ones(4)
        state = part.initial(parameters)
        part.step(parameters, parameters.copy(), state, 0)
        assert np.linalg.norm(parameters) < np.linalg.norm(np.ones(4))

    def test_a_vote_of_zero_before_any_other_changes_nothing(self, part: Optimizer) -> None:
        np.testing.assert_array_equal(descend(part, np.zeros((1, 4))), np.ones(4))
