"""Run under mpiexec by test_star.py: what StarTransport moves, with a rank that is late, against what must come."""

import sys
import time

import numpy as np
from mpi4py import MPI

from mpicoded.transport.base import Kind, Order, Patience, block
from mpicoded.transport.mpi import MpiTransport

DEVICES, ROUNDS, SLOW = 11, 60, 1
transport = MpiTransport(MPI.COMM_WORLD).patient(DEVICES, Patience(deadline=0.5, fewest=1))
rank, size = transport.rank, transport.size
first, stop = block(DEVICES, rank, size)
layout = np.dtype([("index", "u1"), ("round", "f4", (3,))])
records = np.zeros(stop - first, layout)
records["index"] = np.arange(first, stop)
parameters = np.zeros(40_000)  # too large to be sent at once: a slow rank has to fetch it
late, joined = 0, 0


def step(round: int, sent: np.ndarray | None = None) -> object:
    transport.broadcast(parameters)
    assert (parameters == round).all()  # whatever the server has told in the meantime
    time.sleep(0.9 if rank == SLOW and round in (1, 31) else 0.02)
    records["round"] = round
    return transport.gather(records, round, DEVICES, sent)


def fail(*what: object) -> None:
    """The others would wait for this rank."""
    sys.__excepthook__(*what)
    transport.abort(1)


sys.excepthook = fail
if rank == 0:
    for round in range(ROUNDS):
        parameters[:] = round
        transport.tell(Order(Kind.STEP, round))
        gathered = step(round, np.arange(first, stop) != 0)
        parameters[:] = -1  # the next round's may be written at once
        arrived = gathered.arrived
        assert not arrived[0]  # it sends nothing
        assert (gathered.records["index"][arrived] == np.flatnonzero(arrived)).all()
        assert (gathered.records["round"][arrived] == round).all()  # nothing of another round
        whose = np.repeat(
            np.arange(size), [block(DEVICES, r, size)[1] - block(DEVICES, r, size)[0] for r in range(size)]
        )
        assert arrived[(whose != SLOW) & (np.arange(DEVICES) > 0)].all()
        late += int(not arrived[whose == SLOW].any())
    assert 2 <= late < ROUNDS - 2, late
    counts = np.arange(size) + 1
    while True:
        transport.tell(Order(Kind.STATE, ROUNDS, 7))
        there = counts * transport.present
        rows = transport.collect(np.full((counts[0], 2), 0.0), there)
        assert (rows[:, 1] == np.repeat(np.arange(size), there)).all()
        if transport.present.all():
            break
    transport.tell(Order(Kind.LOSSES, ROUNDS))
    everyone = transport.share(np.full((1, 3), 5.0), np.ones(size, int), np.empty((size + 2, 3)))
    assert (everyone[:, 0] == 5 + np.arange(size)).all()
    assert (transport.gather(records, ROUNDS, DEVICES).records["index"] == np.arange(DEVICES)).all()
    transport.tell(Order(Kind.END, ROUNDS, 1))
else:
    while (order := transport.hear()).kind is not Kind.END:
        if order.kind is Kind.STEP:
            assert step(order.round) is None
        elif order.kind is Kind.STATE:
            assert order.value == 7
            assert transport.collect(np.full((rank + 1, 2), float(rank)), np.zeros(size, int)) is None
        else:
            everyone = transport.share(np.full((1, 3), 5.0 + rank), np.ones(size, int), np.empty((size, 3)))
            assert (everyone[:, 1] == 5 + np.arange(size)).all()
            transport.gather(records, ROUNDS, DEVICES)  # as messages follow what attackers have listened in on
    assert order == Order(Kind.END, ROUNDS, 1)
    transport.wish = 2
assert transport.lost == []
transport.close(0)
if rank == 0:
    print("all good", late)
sys.exit(0)
