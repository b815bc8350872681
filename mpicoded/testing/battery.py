"""What every battery is made of: tests of one class, run for each of the parts that a test class names."""

import re
import tomllib
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
import pytest
import tomli_w

from mpicoded import plugins
from mpicoded.algorithms.component import Component, members
from mpicoded.configs import decode, loads
from mpicoded.errors import InputError


class Battery:
    """Base of the batteries: ``class TestMine(AggregatorBattery): parts = [Mine(byzantine=2)]``.

    Each test of the class runs for each part. What does not hold for one of them is said in ``but``, with the reason.
    """

    parts: ClassVar[Sequence[Any] | Mapping[str, Any]]
    """What is tested; a mapping gives names of its own."""
    but: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    """Tests that are skipped: test → name of a part (or ``*``) → why it does not hold."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Give a test each of the parts in turn."""
        if "part" not in metafunc.fixturenames:
            return
        named = self.named()
        self._check_exceptions(named)
        reasons = self.but.get(metafunc.function.__name__, {})
        parts = []
        for name, part in named.items():
            reason = reasons.get(name, reasons.get("*"))
            parts.append(pytest.param(part, id=name, marks=[pytest.mark.skip(reason=reason)] if reason else []))
        metafunc.parametrize("part", parts)

    @classmethod
    def named(cls) -> dict[str, Any]:
        """The parts by their names."""
        parts = getattr(cls, "parts", None)
        if not parts:
            raise pytest.UsageError(f"{cls.__name__} needs parts = [Mine(…), …]: what it is to test")
        if isinstance(parts, Mapping):
            return dict(parts)
        names = [cls.component(part).name() for part in parts]
        return {name if names.count(name) == 1 else repr(part): part for name, part in zip(names, parts, strict=True)}

    @classmethod
    def _check_exceptions(cls, named: Mapping[str, Any]) -> None:
        for test, reasons in cls.but.items():
            if not callable(getattr(cls, test, None)):
                raise pytest.UsageError(f"{cls.__name__}.but: there is no test {test}")
            for name in reasons:
                if name not in named and name != "*":
                    raise pytest.UsageError(f"{cls.__name__}.but: {test}: there is no part {name!r}")

    @classmethod
    def component(cls, part: Any) -> Component:
        """The component itself, where a part is more than that."""
        assert isinstance(part, Component)
        return part


class ComponentBattery(Battery):
    """What holds for every component of any family: a frozen, strict record that a config can name."""

    def test_it_says_what_it_is_where_it_comes_from_and_what_it_costs(self, part: Any) -> None:
        cls = type(self.component(part))
        assert (cls.__doc__ or "").strip(), "the docstring's first line is what mpicoded list says"
        assert cls.source, 'source: ClassVar[str] = "the paper"'
        assert cls.cost, 'cost: ClassVar[str] = "n dim"'

    def test_its_name_is_snake_case(self, part: Any) -> None:
        assert re.fullmatch("[a-z][a-z0-9_]*", self.component(part).name())

    def test_a_config_can_name_it(self, part: Any) -> None:
        """TOML → component → TOML, in an experiment; a plug-in must be installed with its entry point."""
        part = self.component(part)
        family = next(name for name, family in plugins.FAMILIES.items() if isinstance(part, family.base))
        known = members(plugins.FAMILIES[family].choice) | plugins.classes(family)
        hint = f"is the package installed, with an entry point in the group {plugins.GROUP}? {plugins.found().refused}"
        assert known.get(part.name()) is type(part), hint
        toml = tomli_w.dumps(config(family, table(part)))
        experiment = decode(tomllib.loads(toml), "a test")
        found = getattr(experiment, family)
        assert table(found[0] if family == "filters" else found) == table(part)
        assert loads(experiment.to_toml(), "a test") == experiment

    def test_table_and_object_are_the_same(self, part: Any) -> None:
        part = self.component(part)
        decoded = msgspec.convert(msgspec.to_builtins(part), type(part))
        assert decoded == part
        assert hash(decoded) == hash(part)

    def test_unknown_fields_are_errors(self, part: Any) -> None:
        cls = type(self.component(part))
        with pytest.raises(msgspec.ValidationError, match="bizantine"):
            msgspec.convert(msgspec.to_builtins(self.component(part)) | {"bizantine": 1}, cls)
        with pytest.raises(TypeError, match="bizantine"):
            cls(bizantine=1)

    def test_it_is_frozen(self, part: Any) -> None:
        part = self.component(part)
        for field in part.__struct_fields__:
            with pytest.raises(AttributeError):
                setattr(part, field, 1)

    def test_bounds_hold_in_python_as_in_a_config(self, part: Any) -> None:
        part = self.component(part)
        for field, meta in _bounds(type(part)):
            for outside, inside in _edges(meta):
                with pytest.raises(msgspec.ValidationError):
                    msgspec.convert(msgspec.to_builtins(part) | {field: outside}, type(part))
                text = rf"^{type(part).__name__}: {field} must be .*[<>]=? .*, got {re.escape(str(outside))}$"
                with pytest.raises(InputError, match=text):
                    msgspec.structs.replace(part, **{field: outside})
                if inside is not None:
                    assert getattr(msgspec.structs.replace(part, **{field: inside}), field) == inside


def table(part: Component) -> dict[str, Any]:
    """A component as a config's table: TOML has no null, so what is unset is left out."""
    tree: dict[str, Any] = _without_none({"name": part.name()} | msgspec.to_builtins(part))
    return tree


def config(family: str, part: Mapping[str, Any]) -> dict[str, Any]:
    """An experiment's config with this part."""
    rest = {"devices": 20, "rounds": 5, "data": {"path": "x.h5"}, "model": {"name": "linear_regression"}}
    return rest | {family: [part] if family == "filters" else part}


def same(part: Any, **fields: Any) -> Any:
    """The part with those of the fields changed that it has."""
    return msgspec.structs.replace(part, **{name: fields[name] for name in fields if name in part.__struct_fields__})


def _without_none(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_none(value) for key, value in tree.items() if value is not None}
    return [_without_none(item) for item in tree] if isinstance(tree, list | tuple) else tree


def _bounds(cls: type[Component]) -> Iterator[tuple[str, msgspec.Meta]]:
    """The fields with the bounds that their annotations state."""
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in cls.__struct_fields__:
        for option in (hints[field], *typing.get_args(hints[field])):
            for meta in getattr(option, "__metadata__", ()):
                if isinstance(meta, msgspec.Meta):
                    yield field, meta


def _edges(meta: msgspec.Meta) -> Iterator[tuple[float, float | None]]:
    """For each bound a number that is just outside, and one that is just inside where that is known."""
    rows: list[tuple[float | None, Callable[[float], float], bool]] = [
        (meta.gt, lambda bound: bound, False),
        (meta.ge, lambda bound: bound - 1, True),
        (meta.lt, lambda bound: bound, False),
        (meta.le, lambda bound: bound + 1, True),
    ]
    for bound, outside, closed in rows:
        if bound is not None:
            yield outside(bound), bound if closed else None
