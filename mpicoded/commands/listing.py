"""``mpicoded list``: every component that a config may name, with its fields and its paper."""

import textwrap

import msgspec

from mpicoded.algorithms.component import Component, describe_type, members
from mpicoded.errors import InputError
from mpicoded.experiment import FAMILIES, INHERITED


def listing(family: str | None) -> int:
    """Print all families, or one."""
    if family is not None and family not in FAMILIES:
        raise InputError(f"no family {family!r}; choose from: {', '.join(FAMILIES)}")
    for name, choice in FAMILIES.items():
        if family in (None, name):
            print(f"[{name}]")
            for member in members(choice).values():
                print(_describe(member))
            print()
    return 0


def _describe(member: type[Component]) -> str:
    summary = (member.__doc__ or "").split("\n\n")[0].replace("\n", " ").strip()
    source = f" [{member.source}]" if member.source else ""
    lines = textwrap.wrap(
        f"{member.name():<24}{' '.join(summary.split())}{source}",
        110,
        initial_indent="  ",
        subsequent_indent=" " * 26,
    )
    fields = [
        f"- {field.name}: {describe_type(field.type)}, {_default(field)}" for field in msgspec.structs.fields(member)
    ]
    for line in [*member.facts(), *fields]:
        lines += textwrap.wrap(line, 110, initial_indent=" " * 26, subsequent_indent=" " * 28)
    return "\n".join(lines)


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "default that of the experiment" if field.name == INHERITED else "required"
    return "unset" if field.default is None else f"default {field.default}"
