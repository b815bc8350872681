"""Configs: a TOML file and words of the command line, read strictly into an Experiment."""

import copy
import os
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from mpicoded import plugins, toml, wiring
from mpicoded.algorithms import faults
from mpicoded.algorithms.allocations import Allocation
from mpicoded.algorithms.component import members
from mpicoded.algorithms.compressors import NoCompression
from mpicoded.algorithms.encoders import Encoder
from mpicoded.algorithms.models import Torch
from mpicoded.data.layout import describe
from mpicoded.errors import InputError, one_line
from mpicoded.experiment import Experiment
from mpicoded.overrides import override
from mpicoded.schema import Schema, UnknownComponent, check, check_keys, check_values, inherit, readable

FAMILIES: dict[str, Any] = {name: family.choice for name, family in plugins.FAMILIES.items()} | {
    "transport": wiring.Choice,
    "faults": faults.Choice,
}
"""The tables of a config that name a component, and our own components that each may name."""

UNNAMED = {"encoder": "mean", "optimizer": "sgd", "transport": "root"}
"""Families of which nearly every experiment uses the same member: their tables need no name."""


def load(path: str, overrides: Sequence[str] = ()) -> Experiment:
    """Read a config file and apply ``--section.key value`` words to it. Raises InputError."""
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe, say, for which one would wait
        raise InputError(f"config {path} is no file")
    try:
        with open(path, "rb") as file:
            text = file.read(4 * toml.MOST + 1)  # of four bytes at most, each
    except OSError as error:
        raise InputError(f"config {path} cannot be read: {error.strerror}") from None
    tree = override(_parse(text, path), overrides, FAMILIES)
    _find_beside(tree, os.path.dirname(os.path.abspath(path)))
    return decode(tree, os.path.basename(path))


def loads(text: str, source: str) -> Experiment:
    """An experiment from the text of ``to_toml``."""
    return decode(_parse(text.encode(errors="replace"), source), source)


def _find_beside(tree: dict[str, Any], folder: str) -> None:
    """Have a model's code looked for in the config's folder where it lies there, in a run that is resumed, too."""
    model = tree.get("model")
    if not (isinstance(model, dict) and model.get("name") == Torch.name() and isinstance(model.get("module"), str)):
        return
    if isinstance(model.get("folder"), str):
        model["folder"] = os.path.join(folder, model["folder"])
        return
    package = model["module"].partition(":")[0].partition(".")[0]
    places = (os.path.join(folder, f"{package}.py"), os.path.join(folder, package, "__init__.py"))
    if package not in ("", "mpicoded") and any(map(os.path.exists, places)):
        model["folder"] = folder


def _parse(text: bytes, source: str) -> dict[str, Any]:
    try:
        return toml.parse(text.decode())
    except ValueError as error:
        raise InputError(f"config {source} is not valid TOML: {one_line(error)}") from None


def decode(tree: dict[str, Any], source: str) -> Experiment:
    """Check a config's tree and turn it into an Experiment. Raises InputError naming the config and the place."""
    try:
        check_values(tree)
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
        encoder, allocation = cast(tuple[Encoder, Allocation], tuple(parts))
        if not encoder.decodes:
            return byzantine
        devices, subsets = tree["devices"], describe(tree["data"]["path"]).subsets
        if not (type(devices) is type(byzantine) is int and 0 <= byzantine <= devices and devices > 0):
            return byzantine
        allocation.check(devices, subsets)
        assignment = allocation.assignment(devices, subsets, 0, int(tree.get("seed", 0)))
        encoder.check(assignment, NoCompression(), tree.get("compute", {}).get("dtype", "float64"))
        return encoder.corrupted(assignment, byzantine)
    except (AttributeError, KeyError, TypeError, ValueError, InputError):  # what is wrong is said where it is checked
        return byzantine
