"""What the experiment's faults do to this rank."""

import os
import signal
import time

import numpy as np

from mpicoded.algorithms.faults import Fault
from mpicoded.algorithms.randomness import Streams
from mpicoded.algorithms.shapes import Array, Float
from mpicoded.experiment import Experiment
from mpicoded.training.clock import Clock


class Mishaps:
    """The faults that strike one rank. Rounds are counted from 0 here."""

    def __init__(self, experiment: Experiment, rank: int, clock: Clock) -> None:
        self._seed, self._clock = experiment.seed, clock
        self._faults, self._rank = experiment.faults, rank

    def die(self, round: int) -> None:
        """Die, where that is this rank's part."""
        if self._faults and any(fault.kills for fault in self._striking(round)):
            os.kill(os.getpid(), signal.SIGKILL)

    def delay(self, round: int, seconds: float) -> None:
        """Be as slow as this rank is, at what has taken so long."""
        if self._faults and (longer := sum(fault.delay(seconds) for fault in self._striking(round))) > 0:
            with self._clock.phase("compute"):
                time.sleep(longer)

    def corrupt(self, messages: Float[Array, "messages dim"], round: int, first: int) -> None:
        """Change messages in place, the first of which has this number among all."""
        for fault in self._striking(round) if self._faults else ():
            fault.corrupt(messages, Streams(self._seed, round, first + np.arange(len(messages))))

    def silence(self, round: int) -> bool:
        """Whether this rank's devices send nothing."""
        return bool(self._faults) and any(fault.silences for fault in self._striking(round))

    def _striking(self, round: int) -> list[Fault]:
        return [fault for fault in self._faults if fault.strikes(self._rank, round + 1)]
