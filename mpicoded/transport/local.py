"""One process without MPI: laptop mode, and the oracle of the MPI tests."""

from typing import Any

import numpy as np

from mpicoded.algorithms.processors import Processor
from mpicoded.algorithms.shapes import Array, Bool
from mpicoded.transport.base import (
    Gathered,
    Loss,
    Node,
    Order,
    Patience,
    Reach,
    ServerLost,
    Transport,
    copy_unless_there,
)


class LocalTransport:
    """All devices in this process: none of them can be late or lost without the others."""

    rank = 0
    size = 1
    leads = True
    description = "none (one process)"
    overhead_bytes = 0

    def __init__(self) -> None:
        self.present = np.ones(1, bool)
        self.lost: list[Loss] = []
        self.wish = 0

    @property
    def heard(self) -> int:
        """Its own wish."""
        return self.wish

    @heard.setter
    def heard(self, value: int) -> None:
        self.wish = value

    def tell(self, order: Order) -> None:
        """There is nobody else to tell."""

    def hear(self) -> Order:
        """There is nobody else to hear."""
        raise ServerLost

    def beside_orders(self, layout: np.dtype[Any]) -> Array | None:
        """Any room will do."""
        return np.zeros(1, layout)

    def broadcast(self, array: Array) -> None:
        """Nothing to copy."""

    def gather(
        self,
        records: Array,
        round: int,
        devices: int,
        sent: Bool[Array, " records"] | None = None,
        out: Array | None = None,
    ) -> Gathered | None:
        """The records themselves."""
        return Gathered(records, np.ones(len(records), bool) if sent is None else sent)

    def share(self, rows: Array, counts: Array, out: Array) -> Array:
        """The rows themselves."""
        return rows

    def exchange(self, rows: Array, counts: Array, edges: Array, out: Array) -> None:
        """The rows themselves."""
        copy_unless_there(rows, out)

    def reach(self, processor: Processor) -> Reach:
        """Nothing moves."""
        return Reach(True, "there is one process")

    def lowest(self, count: int) -> Transport | None:
        """Itself."""
        return self

    def node(self) -> Node | None:
        """It is alone."""
        return None

    def collect(self, rows: Array, counts: Array, out: Array | None = None) -> Array | None:
        """The rows themselves."""
        return rows

    def patient(self, devices: int, patience: Patience) -> Transport:
        """Itself: it never waits."""
        return self

    def recover(self) -> None:
        """Nobody else can die."""

    def close(self, code: int) -> None:
        """There is nobody to leave."""

    def agree(self, error: str | None) -> str | None:
        """The error itself."""
        return error

    def texts(self, text: str) -> list[str]:
        """The text itself."""
        return [text]

    def fail(self, code: int) -> None:
        """There is nobody else to end."""

    def abort(self, code: int) -> None:
        """There is nobody else to end."""
