"""The experiment: one TOML file as one type, with overrides and the checks that concern several parts."""

import os
import tomllib
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import tomli_w

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
from mpicoded.algorithms.component import Component, Count, PositiveCount, describe_type, members, nested
from mpicoded.data.layout import Description, describe
from mpicoded.errors import InputError
from mpicoded.overrides import override


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

    broadcast: compressors.WireFloat | None = None
    nonces: Literal["seed", "entropy"] = "seed"


class Compute(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the arithmetic is done in, and on."""

    dtype: Literal["float64", "float32"] = "float64"
    device: Literal["cpu"] = "cpu"


INHERITED = "byzantine"
"""The field that rule and filters take from the top level where their table does not have it."""

FAMILIES: dict[str, Any] = {
    "model": models.Choice,
    "allocation": allocations.Choice,
    "encoder": encoders.Choice,
    "attack": attacks.Choice,
    "compressor": compressors.Choice,
    "memory": memories.Choice,
    "filters": filters.Choice,
    "aggregator": aggregators.Choice,
    "optimizer": optimizers.Choice,
    "transport": Root,
}
"""The tables of a config that name a component, and the components that each may name."""


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

    def _record(self, dim: int) -> np.dtype[Any]:
        """The record of a message. Raises InputError where it or the broadcast has 2^31 bytes or more in one piece."""
        try:
            self.broadcast_layout(dim)
            return self.compressor.layout(dim, self.compute.dtype)
        except ValueError:  # NumPy's types end there
            raise InputError(f"a message or the broadcast of {dim} parameters would have 2^31 bytes or more") from None

    @property
    def sends_vectors(self) -> bool:
        """Whether the records are the vectors that were computed, so that neither side needs a copy of them."""
        part = self.compressor
        return isinstance(part, compressors.NoCompression) and part.dtype in (None, self.compute.dtype)

    def broadcast_layout(self, dim: int) -> np.dtype[Any]:
        """What the server tells all devices in a round."""
        nonce = [("nonce", "<u8")] if self.compressor.common else []
        return np.dtype([*nonce, ("parameters", self.transport.broadcast or self.compute.dtype, (dim,))])

    def to_toml(self) -> str:
        """The resolved experiment, every default written out."""
        return tomli_w.dumps(_without_none(msgspec.to_builtins(self)))

    def check(self, data: Description, ranks: int) -> None:
        """Raise InputError where the parts do not fit each other, the data or the number of ranks."""
        if self.checkpoint_every is not None:
            raise InputError("checkpoint_every: this version has no checkpoints yet; leave it out")
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
        record = self._record(dim)
        if self.transport.nonces != "seed" and not self.compressor.common:
            raise InputError(
                f"transport root: nonces = {self.transport.nonces!r}, but nothing is drawn from them: compressor "
                f"{self.compressor.name()} shares no randomness (rand_k with shared = true does)"
            )
        self.memory.check(self.allocation, self.compressor, dim)
        self.attack.check(dim, record)
        votes = self.devices
        for item in self.filters:
            item.check(votes)
            votes = item.votes(votes)
        self.aggregator.check(votes)


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
        _check_keys(tree, Experiment, "")
        tree = _with_defaults(tree)
        for family, choice in FAMILIES.items():
            tables = tree.get(family, {})
            for table in tables if isinstance(tables, list) else [tables]:
                if tables:
                    _check_component(family, table, members(choice))
        return msgspec.convert(tree, Experiment)
    except msgspec.ValidationError as error:
        raise InputError(f"config {source}: {_readable(error, tree)}") from None
    except InputError as error:
        raise InputError(f"config {source}: {error}") from None


def _with_defaults(tree: dict[str, Any]) -> dict[str, Any]:
    """Fill in what follows from other parts: the number of Byzantine devices that rule and filters tolerate."""
    tree = {"aggregator": {"name": "trimmed_mean"}, **tree}
    if "model" not in tree and isinstance(tree.get("data"), dict) and isinstance(tree["data"].get("path"), str):
        task = describe(tree["data"]["path"]).task
        tree["model"] = {"name": "linear_regression" if task == "regression" else "softmax_regression"}
    byzantine = tree.get("byzantine", 0)
    for family in ("filters", "aggregator"):
        tables = tree.get(family, [])
        for table in tables if isinstance(tables, list) else [tables]:
            _inherit(table, members(FAMILIES[family]), byzantine)
    return tree


def _inherit(table: Any, choice: dict[str, type[Component]], byzantine: Any) -> None:
    """Fill in the number of Byzantine devices where a component lacks it, and in the components in it."""
    cls = choice.get(str(table.get("name"))) if isinstance(table, dict) else None
    if cls is None:
        return
    if INHERITED in cls.__struct_fields__:
        table.setdefault(INHERITED, byzantine)
    for field, options in nested(cls).items():
        _inherit(table.get(field), options, table.get(INHERITED, byzantine))


def _check_keys(table: Mapping[str, Any], cls: type[msgspec.Struct], place: str) -> None:
    fields = cls.__struct_fields__
    for key in table:
        if key not in fields and not (key == "name" and issubclass(cls, Component)):
            raise InputError(f"{place or 'the top level'} has no key {key!r}; it has: {', '.join(fields) or 'none'}")
    if not place:
        for key, kind in (("data", Data), ("compute", Compute)):
            if isinstance(table.get(key), dict):
                _check_keys(table[key], kind, key)


def _check_component(family: str, table: Any, choice: dict[str, type[Component]]) -> None:
    if not isinstance(table, dict):
        raise InputError(f"{family} must be a table with a name, got {table!r}")
    if len(choice) == 1:
        table.setdefault("name", next(iter(choice)))
    name = table.get("name")
    if not isinstance(name, str) or name not in choice:
        found = f"has no component {name!r}" if "name" in table else "needs a name"
        raise InputError(f"{family} {found}; choose from: {', '.join(choice)}")
    _check_keys(table, choice[str(name)], f"{family} {name}")
    for field, options in nested(choice[str(name)]).items():
        if field in table:
            _check_component(f"{family} {name}: {field}", table[field], options)


def _readable(error: msgspec.ValidationError, tree: Any) -> str:
    """``Expected `int`, got `str` - at `$.data.path``` → ``data.path: expected int, got str 'x'``."""
    text, _, place = str(error).partition(" - at `$")
    place = place.rstrip("`").lstrip(".").replace("[", ".").replace("]", "")
    value, hint = _lookup(tree, Experiment, place)
    text = text.replace("`", "")
    if text.startswith("Object missing required field"):
        return f"{place or 'the top level'} lacks {text.rsplit(' ', 1)[1]}"
    if isinstance(value, dict | list):
        return f"{place}: {text[0].lower()}{text[1:]}"
    if text.startswith("Invalid enum value"):
        text = f"expected one of {describe_type(hint)}"
    text = text.split(", got ")[0]
    return f"{place}: {text[0].lower()}{text[1:]}, got {value!r}"


def _lookup(tree: Any, cls: Any, place: str) -> tuple[Any, Any]:
    """The value at a place such as ``data.path`` and, for plain tables, its type."""
    hint: Any = None
    choice: dict[str, type[Component]] = {}
    for key in place.split(".") if place else []:
        if isinstance(tree, dict) and isinstance(cls, type) and issubclass(cls, msgspec.Struct):
            inside = nested(cls) if issubclass(cls, Component) else {}
            choice = inside.get(key) or (members(FAMILIES[key]) if cls is Experiment and key in FAMILIES else {})
            tree, hint = tree.get(key), typing.get_type_hints(cls, include_extras=True).get(key)
            cls = hint
        elif isinstance(tree, list) and key.isdigit():
            tree = tree[int(key)]
        else:
            return None, None
        if choice and isinstance(tree, dict):
            cls = choice.get(str(tree.get("name")))
    return tree, hint


def _without_none(tree: Any) -> Any:
    """TOML has no null: what is unset is left out."""
    if isinstance(tree, dict):
        return {key: _without_none(value) for key, value in tree.items() if value is not None}
    return [_without_none(item) for item in tree] if isinstance(tree, list | tuple) else tree
