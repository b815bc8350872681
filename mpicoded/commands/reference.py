"""The configuration reference: every key of an experiment with its type, its default and what it is for."""

import ast
import functools
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator, Mapping

import msgspec

from mpicoded.algorithms.component import Component, describe_type, members
from mpicoded.configs import FAMILIES
from mpicoded.experiment import Compute, Data, Experiment
from mpicoded.schema import INHERITED

TITLES = {
    "model": "Models",
    "allocation": "Allocations: who computes what",
    "encoder": "Encoders: what a device sends, and how votes come out",
    "attack": "Attacks",
    "compressor": "Compressors",
    "memory": "Memories: momentum, error feedback, variance reduction",
    "filters": "Filters: votes → votes",
    "aggregator": "Rules: votes → one vector",
    "optimizer": "Optimisers",
    "transport": "Transports",
    "faults": "Faults: what goes wrong on purpose, on ranks that are named",
}
_HEAD = """# Configuration

An experiment is one TOML file: keys of the experiment itself, and a table for each part, in which `name` says which
component it is and the other keys are its fields. Nothing else may stand there: a misspelt key ends the program with a
line that names the keys that there are. *unset* means that the key is left out; TOML has no word for it.

On the command line `--attack.scale -2` changes one key, `--attack.name alie` a component (fields that the new one
lacks are dropped), `--compressor '{name = "qsgd", levels = 7}'` a whole table. The result file holds the experiment
with every default written out; `mpicoded plan CONFIG` checks one without running it.

This page is what `mpicoded list --reference` prints; the [table of components](components.md) has their papers and
costs."""
_TOP = """`data.path`, `devices` and `rounds` are needed. Without `[model]` the data decide (`linear_regression` or
`softmax_regression`), without `[aggregator]` the rule is `trimmed_mean`; a table of `encoder`, `optimizer` or
`transport` needs no name where it is `mean`, `sgd` or `root`. Of families that are left out"""


def page() -> str:
    """The whole reference as Markdown."""
    left_out = [
        f"`{field.name}` is `{field.default.name()}`"
        for field in msgspec.structs.fields(Experiment)
        if isinstance(field.default, Component)
    ]
    plain = [field for field in msgspec.structs.fields(Experiment) if field.name not in {*FAMILIES, "data", "compute"}]
    blocks = [_HEAD, "## The experiment", _filled(f"{_TOP} {', '.join(left_out)}; `filters` and `faults` are none.")]
    blocks += _table(plain, words(Experiment))
    for name, cls in (("data", Data), ("compute", Compute)):
        blocks += [f"## `[{name}]`", *_told(cls), *_table(msgspec.structs.fields(cls), words(cls))]
    for family in FAMILIES:
        blocks += _family(family)
    return "\n\n".join(blocks)


def summary(member: type) -> str:
    """The first sentence of the docstring, which may take several lines."""
    return " ".join((member.__doc__ or "").split("\n\n")[0].split())


def default(field: msgspec.structs.FieldInfo) -> str:
    """What a field is where a config does not say it."""
    if field.required:
        return "default that of the experiment" if field.name == INHERITED else "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return "unset" if value is None else f"default {str(value).lower() if isinstance(value, bool) else value}"


@functools.cache
def words(cls: type) -> Mapping[str, str]:
    """What the class, or a base of it, says beside each of its fields: in a text below it, or after a ``#``."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[: cls.__mro__.index(msgspec.Struct)]):
        try:
            source = textwrap.dedent(inspect.getsource(base))
        except (OSError, TypeError):  # a plug-in without its source
            continue
        lines, body = source.splitlines(), typing.cast(ast.ClassDef, ast.parse(source).body[0]).body
        for node, after in zip(body, [*body[1:], None], strict=True):
            if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
                continue
            comment = (
                lines[(node.end_lineno or 0) - 1].encode()[node.end_col_offset :].decode().partition("#")[2].strip()
            )
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                comment = " ".join(str(after.value.value).split())
            if comment:
                found[node.target.id] = comment.rstrip(".")
    return {
        name: text for name, text in found.items() if name in typing.cast(type[msgspec.Struct], cls).__struct_fields__
    }


def _family(family: str) -> Iterator[str]:
    """A heading, the fields that all members have, and each member with its own."""
    yield f"## {TITLES[family]}"
    chosen = members(FAMILIES[family])
    base = next(each for each in next(iter(chosen.values())).__mro__ if Component in each.__bases__)
    common = {field.name for field in msgspec.structs.fields(base)}
    yield f"`[[{family}]]`, as many as there are." if family in ("filters", "faults") else f"`[{family}]`"
    if common:
        yield f"Keys of all of them. {next(_told(base))}"
        yield from list(_told(base))[1:]
        yield from _table(msgspec.structs.fields(base), words(base))
    for name, member in chosen.items():
        yield f"### {name}"
        yield from _told(member)
        yield from _table([one for one in msgspec.structs.fields(member) if one.name not in common], words(member))


def _told(cls: type) -> Iterator[str]:
    """The docstring's paragraphs."""
    for paragraph in inspect.cleandoc(cls.__doc__ or "").split("\n\n"):
        yield _filled(_marked(paragraph))


def _table(fields: typing.Iterable[msgspec.structs.FieldInfo], said: Mapping[str, str]) -> list[str]:
    """A row for each field; nothing where there are none."""
    rows = []
    for field in fields:
        kind, what = (_marked(text, cell=True) for text in (describe_type(field.type), said.get(field.name, "")))
        rows.append(f"| `{field.name}` | {kind} | {default(field).removeprefix('default ')} | {what} |")
    return ["\n".join(["| key | type | default | what |", "|---|---|---|---|", *rows])] if rows else []


def _filled(text: str) -> str:
    """Lines of a paragraph."""
    return textwrap.fill(" ".join(text.split()), 118, break_long_words=False, break_on_hyphens=False)


def _marked(text: str, cell: bool = False) -> str:
    """Text as Markdown."""
    text = re.sub(r"(?<!\S)([*_])(?=\S)", r"\\\1", text.replace("``", "`"))
    return text.replace("|", "\\|") if cell else text
