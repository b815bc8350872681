"""The family's battery, and what each part computes."""

import numpy as np
from mpicoded_example import Faba, FreeRider

from mpicoded.testing import AggregatorBattery, AttackBattery
from mpicoded.testing.attacks import STREAMS, draw, see


class TestFaba(AggregatorBattery):
    parts = [Faba(byzantine=2)]


class TestFreeRider(AttackBattery):
    parts = {"free_rider": FreeRider(), "disguised": FreeRider(noise=0.1)}


def test_faba_by_hand():
    """The mean is 3.8: 10 goes; then it is 2.25: 0 goes."""
    votes = np.array([[0.0], [2.0], [3.0], [4.0], [10.0]])
    assert Faba(byzantine=1).aggregate(votes) == 2.25
    assert Faba(byzantine=2).aggregate(votes) == 3.0


def test_a_free_rider_does_nothing_but_hide():
    assert not FreeRider().forge(draw(3), see(), STREAMS).any()
    assert 0 < np.abs(FreeRider(noise=0.1).forge(draw(3), see(), STREAMS)).max() < 1
