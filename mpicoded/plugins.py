"""Components of other packages: what their entry points in the group ``mpicoded.components`` name.

A plug-in is a subclass of one family's base class. It is looked for only where a config names a component that is none
of ours, and by ``mpicoded list``: reading the metadata of all installed packages and importing every plug-in is not for
each rank of each run.
"""

import contextlib
import functools
import operator
import re
import types
import typing
from collections import Counter
from collections.abc import Iterator
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import msgspec

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
from mpicoded.algorithms.component import Component, members
from mpicoded.errors import one_line

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "mpicoded.components"


class Family(NamedTuple):
    """A family that plug-ins may join."""

    base: type[Component]
    choice: Any  # our own members


FAMILIES = {
    "model": Family(models.Model, models.Choice),
    "allocation": Family(allocations.Allocation, allocations.Choice),
    "encoder": Family(encoders.Encoder, encoders.Choice),
    "attack": Family(attacks.Attack, attacks.Choice),
    "compressor": Family(compressors.Compressor, compressors.Choice),
    "memory": Family(memories.Memory, memories.Choice),
    "filters": Family(filters.Filter, filters.Choice),
    "aggregator": Family(aggregators.Aggregator, aggregators.Choice),
    "optimizer": Family(optimizers.Optimizer, optimizers.Choice),
}
"""By the tables of a config that name their members."""


class Plugin(NamedTuple):
    """A component of another package."""

    cls: type[Component]
    family: str
    package: str
    version: str
    entry: str  # as in "my_package 1.0, entry point mine = my_package.rules:Mine"


class Found(NamedTuple):
    """What the installed packages offer."""

    plugins: tuple[Plugin, ...]
    refused: tuple[str, ...]
    """A line for each entry point that cannot be used: whose it is, and why."""


@functools.cache
def found() -> Found:
    """All plug-ins, ordered by package and entry point; looked for once in a process."""
    from importlib.metadata import entry_points  # 0.1 s: not for runs that name no plug-in

    try:
        entries = sorted(entry_points(group=GROUP), key=lambda entry: (_package(entry), entry.name))
    except Exception as error:  # somebody's entry_points.txt is not what it should be
        return Found((), (f"an installed package's entry points cannot be read: {one_line(error)}",))
    loaded: list[Plugin] = []
    refused = []
    for entry in entries:
        try:
            loaded.append(_load(entry))
        except (Exception, SystemExit) as error:  # what importing foreign code raises has no end
            reason = str(error) if isinstance(error, _Unfit) else f"{type(error).__name__}: {one_line(error)}"
            refused.append(f"{_described(entry)}: {reason}")
    names = Counter((plugin.family, plugin.cls.name()) for plugin in loaded)
    twice = [plugin for plugin in loaded if names[plugin.family, plugin.cls.name()] > 1]
    refused += [f"{plugin.entry}: another plug-in is {plugin.family} {plugin.cls.name()} too" for plugin in twice]
    return Found(tuple(plugin for plugin in loaded if plugin not in twice), tuple(refused))


def classes(family: str) -> dict[str, type[Component]]:
    """The plug-ins of a family by their config names."""
    return {plugin.cls.name(): plugin.cls for plugin in found().plugins if plugin.family == family}


def packages(part: Any) -> dict[str, str]:
    """The packages that the components of an experiment come from, with their versions; our own left out."""
    used = {type(component) for component in _components(part)}
    if all(cls.__module__.startswith("mpicoded.") for cls in used):
        return {}
    return {plugin.package: plugin.version for plugin in found().plugins if plugin.cls in used}


_T = TypeVar("_T", bound=msgspec.Struct)


def widened(cls: type[_T]) -> type[_T]:
    """A subclass whose fields may be plug-ins too where they may be members of a family; the class if none may."""
    return cast("type[_T]", _widened(cls, found().plugins))


class _Unfit(Exception):
    """Why a class is no component that a config could name."""


