"""How messages reach the server, and parameters the devices."""

from typing import ClassVar, Literal

from mpicoded.algorithms import compressors
from mpicoded.algorithms.component import Component, Positive, PositiveCount


class Wiring(Component):
    """Base of the transports that an experiment can name.

    ``broadcast``: the type that parameters travel as; unset: as they are computed. ``nonces``: where the randomness
    comes from that the server shares with all devices: ``seed`` (the run can be repeated) or ``entropy`` (of the
    operating system: nobody who knows the config can tell it in advance, and no other run has the same).
    """

    broadcast: compressors.WireFloat | None = None  # what parameters travel as; unset: as they are computed
    nonces: Literal["seed", "entropy"] = "seed"  # where randomness comes from that the server shares

    @property
    def hurries(self) -> bool:
        """Whether the server does rounds without the late."""
        return False

    @property
    def incomplete(self) -> bool:
        """Whether messages may be missing without being counted as lies."""
        return False

    @property
    def survives(self) -> bool:
        """Whether the run goes on when a rank dies."""
        return False


class Root(Wiring):
    """Every message goes to rank 0, which is the server.

    The server need not wait for all messages: ``deadline`` seconds after the parameters were sent, or when those of the
    ``quickest`` so many devices are there, it does the round with what has come. The messages of the others are left
    out. Where they are too few for code, filters and rule, the server waits on (``below = "wait"``) or leaves the
    parameters as they are (``"skip"``). ``on_rank_loss``: when a rank dies, end the run (``abort``) or ``continue``
    without its devices, for which the MPI must be able to (Open MPI: ``mpiexec --with-ft ulfm``).
    """

    cost: ClassVar[str] = "N messages to rank 0, and dim numbers from it to every rank"
    deadline: Positive | None = None  # seconds for which messages are waited for; unset: as long as it takes
    quickest: PositiveCount | None = None  # messages that are enough; unset: all devices'
    below: Literal["wait", "skip"] = "wait"  # where there are too few messages for code, filters and rule
    on_rank_loss: Literal["abort", "continue"] = "abort"  # when a rank dies

    @property
    def hurries(self) -> bool:
        """Whether the server does rounds without the late."""
        return self.deadline is not None or self.quickest is not None

    @property
    def incomplete(self) -> bool:
        """Whether messages may be missing without being counted as lies."""
        return self.hurries or self.survives

    @property
    def survives(self) -> bool:
        """Whether the run goes on when a rank dies."""
        return self.on_rank_loss == "continue"


class Sharded(Wiring):
    """Ranks are servers of some of the coordinates each: a slice of all messages goes to each.

    Slices are exchanged directly; what filters and rule need of whole messages, such as distances, is
    summed over the slices in a fixed order, so that the bits are those of ``root``; rank 0 gets the slices of the
    result. ``servers``: how many ranks do so at most, the lowest; unset: all, but never more than the 64 parts that
    large vectors are cut into (vectors of 8192 numbers or less are one). A rank that is a server is trusted like rank
    0: what it says of its slice is not checked. Compressed messages are decompressed by the rank of their device,
    before they are cut, so that they travel as they are computed. Codes that are decoded, memories of the server and
    rules or filters that know whole votes only need ``root``.
    """

    cost: ClassVar[str] = "N dim / P numbers to each of P servers, and dim numbers to rank 0 and from it"
    servers: PositiveCount | None = None  # ranks that are servers at most; unset: all


Choice = Root | Sharded
