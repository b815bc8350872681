"""``mpicoded list``: every component that a config may name, with its fields and its paper."""

import textwrap
from collections.abc import Iterator

import msgspec

from mpicoded import plugins
from mpicoded.algorithms.component import Component, describe_type, members
from mpicoded.commands.reference import TITLES, default, page, summary, words
from mpicoded.configs import FAMILIES
from mpicoded.errors import InputError

_HEAD = """# Components

What a config may name, a table for each family. This file is what `mpicoded list --markdown` prints; `mpicoded list`
says more: [fields, bounds](configuration.md), and components of [other packages](adding.md). Costs are those of a
round: N devices, M subsets, n votes or honest messages, f Byzantine ones, dim or p numbers in a vector, b bits each."""


def listing(family: str | None, markdown: bool = False, reference: bool = False) -> int:
    """Print all families, or one, with the plug-ins; as Markdown, or as the reference, our own components only."""
    if reference:
        print(page())
        return 0
    if family is not None and family not in FAMILIES:
        raise InputError(f"no family {family!r}; choose from: {', '.join(FAMILIES)}")
    chosen = [name for name in FAMILIES if family in (None, name)]
    if markdown:
        tables = ["\n".join(_markdown(name)) for name in chosen]
        print("\n\n".join([*([_HEAD] if family is None else []), *tables]))
        return 0
    found = plugins.found()
    for name in chosen:
        print(f"[{name}]")
        for member in members(FAMILIES[name]).values():
            print(_describe(member))
        for plugin in found.plugins:
            if plugin.family == name:
                print(_describe(plugin.cls, f"plug-in of {plugin.package} {plugin.version}"))
        print()
    if found.refused:
        print("Plug-ins that cannot be used:")
        for line in found.refused:
            print(f"  {line}")
    return 0


def _describe(member: type[Component], *more: str) -> str:
    source = f" [{member.source}]" if member.source else ""
    lines = textwrap.wrap(
        f"{member.name():<24}{summary(member)}{source}",
        110,
        initial_indent="  ",
        subsequent_indent=" " * 26,
    )
    said = {name: f"; {text}" for name, text in words(member).items()}
    fields = [
        f"- {field.name}: {describe_type(field.type)}, {default(field)}{said.get(field.name, '')}"
        for field in msgspec.structs.fields(member)
    ]
    known = [f"in papers: {member.acronym}"] if member.acronym else []
    for line in [*more, *known, *member.facts(), *fields]:
        lines += textwrap.wrap(line, 110, initial_indent=" " * 26, subsequent_indent=" " * 28)
    return "\n".join(lines)


def _markdown(family: str) -> Iterator[str]:
    """A heading and a table: name, acronyms, what it does, paper, cost."""
    yield f"## {TITLES[family]}\n"
    yield f"`[[{family}]]`\n" if family in ("filters", "faults") else f"`[{family}]`\n"
    yield "| name | acronym | what it does | paper | cost |"
    yield "|---|---|---|---|---|"
    for name, member in members(FAMILIES[family]).items():
        texts = (summary(member), member.source, member.cost)
        what, paper, cost = (text.replace("``", "`").replace("|", "\\|") for text in texts)
        yield f"| `{name}` | {member.acronym} | {what} | {paper} | {cost} |"
