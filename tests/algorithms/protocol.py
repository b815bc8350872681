"""Rounds of a memory without a training loop: devices in groups, as on ranks, and the server."""

import numpy as np

from mpicoded.algorithms.compressors import receive
from mpicoded.algorithms.randomness import Streams

SEED = 3


class Protocol:
    """Groups of devices that each keep their own state, and a server that trusts none of them.

    ``compute(turn)`` gives the honest messages of all devices, and those at the previous parameters.
    """

    def __init__(self, memory, compressor, groups, dim, dtype=float):
        self.memory, self.compressor, self.groups = memory, compressor, [np.asarray(ids) for ids in groups]
        self.count, self.dim, self.dtype = sum(len(ids) for ids in groups), dim, dtype
        self.states = [np.zeros((memory.device_slots, len(ids), dim), dtype) for ids in groups]
        self.table = np.zeros((memory.server_slots, self.count, dim), dtype)
        self.last = np.zeros(dim, dtype)
        self.round = 0

    def turn(self):
        return self.memory.turn(SEED, self.round, self.compressor, self.count)

    def step(self, now, before=None, forge=lambda said, ids: said, spoil=lambda raw, ids: None, arrived=None):
        """One round: the votes. ``forge`` changes what devices say, ``spoil`` the bytes of their records."""
        turn = self.turn()
        arrived = np.ones(self.count, bool) if arrived is None else arrived
        records = [
            self._send(
                state,
                ids,
                now[ids].astype(self.dtype),
                before[ids].astype(self.dtype) if turn.looks_back else None,
                forge,
                spoil,
                arrived[ids],
                turn,
            )
            for ids, state in zip(self.groups, self.states, strict=True)
        ]
        votes, bad = self._receive(np.concatenate(records), np.arange(self.count), arrived, turn)
        assert self.memory.votes(votes, self.table, self.last, arrived & ~bad, turn) is None
        self.last = votes.mean(axis=0)
        self.round += 1
        return votes

    def _send(self, state, ids, said, before, forge, spoil, arrived, turn):
        assert self.memory.prepare(said, before, state, turn) is None
        said = forge(said, ids)
        assert self.memory.residual(said, state, turn) is None
        records = turn.compressor.compress(said, self._streams(ids)).copy()
        spoil(records.view(np.uint8).reshape(len(ids), -1), ids)
        received, bad = self._receive(records, ids, arrived, turn)
        assert self.memory.update(state, said, received, arrived & ~bad, turn) is None
        return records

    def _receive(self, records, ids, arrived, turn):
        received = np.full((len(ids), self.dim), np.nan, self.dtype)
        with np.errstate(all="ignore"):
            return receive(turn.compressor, records.copy(), self.dim, self._streams(ids), arrived, self.count, received)

    def _streams(self, ids):
        return Streams(SEED, self.round, ids, nonce=self.round + 100)
