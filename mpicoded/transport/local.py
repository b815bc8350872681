"""One process without MPI: laptop mode, and the oracle of the MPI tests."""

import numpy as np

from mpicoded.algorithms.shapes import Array, Bool
from mpicoded.transport.base import Gathered


class LocalTransport:
    """All devices in this process."""

    rank = 0
    size = 1
    description = "none (one process)"
    overhead_bytes = 0

    def broadcast(self, array: Array) -> None:
        """Nothing to copy."""

    def gather(
        self, records: Array, round: int, devices: int, sent: Bool[Array, " records"] | None = None
    ) -> Gathered | None:
        """The records themselves."""
        return Gathered(records, np.ones(len(records), bool) if sent is None else sent)

    def share(self, rows: Array, counts: Array, out: Array) -> Array:
        """The rows themselves."""
        return rows

    def collect(self, rows: Array, counts: Array) -> Array | None:
        """The rows themselves."""
        return rows

    def largest(self, number: int) -> int:
        """The number itself."""
        return number

    def agree(self, error: str | None) -> str | None:
        """The error itself."""
        return error

    def texts(self, text: str) -> list[str]:
        """The text itself."""
        return [text]

    def abort(self, code: int) -> None:
        """There is nobody else to end."""
