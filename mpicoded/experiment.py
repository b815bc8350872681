"""The experiment: one TOML file as one type, with overrides and the checks that concern several parts."""

import copy
import os
import tomllib
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, cast

import msgspec
import numpy as np
import tomli_w

from mpicoded import plugins
from mpicoded.algorithms import (
    aggregators,
    allocations,
    attacks,
    compressors,
    encoders,
    filters,
    memories,
    models,
    optimizers,
)
from mpicoded.algorithms.component import Component, Count, PositiveCount, members
from mpicoded.data.layout import Description, describe
from mpicoded.errors import InputError
from mpicoded.overrides import override
from mpicoded.schema import Schema, UnknownComponent, check, check_keys, inherit, readable
from mpicoded.units import seconds


class Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the samples are, and how many of a subset's a device uses in a round."""

    path: str
    batch_size: PositiveCount | None = None  # None: all


class Root(Component):
    """Every message goes to rank 0, which is the server.

    ``broadcast``: the type that parameters travel as; unset: as they are computed. ``nonces``: where the randomness
    comes from that the server shares with all devices: ``seed`` (the run can be repeated) or ``entropy`` (of the
    operating system: nobody who knows the config can tell it in advance, and no other run has the same).
    """

    cost: ClassVar[str] = "N messages to rank 0, and dim numbers from it to every rank"
    broadcast: compressors.WireFloat | None = None
    nonces: Literal["seed", "entropy"] = "seed"


