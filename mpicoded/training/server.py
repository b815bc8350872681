"""What the server computes: records → votes → filters → rule → step."""

import numpy as np

from mpicoded.algorithms.arrays import replace_unusable
from mpicoded.algorithms.randomness import Streams
from mpicoded.algorithms.shapes import Array, Float
from mpicoded.experiment import Experiment
from mpicoded.training.clock import Clock
from mpicoded.transport.base import Gathered


class Server:
    """Lives on rank 0 and trusts no message."""

    def __init__(self, experiment: Experiment, parameters: Float[Array, " dim"], clock: Clock) -> None:
        self.parameters = parameters
        self.bad_messages = 0
        self._experiment, self._clock = experiment, clock
        self._state = experiment.optimizer.initial(parameters)
        self._vote = np.zeros_like(parameters)
        self._previous = np.zeros_like(parameters)

    def step(self, gathered: Gathered, round: int) -> None:
        """Aggregate one round's messages and change the parameters in place."""
        experiment, clock = self._experiment, self._clock
        with clock.phase("decompress"):
            streams = Streams(experiment.seed, round)
            messages = experiment.compressor.decompress(gathered.records, self.parameters.size, streams)
            votes = experiment.encoder.decode(messages, gathered.arrived)
            votes, bad = replace_unusable(votes, gathered.arrived)
            self.bad_messages += int(bad.sum())
        with clock.phase("filter"):
            for item in experiment.filters:
                votes = item.apply(votes)
        with clock.phase("aggregate"):
            experiment.aggregator.aggregate(votes, previous=self._previous, out=self._vote)
            self._previous[:] = self._vote
        with clock.phase("step"):
            experiment.optimizer.step(self.parameters, self._vote, self._state, round)
