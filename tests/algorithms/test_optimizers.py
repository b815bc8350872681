"""The server's step, against its recursion."""

import numpy as np
import pytest
from msgspec.structs import replace

from mpicoded.algorithms import optimizers
from mpicoded.algorithms.optimizers import Adam, Sgd
from mpicoded.errors import InputError
from mpicoded.testing import OptimizerBattery
from mpicoded.testing.optimizers import descend, draw

from .building import each, family

OPTIMIZERS = family(optimizers.Choice)
OPTIMIZERS |= {
    "sgd, momentum": Sgd(momentum=0.9),
    "sgd, inverse": Sgd(schedule="inverse", decay_rounds=3),
    "sgd, both": Sgd(momentum=0.5, schedule="inverse_sqrt", decay_rounds=2),
    "sgd, warm and clipped": Sgd(momentum=0.5, warmup_rounds=4, clip_norm=1.5),
    "adam, other numbers": Adam(beta1=0.5, beta2=0.7, epsilon=0.1, schedule="inverse", clip_norm=0.5),
    "adam, no means": Adam(beta1=0.0, beta2=0.0),
}


class TestOptimizers(OptimizerBattery):
    parts = OPTIMIZERS


def directions(part, votes):
    """Where each coordinate goes, one after the other, in plain numbers."""
    velocity, mean, square = [0.0] * 4, [0.0] * 4, [0.0] * 4
    for t, vote in enumerate(votes.tolist(), start=1):
        length = sum(number**2 for number in vote) ** 0.5
        if part.clip_norm is not None and length > part.clip_norm:
            vote = [number * part.clip_norm / length for number in vote]
        if isinstance(part, Sgd):
            velocity = [part.momentum * old + new for old, new in zip(velocity, vote, strict=True)]
            yield velocity
            continue
        mean = [part.beta1 * old + (1 - part.beta1) * new for old, new in zip(mean, vote, strict=True)]
        square = [part.beta2 * old + (1 - part.beta2) * new**2 for old, new in zip(square, vote, strict=True)]
        yield [
            m / (1 - part.beta1**t) / ((v / (1 - part.beta2**t)) ** 0.5 + part.epsilon)
            for m, v in zip(mean, square, strict=True)
        ]


@each(OPTIMIZERS)
def test_steps_by_loops(part):
    parameters = np.ones(4)
    power = {"constant": 0, "inverse": 1, "inverse_sqrt": 0.5}[part.schedule]
    for round, direction in enumerate(directions(part, draw())):
        rate = part.step_size / (1 + round / part.decay_rounds) ** power
        if round < part.warmup_rounds:
            rate *= (round + 1) / part.warmup_rounds
        parameters = parameters - rate * np.array(direction)
    np.testing.assert_allclose(descend(part, draw()), parameters, rtol=1e-13)


def test_clipping_shortens_long_votes_only():
    """Whatever its length, a vote beyond the limit moves the parameters as one at the limit does."""
    vote = np.array([[3.0, 0.0, -4.0, 0.0]])  # of length 5
    for scale, moved in ((0.1, 0.1), (0.4, 0.4), (1.0, 0.4), (1e9, 0.4)):
        parameters = descend(Sgd(step_size=0.5, clip_norm=2.0), scale * vote)
        np.testing.assert_allclose(1 - parameters, 0.5 * moved * vote[0], rtol=1e-12)


def test_adam_moves_every_coordinate_by_a_step_at_first():
    """m / sqrt(v) of one vote is its sign, however large it is: the bias of both means is corrected."""
    vote = np.array([[1e-3, -1e3, 5.0, 1e12]])
    np.testing.assert_allclose(descend(Adam(step_size=0.25), vote), 1 - 0.25 * np.sign(vote[0]), rtol=1e-4)
    np.testing.assert_allclose(
        descend(Adam(step_size=0.25), np.tile(vote, (7, 1))), 1 - 7 * 0.25 * np.sign(vote[0]), rtol=1e-4
    )


def test_a_coordinate_that_is_always_zero_stays_with_adam():
    votes = draw() * [1, 1, 0, 1]
    assert descend(Adam(), votes)[2] == 1


@each(OPTIMIZERS)
def test_a_quadratic_is_minimised(part):
    optimizer = replace(part, step_size=0.1, decay_rounds=100)
    if isinstance(part, Adam):  # whose steps are as long near the optimum as far from it
        optimizer = replace(part, step_size=1.0, schedule="inverse", decay_rounds=1)
    parameters = np.ones(4)
    state = optimizer.initial(parameters)
    for round in range(1000):
        optimizer.step(parameters, parameters.copy(), state, round)
    assert np.abs(parameters).max() < 1e-3


def test_step_size_at_a_round():
    assert Sgd(step_size=0.1).rate(10**6) == 0.1
    assert Sgd(step_size=0.1, schedule="inverse", decay_rounds=50).rate(50) == pytest.approx(0.05)
    assert Sgd(step_size=0.1, schedule="inverse_sqrt", decay_rounds=50).rate(150) == pytest.approx(0.05)
    warm = Sgd(step_size=0.1, warmup_rounds=4)
    assert [warm.rate(round) for round in range(6)] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    assert all(Sgd(step_size=0.1, schedule=name).rate(0) == 0.1 for name in ("constant", "inverse", "inverse_sqrt"))


def test_state_is_no_larger_than_it_must_be():
    assert Sgd().initial(np.ones(4)).size == 0
    assert Sgd(momentum=0.1).initial(np.ones(4)).size == 4
    assert Adam().initial(np.ones(4)).size == 8


@pytest.mark.parametrize("field", [{"step_size": 0.0}, {"momentum": -0.1}, {"decay_rounds": 0}, {"clip_norm": 0.0}])
def test_impossible_hyperparameters_are_errors(field):
    with pytest.raises(InputError, match=rf"Sgd: {next(iter(field))} must be .*, got {next(iter(field.values()))}"):
        Sgd(**field)