class Compute(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the arithmetic is done in, and on."""

    dtype: Literal["float64", "float32"] = "float64"
    device: Literal["cpu"] = "cpu"


FAMILIES: dict[str, Any] = {name: family.choice for name, family in plugins.FAMILIES.items()} | {"transport": Root}
"""The tables of a config that name a component, and our own components that each may name."""

UNNAMED = {"encoder": "mean", "optimizer": "sgd", "transport": "root"}
"""Families of which nearly every experiment uses the same member: their tables need no name."""

Filters = tuple[filters.Choice, ...]


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One experiment, completely."""

    devices: PositiveCount
    byzantine: Count = 0  # how many devices attack
    identities: Literal["resampled", "fixed"] = "resampled"  # of the Byzantine devices, in each round
    rounds: PositiveCount
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    evaluate_every: PositiveCount = 10
    checkpoint_every: PositiveCount | str | None = None  # rounds, or time as in "30s"
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
    transport: Root = Root()
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
    def sends_vectors(self) -> bool:
        """Whether the records are the vectors that were computed, so that neither side needs a copy of them."""
        part = self.compressor
        return isinstance(part, compressors.NoCompression) and part.dtype in (None, self.compute.dtype)

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
        self.checkpoint_interval()
        if ranks > self.devices:
            raise InputError(f"{ranks} ranks are more than the {self.devices} devices: each rank hosts one at least")
        if 2 * self.byzantine >= self.devices and self.byzantine:
            raise InputError(f"byzantine must be fewer than half of the {self.devices} devices, got {self.byzantine}")
        if self.model.task != data.task:
            raise InputError(
                f"model {self.model.name()} is for {self.model.task}, but {data.path} holds a {data.task} problem"
            )
        self.allocation.check(self.devices, data.subsets)
        self.allocation.check_encoder(self.encoder, self.devices, data.subsets)
        dim, dtype = self.model.dim(data.features, data.classes), self.compute.dtype
        compressors.check_wire(f"transport {self.transport.name()}", self.transport.broadcast, dtype)
        self.compressor.check(dim, dtype)
        messages, votes = self._code(data.subsets)
        records = self._records(dim, messages)
        if self.transport.nonces != "seed" and not self.compressor.common:
            raise InputError(
                f"transport root: nonces = {self.transport.nonces!r}, but nothing is drawn from them: compressor "
                f"{self.compressor.name()} shares no randomness (rand_k with shared = true does)"
            )
        self.memory.check(self.allocation, self.compressor, dim)
        self.memory.check_encoder(self.encoder, self.allocation)
        for record in records:
            self.attack.check(dim, record)
        lying = self.byzantine > 0 and not isinstance(self.attack, attacks.NoAttack)
        if self.encoder.decodes and self.memory.remembers and lying and self.identities == "resampled":
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


def check_votes(parts: Sequence[filters.Filter], aggregator: aggregators.Aggregator, votes: int) -> None:
    """Raise InputError where one of the parts gets fewer votes than it needs, of this many."""
    for item in parts:
        item.check(votes)
        votes = item.votes(votes)
    aggregator.check(votes)


def load(path: str, overrides: Sequence[str] = ()) -> Experiment:
    """Read a config file and apply ``--section.key value`` words to it. Raises InputError."""
    try:
        with open(path, "rb") as file:
            tree = tomllib.load(file)
    except OSError as error:
        raise InputError(f"config {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"config {path} is not valid TOML: {error}") from None
    return decode(override(tree, overrides, FAMILIES), os.path.basename(path))


def loads(toml: str, source: str) -> Experiment:
    """An experiment from the text of ``to_toml``."""
    return decode(tomllib.loads(toml), source)


def decode(tree: dict[str, Any], source: str) -> Experiment:
    """Check a config's tree and turn it into an Experiment. Raises InputError naming the config and the place."""
    try:
        try:
            return _decode(copy.deepcopy(tree), _OWN)  # which fills in what it can before it fails
        except UnknownComponent as unknown:  # perhaps another package's
            found = plugins.found()
            if not found.plugins:
                raise InputError("; ".join([str(unknown), *_refused(found)])) from None
        try:
            return _decode(tree, _with_plugins())
        except UnknownComponent as unknown:
            raise InputError("; ".join([str(unknown), *_refused(found)])) from None
    except InputError as error:
        raise InputError(f"config {source}: {error}") from None


_OWN = Schema(Experiment, {name: members(choice) for name, choice in FAMILIES.items()})


def _with_plugins() -> Schema:
    """Our own components and those of other packages."""
    own = {
        family: {name: plugins.widened(cls) for name, cls in choice.items()} for family, choice in _OWN.families.items()
    }
    families = {family: choice | plugins.classes(family) for family, choice in own.items()}
    return Schema(plugins.widened(Experiment), families)


def _refused(found: plugins.Found) -> list[str]:
    return ["plug-ins that cannot be used: " + "; ".join(found.refused)] if found.refused else []


def _decode(tree: dict[str, Any], schema: Schema) -> Experiment:
    check_keys(tree, schema.experiment)
    tree = _with_defaults(tree, schema)
    check(tree, schema)
    try:
        return cast(Experiment, msgspec.convert(tree, schema.experiment))
    except msgspec.ValidationError as error:
        raise InputError(readable(error, tree, schema)) from None


def _with_defaults(tree: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """Fill in what follows from other parts: the number of Byzantine devices that rule and filters tolerate."""
    tree = {"aggregator": {"name": "trimmed_mean"}, **tree}
    if "model" not in tree and isinstance(tree.get("data"), dict) and isinstance(tree["data"].get("path"), str):
        task = describe(tree["data"]["path"]).task
        tree["model"] = {"name": "linear_regression" if task == "regression" else "softmax_regression"}
    for family, usual in UNNAMED.items():
        if isinstance(tree.get(family), dict):
            tree[family] = {"name": usual, **tree[family]}
    byzantine = tree.get("byzantine", 0)
    inherit(tree.get("encoder"), schema.families["encoder"], byzantine)
    corrupted = _corrupted(tree, byzantine, schema)
    for family in ("filters", "aggregator"):
        tables = tree.get(family, [])
        for table in tables if isinstance(tables, list) else [tables]:
            inherit(table, schema.families[family], corrupted)
    return tree


def _corrupted(tree: dict[str, Any], byzantine: Any, schema: Schema) -> Any:
    """How many votes the Byzantine devices can corrupt: another number than theirs where a code decodes."""
    if not isinstance(tree.get("encoder"), dict):
        return byzantine
    try:
        parts = (msgspec.convert(tree[it], schema.families[it][tree[it]["name"]]) for it in ("encoder", "allocation"))
        encoder, allocation = cast(tuple[encoders.Encoder, allocations.Allocation], tuple(parts))
        if not encoder.decodes:
            return byzantine
        devices, subsets = tree["devices"], describe(tree["data"]["path"]).subsets
        if not (type(devices) is type(byzantine) is int and 0 <= byzantine <= devices and devices > 0):
            return byzantine
        allocation.check(devices, subsets)
        assignment = allocation.assignment(devices, subsets, 0, int(tree.get("seed", 0)))
        encoder.check(assignment, compressors.NoCompression(), tree.get("compute", {}).get("dtype", "float64"))
        return encoder.corrupted(assignment, byzantine)
    except (AttributeError, KeyError, TypeError, ValueError, InputError):  # what is wrong is said where it is checked
        return byzantine


def _without_none(tree: Any) -> Any:
    """TOML has no null: what is unset is left out."""
    if isinstance(tree, dict):
        return {key: _without_none(value) for key, value in tree.items() if value is not None}
    return [_without_none(item) for item in tree] if isinstance(tree, list | tuple) else tree
