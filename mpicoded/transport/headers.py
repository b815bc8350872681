"""What goes before the records of a gather: each rank's round, their number, its wish, and who of its devices sends."""

from typing import NamedTuple

import numpy as np

from mpicoded.algorithms.shapes import Array, Bool, Int
from mpicoded.transport.base import block_sizes, header_layout, pack_bits


class Told(NamedTuple):
    """What the headers of all ranks say."""

    counts: Int[Array, " ranks"]  # of records
    starts: Int[Array, " ranks"]  # of each rank's among all
    arrived: Bool[Array, " devices"] | None  # None: of all devices
    wish: int  # the largest


class Headers:
    """Those of the ranks among which some devices are divided. Most rounds have the same but for their number.

    ``own``: this rank's. ``everyone``: room for those of all ranks, at the server; ``nbytes`` of these.
    ``everyone_sends``: of all devices, as in most rounds.
    """

    def __init__(self, devices: int, rank: int, size: int) -> None:
        self.devices, self._sizes = devices, block_sizes(devices, size)
        largest = int(self._sizes.max())
        layout = header_layout(largest)
        self.own, self.everyone = np.zeros(1, layout), np.zeros(size if rank == 0 else 0, layout)
        self.nbytes = size * layout.itemsize
        self._exists = np.arange(largest) < self._sizes[:, None]
        self._complete = np.zeros(size, layout)  # as they are where all devices send and nobody has a wish
        self._complete["count"] = self._sizes
        for bits, mask in zip(self._complete["sent"], self._exists, strict=True):
            pack_bits(mask, bits)
        self._usually = self._complete[rank : rank + 1]
        self._usual = Told(self._sizes, np.cumsum(self._sizes) - self._sizes, None, 0)
        self.everyone_sends = np.ones(devices, bool)
        self.everyone_sends.flags.writeable = False
        # Fields as arrays of their own: a field is found by its name in as long as a short header takes to travel.
        self._own_round, self._own_wish = self.own["round"], self.own["wish"]
        self._complete_round = self._complete["round"]
        self._own_usual = False  # whether the own header is as in most rounds

    def write(self, round: int, wish: int, sent: Bool[Array, " records"] | None) -> None:
        """This rank's. ``sent``: which of its devices send; None: all of them."""
        usual = sent is None and not wish
        if not usual or not self._own_usual:
            self.own[...] = self._usually
            self._own_wish[0] = wish
            if sent is not None:
                self.own["count"] = np.count_nonzero(sent)
                pack_bits(sent, self.own["sent"][0])
            self._own_usual = usual
        self._own_round[0] = round

    def read(self, round: int) -> Told:
        """What those of ``everyone`` say. Raises RuntimeError where one is of another round, or contradicts itself."""
        everyone = self.everyone
        self._complete_round[...] = round
        if everyone.tobytes() == self._complete.tobytes():
            return self._usual
        counts, largest = everyone["count"].astype(np.int64), self._exists.shape[1]
        bits = np.unpackbits(everyone["sent"], axis=1, count=largest, bitorder="little")
        sent = bits.astype(bool) & self._exists
        if (everyone["round"] != round).any() or (sent.sum(axis=1) != counts).any():
            raise RuntimeError(f"in round {round} the ranks sent these rounds and counts: {everyone.tolist()}")
        arrived = sent[self._exists]
        told = None if arrived.all() else arrived
        return Told(counts, np.cumsum(counts) - counts, told, int(everyone["wish"].max()))