def _load(entry: "EntryPoint") -> Plugin:
    """Import the class and hold it to what our own members keep."""
    cls = entry.load()
    if not (isinstance(cls, type) and issubclass(cls, Component)):
        raise _Unfit(f"it must be a subclass of mpicoded.algorithms.component.Component, got {cls!r}")
    homes = [name for name, family in FAMILIES.items() if issubclass(cls, family.base) and cls is not family.base]
    if len(homes) != 1:
        bases = ", ".join(family.base.__name__ for family in FAMILIES.values())
        raise _Unfit(f"{cls.__name__} must derive from one of {bases}, and does from {len(homes)}")
    (home,), settings = homes, cls.__struct_config__
    if not (settings.frozen and settings.forbid_unknown_fields and settings.tag_field == "name"):
        raise _Unfit(f"{cls.__name__} must stay frozen, without unknown fields and tagged by its name")
    if not re.fullmatch("[a-z][a-z0-9_]*", cls.name()):
        raise _Unfit(f"the name in a config must be snake case, got {cls.name()!r}")
    if not (cls.__doc__ or "").strip():
        raise _Unfit(f"{cls.__name__} needs a docstring: its first line is what mpicoded list says")
    if cls.name() in members(FAMILIES[home].choice):
        raise _Unfit(f"mpicoded has a component {home} {cls.name()} of its own")
    with contextlib.suppress(msgspec.ValidationError):  # a field is required
        msgspec.convert({"name": cls.name()}, cls)  # TypeError where a field's type cannot stand in a config
    return Plugin(cls, home, _package(entry), _version(entry), _described(entry))


def _package(entry: "EntryPoint") -> str:
    return (entry.dist and entry.dist.name) or "an unknown package"


def _version(entry: "EntryPoint") -> str:
    return (entry.dist and entry.dist.version) or "unknown"


def _described(entry: "EntryPoint") -> str:
    return f"{_package(entry)} {_version(entry)}, entry point {entry.name} = {entry.value}"


def _components(part: Any) -> Iterator[Component]:
    """All components in an experiment, those in other components too."""
    if isinstance(part, Component):
        yield part
    inside: tuple[Any, ...] = part if isinstance(part, tuple) else ()
    if isinstance(part, msgspec.Struct):
        inside = tuple(getattr(part, field) for field in part.__struct_fields__)
    for item in inside:
        yield from _components(item)


@functools.cache
def _widened(cls: type[msgspec.Struct], plugins: tuple[Plugin, ...]) -> type[msgspec.Struct]:
    hints = typing.get_type_hints(cls, include_extras=True)
    wider = {field.name: _wider(hints[field.name], plugins) for field in msgspec.structs.fields(cls)}
    if all(hint == hints[name] for name, hint in wider.items()):
        return cls
    fields = [  # all of them, so that their order stays
        (field.name, wider[field.name]) if field.required else (field.name, wider[field.name], field.default)
        for field in msgspec.structs.fields(cls)
    ]
    tag = cls.name() if issubclass(cls, Component) else None
    return msgspec.defstruct(cls.__name__, fields, bases=(cls,), module=__name__, tag=tag, kw_only=True)


def _wider(hint: Any, plugins: tuple[Plugin, ...]) -> Any:
    """A field's type with the plug-ins of its family."""
    if typing.get_origin(hint) is tuple:
        return types.GenericAlias(tuple, tuple(_wider(item, plugins) for item in typing.get_args(hint)))
    options = typing.get_args(hint) or (hint,)
    own = [option for option in options if isinstance(option, type) and issubclass(option, Component)]
    homes = {name for name, family in FAMILIES.items() if any(issubclass(option, family.base) for option in own)}
    more = [plugin.cls for plugin in plugins if plugin.family in homes]
    if not homes or not plugins:
        return hint
    inner = [_widened(option, plugins) if option in own else option for option in options]
    return reduce(operator.or_, [*inner, *more])
