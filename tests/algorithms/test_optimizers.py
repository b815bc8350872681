"""The server's step, against its recursion."""

import numpy as np
import pytest
from msgspec.structs import replace

from mpicoded.algorithms import optimizers
from mpicoded.algorithms.optimizers import Sgd
from mpicoded.errors import InputError
from mpicoded.testing import OptimizerBattery
from mpicoded.testing.optimizers import descend, draw

from .building import each, family

OPTIMIZERS = family(optimizers.Choice)
OPTIMIZERS |= {
    "sgd, momentum": Sgd(momentum=0.9),
    "sgd, inverse": Sgd(schedule="inverse", decay_rounds=3),
    "sgd, both": Sgd(momentum=0.5, schedule="inverse_sqrt", decay_rounds=2),
}


class TestOptimizers(OptimizerBattery):
    parts = OPTIMIZERS


@each(OPTIMIZERS)
def test_steps_by_loops(part):
    parameters, velocity = np.ones(4), np.zeros(4)
    power = {"constant": 0, "inverse": 1, "inverse_sqrt": 0.5}[part.schedule]
    for round, vote in enumerate(draw()):
        velocity = part.momentum * velocity + vote
        parameters = parameters - part.step_size / (1 + round / part.decay_rounds) ** power * velocity
    np.testing.assert_allclose(descend(part, draw()), parameters, rtol=1e-13)


@each(OPTIMIZERS)
def test_a_quadratic_is_minimised(part):
    optimizer = replace(part, step_size=0.1, decay_rounds=100)
    parameters = np.ones(4)
    state = optimizer.initial(parameters)
    for round in range(1000):
        optimizer.step(parameters, parameters.copy(), state, round)
    assert np.abs(parameters).max() < 1e-3


def test_step_size_at_a_round():
    assert Sgd(step_size=0.1).rate(10**6) == 0.1
    assert Sgd(step_size=0.1, schedule="inverse", decay_rounds=50).rate(50) == pytest.approx(0.05)
    assert Sgd(step_size=0.1, schedule="inverse_sqrt", decay_rounds=50).rate(150) == pytest.approx(0.05)
    assert all(Sgd(step_size=0.1, schedule=name).rate(0) == 0.1 for name in ("constant", "inverse", "inverse_sqrt"))


def test_plain_sgd_has_no_state():
    assert Sgd().initial(np.ones(4)).size == 0


@pytest.mark.parametrize("field", [{"step_size": 0.0}, {"momentum": -0.1}, {"decay_rounds": 0}])
def test_impossible_hyperparameters_are_errors(field):
    with pytest.raises(InputError, match=rf"Sgd: {next(iter(field))} must be .*, got {next(iter(field.values()))}"):
        Sgd(**field)
