"""The experiment as one type, with the checks that concern several parts."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import tomli_w

from mpicoded import wiring
from mpicoded.algorithms import (
    aggregators,
    allocations,
    attacks,
    compressors,
    encoders,
    faults,
    filters,
    memories,
    models,
    optimizers,
)
from mpicoded.algorithms.component import Count, PositiveCount
from mpicoded.algorithms.slices import takes_sums
from mpicoded.data.layout import Description
from mpicoded.errors import InputError, quoted
from mpicoded.units import nbytes, seconds


class Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the samples are, how many of a subset's a device uses in a round, and what they may take of the memory."""

    path: str  # a file that ``mpicoded data`` has made
    batch_size: PositiveCount | None = None  # samples of a subset in a round; unset: all
    memory: str | None = None  # of each rank, as in "2 GB"; what does not fit is read in every round

    def budget(self) -> int | None:
        """Bytes of samples that each rank may have in memory; None: as many as there are. Raises InputError."""
        if self.memory is None:
            return None
        if (found := nbytes(self.memory)) is None:
            raise InputError(f'data.memory must be a size such as "500 MB" or "2 GB", got {quoted(self.memory)}')
        return found


class Compute(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the arithmetic is done in, and on.

    ``device``: where a rank keeps its samples, computes gradients, encodes, forges and compresses messages, and where
    the server's filters and rule work: with NumPy on the ``cpu``, or with CuPy on a GPU (``cuda``).
    """

    dtype: Literal["float64", "float32"] = "float64"  # of parameters, gradients and votes
    device: Literal["cpu", "cuda"] = "cpu"  # cuda: a GPU for each rank, by CuPy


Filters = tuple[filters.Choice, ...]
Faults = tuple[faults.Choice, ...]


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One experiment, completely."""

    devices: PositiveCount  # how many there are, on any number of ranks up to this
    byzantine: Count = 0  # how many devices attack; rule, filters and codes tolerate as many, unless told otherwise
    identities: Literal["resampled", "fixed"] = "resampled"  # other Byzantine devices in each round, or the same
    rounds: PositiveCount  # steps of the server
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0  # of all that is random
    evaluate_every: PositiveCount = 10  # rounds between two rows of the history
    evaluate: Literal["test"] | None = None  # the test split alone; unset: loss and gradient of all samples, too
    checkpoint_every: PositiveCount | str | None = None  # rounds, or a time as in "30s"; unset: when a signal comes
    data: Data
    model: models.Choice
    allocation: allocations.Choice = allocations.Partition()
    encoder: encoders.Choice = encoders.Mean()
    attack: attacks.Choice = attacks.NoAttack()
    compressor: compressors.Choice = compressors.NoCompression()
    memory: memories.Choice = memories.NoMemory()
    filters: Filters = ()
    aggregator: aggregators.Choice
    optimizer: optimizers.Choice = optimizers.Sgd()
    transport: wiring.Choice = wiring.Root()
    faults: Faults = ()
    compute: Compute = Compute()

    def _records(self, dim: int, messages: int) -> list[np.dtype[Any]]:
        """All records of a message. Raises InputError where a device's have 2^31 bytes, or the broadcast has."""
        try:
            self.broadcast_layout(dim)
            dense = self.memory.dense(self.seed, np.zeros(1, np.int64))[0]
            parts = [self.compressor, *([compressors.NoCompression()] if dense else [])]
            records = [part.layout(dim, self.compute.dtype) for part in parts]
            for record in records:
                np.dtype((record, (messages,)))
            return records
        except ValueError:  # NumPy's types end there
            several = f"{messages} messages" if messages > 1 else "a message"
            raise InputError(f"{several} or the broadcast of {dim} parameters would have 2^31 bytes or more") from None

    @property
    def attacked(self) -> bool:
        """Whether any device lies: Byzantine devices without an attack are honest."""
        return self.byzantine > 0 and not isinstance(self.attack, attacks.NoAttack)

    @property
    def estimates(self) -> bool:
        """Whether the server estimates how many votes are Byzantine, for rule or filters with "auto"."""
        return any(part.estimates for part in (*self.filters, self.aggregator))

    @property
    def sends_vectors(self) -> bool:
        """Whether the records are the vectors that were computed, so that neither side needs a copy of them."""
        part = self.compressor
        return isinstance(part, compressors.NoCompression) and part.dtype is None

    def broadcast_layout(self, dim: int) -> np.dtype[Any]:
        """What the server tells all devices in a round."""
        nonce = [("nonce", "<u8")] if self.compressor.common else []
        return np.dtype([*nonce, ("parameters", self.transport.broadcast or self.compute.dtype, (dim,))])

    def _code(self, subsets: int) -> tuple[int, int]:
        """How many messages a device sends, and how many votes come out. Raises InputError where that cannot be."""
        if not self.encoder.decodes:
            return 1, self.devices
        assignment = self.allocation.assignment(self.devices, subsets, 0, self.seed)
        self.encoder.check(assignment, self.compressor, self.compute.dtype)
        return self.encoder.messages(assignment), self.encoder.decoder(assignment).votes

    def checkpoint_interval(self) -> tuple[int | None, float | None]:
        """Rounds or seconds between two checkpoints; neither: none but where a signal asks for one."""
        every = self.checkpoint_every
        if not isinstance(every, str):
            return every, None
        if (found := seconds(every)) is None:
            raise InputError(
                f'checkpoint_every must be a number of rounds or a time such as "30s" or "5m", got {every!r}'
            )
        return None, found

    def to_toml(self) -> str:
        """The resolved experiment, every default written out."""
        return tomli_w.dumps(_without_none(msgspec.to_builtins(self)))

    def check(self, data: Description, ranks: int) -> None:
        """Raise InputError where the parts do not fit each other, the data or the number of ranks."""
        self._check_waiting(ranks)
        if isinstance(self.transport, wiring.Sharded):
            self._check_sharded()
        self.checkpoint_interval()
        self.data.budget()
        if self.evaluate == "test" and not (data.test_samples and data.classes):
            raise InputError(f'evaluate = "test" needs classes and a test split, which {data.path} does not have')
        if ranks > self.devices:
            raise InputError(f"{ranks} ranks are more than the {self.devices} devices: each rank hosts one at least")
        if 2 * self.byzantine >= self.devices and self.byzantine:
            raise InputError(f"byzantine must be fewer than half of the {self.devices} devices, got {self.byzantine}")
        if self.model.task not in (None, data.task):
            raise InputError(
                f"model {self.model.name()} is for {self.model.task}, but {data.path} holds a {data.task} problem"
            )
        self.allocation.check(self.devices, data.subsets)
        self.allocation.check_encoder(self.encoder, self.devices, data.subsets)
        self.model.check(data.features, data.classes, self.compute.dtype)
        dim, dtype = self.model.dim(data.features, data.classes), self.compute.dtype
        compressors.check_wire(f"transport {self.transport.name()}", self.transport.broadcast, dtype)
        self.compressor.check(dim, dtype)
        messages, votes = self._code(data.subsets)
        records = self._records(dim, messages)
        if self.transport.nonces != "seed" and not self.compressor.common:
            raise InputError(
                f"transport {self.transport.name()}: nonces = {self.transport.nonces!r}, but nothing draws on them: "
                f"compressor {self.compressor.name()} shares no randomness (rand_k with shared = true does)"
            )
        if self.encoder.replicates and self.model.rounds_by_company:
            raise InputError(
                f"encoder {self.encoder.name()} compares messages bit by bit, which model {self.model.name()} with "
                "batched = true does not repeat: leave batched out"
            )
        if self.encoder.replicates and self.compute.device != "cpu":
            raise InputError(
                f"encoder {self.encoder.name()} compares messages bit by bit, which GPUs do not repeat: it needs "
                f'compute.device = "cpu", got {self.compute.device!r}'
            )
        self.memory.check(self.allocation, self.compressor, dim)
        self.memory.check_encoder(self.encoder, self.allocation)
        for record in records:
            self.attack.check(dim, record)
        if self.encoder.decodes and self.memory.remembers and self.attacked and self.identities == "resampled":
            raise InputError(
                f"memory {self.memory.name()} with encoder {self.encoder.name()}: a device that was Byzantine in an "
                "earlier round still says what its lies have left, so that honest replicas disagree; use identities = "
                '"fixed", memory none or encoder mean'
            )
        if self.aggregator.told and (self.filters or self.encoder.decodes):
            other = self.filters[0].name() if self.filters else f"encoder {self.encoder.name()}"
            raise InputError(f"aggregator {self.aggregator.name()} averages messages as they are sent: without {other}")
        # What is estimated in each round starts from none.
        check_votes([item.tolerating(0) for item in self.filters], self.aggregator.tolerating(0), votes)

    def _check_waiting(self, ranks: int) -> None:
        """Raise InputError where rounds without all messages would mean something else than they should."""
        transport = self.transport
        plain = isinstance(self.aggregator, aggregators.Mean) and not self.filters
        if self.encoder.reweighs and not (transport.incomplete and plain):
            parts = " after ".join([self.aggregator.name(), *(item.name() for item in reversed(self.filters))])
            raise InputError(
                f'encoder {self.encoder.name()} with erasures = "least_squares" is for the rule mean alone, where '
                f"messages may be missing (transport deadline, quickest, on_rank_loss), got {parts}"
            )
        missing = [rank for fault in self.faults for rank in fault.ranks if rank >= ranks]
        if missing:
            raise InputError(f"faults name rank {missing[0]}, but there are {ranks} ranks, counted from 0")
        if not isinstance(transport, wiring.Root):
            return
        if transport.quickest is not None and transport.quickest > self.devices:
            raise InputError(f"transport quickest = {transport.quickest} is more than the {self.devices} devices")
        if not transport.hurries:
            if transport.below != "wait":
                raise InputError('transport below = "skip" is for runs with a deadline or quickest, which this has not')
            return
        if self.attacked and self.attack.colludes:
            raise InputError(
                f"transport with a deadline or quickest: attack {self.attack.name()} needs all honest messages, those "
                "of the late too; choose one that does not collude (sign_flip, gaussian, bit_flip, …)"
            )
        if self.memory.device_slots or self.memory.looks_back:
            raise InputError(
                f"transport with a deadline or quickest: devices with memory {self.memory.name()} would remember "
                "another round than the server where they were late; use memory none or server_momentum"
            )

    def _check_sharded(self) -> None:
        """Raise InputError where a part needs whole messages at the server."""
        if self.encoder.decodes:
            raise InputError(
                f"transport sharded: encoder {self.encoder.name()} is decoded from whole messages; use transport root"
            )
        if type(self.memory).votes is not memories.Memory.votes:
            raise InputError(
                f"transport sharded: memory {self.memory.name()} needs whole messages at the server; use transport root"
            )
        for family, part, method in (
            *(("filter", item, item.apply) for item in self.filters),
            ("aggregator", self.aggregator, self.aggregator.aggregate),
        ):
            if not takes_sums(method):
                raise InputError(
                    f"transport sharded: {family} {part.name()} is for whole votes, its {method.__name__} takes no "
                    '"sums"; use transport root'
                )


def check_votes(parts: Sequence[filters.Filter], aggregator: aggregators.Aggregator, votes: int) -> None:
    """Raise InputError where one of the parts gets fewer votes than it needs, of this many."""
    for item in parts:
        item.check(votes)
        votes = item.votes(votes)
    aggregator.check(votes)


def _without_none(tree: Any) -> Any:
    """TOML has no null: what is unset is left out."""
    if isinstance(tree, dict):
        return {key: _without_none(value) for key, value in tree.items() if value is not None}
    return [_without_none(item) for item in tree] if isinstance(tree, list | tuple) else tree
