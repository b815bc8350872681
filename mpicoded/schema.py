"""A config's tree held against the types it decodes into: strict keys, names that exist, errors in a user's words."""

import math
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from mpicoded.algorithms.component import Component, describe_type, nested
from mpicoded.errors import InputError, quoted

_DEEPEST = 20  # tables in tables

INHERITED = "byzantine"
"""The field that rule and filters take from the top level where their table does not have it."""

Members = Mapping[str, type[Component]]


class UnknownComponent(InputError):
    """A name that no component has."""


class Schema(NamedTuple):
    """What a config may say."""

    experiment: type[msgspec.Struct]
    families: Mapping[str, Members]
    """The tables that name a component, and the components that each may name."""


def check(tree: Mapping[str, Any], schema: Schema) -> None:
    """Raise InputError for a key or a component that there is not; UnknownComponent for the latter."""
    for family, choice in schema.families.items():
        tables = tree.get(family, {})
        for table in tables if isinstance(tables, list) else [tables]:
            if tables:
                _check_component(family, table, choice)


def check_values(tree: Any, place: str = "") -> None:
    """Raise InputError for numbers not finite or too large, tables in tables for ever, and texts that are none."""
    if place.count(".") >= _DEEPEST:
        raise InputError(f"{place} is nested too deeply")
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            check_values(value, f"{place}.{key}" if place else str(key))
    elif isinstance(tree, float) and not math.isfinite(tree):
        raise InputError(f"{place}: expected a finite number, got {tree}")
    elif isinstance(tree, int) and abs(tree) >= 2**63:
        raise InputError(f"{place}: expected int of 64 bits, got {quoted(tree)}")
    elif isinstance(tree, str) and not tree.isascii() and tree != tree.encode(errors="replace").decode():
        raise InputError(f"{place}: expected text in UTF-8, got {quoted(tree)}")  # from the command line


def check_keys(table: Mapping[str, Any], cls: type[msgspec.Struct], place: str = "") -> None:
    """Raise InputError for a key that is no field, also of the plain tables inside."""
    fields = cls.__struct_fields__
    for key in table:
        if key not in fields and not (key == "name" and issubclass(cls, Component)):
            where, known = place or "the top level", ", ".join(fields) or "none"
            raise InputError(f"{where} has no key {quoted(key)}; it has: {known}")
    if not place:
        for key, kind in typing.get_type_hints(cls).items():
            plain = isinstance(kind, type) and issubclass(kind, msgspec.Struct) and not issubclass(kind, Component)
            if plain and isinstance(table.get(key), dict):
                check_keys(table[key], kind, key)


def _check_component(family: str, table: Any, choice: Members) -> None:
    if not isinstance(table, dict):
        raise InputError(f"{family} must be a table with a name, got {quoted(table)}")
    name = table.get("name")
    if not isinstance(name, str) or name not in choice:
        found = f"has no component {quoted(name)}" if "name" in table else "needs a name"
        raise UnknownComponent(f"{family} {found}; choose from: {', '.join(choice)}")
    check_keys(table, choice[str(name)], f"{family} {name}")
    for field, options in nested(choice[str(name)]).items():
        if field in table:
            _check_component(f"{family} {name}: {field}", table[field], options)


def inherit(table: Any, choice: Members, byzantine: Any) -> None:
    """Fill in the number of Byzantine devices where a component lacks it, and in the components in it."""
    cls = choice.get(str(table.get("name"))) if isinstance(table, dict) else None
    if cls is None:
        return
    if INHERITED in cls.__struct_fields__:
        table.setdefault(INHERITED, byzantine)
    for field, options in nested(cls).items():
        inherit(table.get(field), options, table.get(INHERITED, byzantine))


def readable(error: msgspec.ValidationError, tree: Any, schema: Schema) -> str:
    """``Expected `int`, got `str` - at `$.data.path``` → ``data.path: expected int, got str 'x'``."""
    text, _, place = str(error).partition(" - at `$")
    place = place.rstrip("`").lstrip(".").replace("[", ".").replace("]", "")
    value, hint = _lookup(tree, schema, place)
    text = text.replace("`", "")
    if text.startswith("Object missing required field"):
        return f"{place or 'the top level'} lacks {text.rsplit(' ', 1)[1]}"
    if isinstance(value, dict | list):
        return f"{place}: {text[0].lower()}{text[1:]}"
    if text.startswith("Invalid enum value"):
        need = describe_type(hint)
        text = f"expected {need}" if need.startswith("int") else f"expected one of {need}"
    text = text.split(", got ")[0]
    return f"{place}: {text[0].lower()}{text[1:]}, got {quoted(value)}"


def _lookup(tree: Any, schema: Schema, place: str) -> tuple[Any, Any]:
    """The value at a place such as ``data.path`` and, for plain tables, its type."""
    cls: Any = schema.experiment
    hint: Any = None
    choice: Members = {}
    for key in place.split(".") if place else []:
        if isinstance(tree, dict) and isinstance(cls, type) and issubclass(cls, msgspec.Struct):
            inside: Mapping[str, Members] = nested(cls) if issubclass(cls, Component) else {}
            choice = inside.get(key) or (schema.families.get(key, {}) if cls is schema.experiment else {})
            tree, hint = tree.get(key), typing.get_type_hints(cls, include_extras=True).get(key)
            cls = hint
        elif isinstance(tree, list) and key.isdigit():
            tree = tree[int(key)]
        else:
            return None, None
        if choice and isinstance(tree, dict):
            cls = choice.get(str(tree.get("name")))
    return tree, hint
