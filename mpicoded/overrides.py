"""Words of the command line as edits of a config's tree. The strict decoder checks what comes out."""

import tomllib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from mpicoded import plugins
from mpicoded.algorithms.component import members
from mpicoded.errors import InputError


def override(tree: dict[str, Any], words: Sequence[str], families: Mapping[str, Any]) -> dict[str, Any]:
    """Apply words such as ``--aggregator.byzantine 10`` (or ``--aggregator.byzantine=10``) to a config.

    Values are read as TOML, and as plain text where they are not TOML. Where a table of one of the families gets
    another component's name, its fields that the new component does not have are dropped.
    """
    pending = list(words)
    while pending:
        word = pending.pop(0)
        key, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not key:
            raise InputError(f"unexpected argument {word!r}: overrides are written --section.key value")
        if not equals:
            if not pending:
                raise InputError(f"override {word} needs a value")
            text = pending.pop(0)
        _set(tree, key.split("."), _value(text), word, families)
    return tree


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _set(tree: dict[str, Any], keys: list[str], value: Any, word: str, families: Mapping[str, Any]) -> None:
    place: Any = tree
    for key, following in pairwise(keys):
        if following.isdecimal() and isinstance(place, dict) and not isinstance(place.get(key), list):
            raise InputError(f"override {word}: the config has no list {key}")
        if isinstance(place, list) and key.isdecimal() and int(key) < len(place):
            place = place[int(key)]
        elif isinstance(place, dict):
            place = place.setdefault(key, {})
        else:
            raise InputError(f"override {word}: the config has no {'.'.join(keys[:-1])}")
    if not isinstance(place, dict):
        raise InputError(f"override {word}: {'.'.join(keys[:-1])} is not a table")
    if keys[-1] == "name" and len(keys) > 1 and isinstance(value, str) and keys[0] in families:
        cls = members(families[keys[0]]).get(value) or plugins.classes(keys[0]).get(value)
        for stale in [field for field in place if cls and field not in ("name", *cls.__struct_fields__)]:
            del place[stale]
    place[keys[-1]] = value
