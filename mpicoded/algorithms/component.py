"""What all exchangeable parts are: frozen records of hyperparameters with pure methods.

The class *is* the config: ``[aggregator] name = "trimmed_mean", byzantine = 20`` decodes into
``TrimmedMean(byzantine=20)``, which is the object that aggregates. The name in a config is the class name
in snake case.
"""

import functools
import re
import types
import typing
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

import msgspec

from mpicoded.errors import InputError

Count = Annotated[int, msgspec.Meta(ge=0)]
PositiveCount = Annotated[int, msgspec.Meta(ge=1)]
AUTO = "auto"
if TYPE_CHECKING:
    Tolerated = int
else:
    Tolerated = Count | Literal["auto"]
"""How many Byzantine votes to tolerate; "auto": the server estimates it in each round. What works has a number."""
Positive = Annotated[float, msgspec.Meta(gt=0)]
NonNegative = Annotated[float, msgspec.Meta(ge=0)]
Fraction = Annotated[float, msgspec.Meta(ge=0, lt=1)]


_UNIONS = (types.UnionType, typing.Union)  # X | None is the latter where X is Annotated


def works_on_gpu(part: Any, *methods: str) -> bool:
    """Whether these methods of a part take arrays on a GPU, as ``on_gpu`` says of those of its own class."""
    return bool(part.on_gpu) and all(known_with(part, "on_gpu", method) for method in methods)


def known_with(part: object, shortcut: str, method: str) -> bool:
    """Whether a part's shortcut is of the class whose method it stands for, or of one that knows that class.

    A subclass that has a method of its own, and inherits the shortcut, would be bypassed by it.
    """
    classes = type(part).__mro__
    first, other = (next(i for i, each in enumerate(classes) if name in vars(each)) for name in (shortcut, method))
    return first <= other


def snake_case(name: str) -> str:
    """``CoordinateMedian`` → ``coordinate_median``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


class Component(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="name", tag=snake_case
):
    """Base of every part that a config can name. Fields are hyperparameters; methods are pure."""

    source: ClassVar[str] = ""
    """The paper that the part comes from."""
    acronym: ClassVar[str] = ""
    """What the field's papers call it, where they do."""
    cost: ClassVar[str] = ""
    """Of a round: N devices, M subsets, n votes or honest messages with dim numbers each, f of them Byzantine."""

    def __post_init__(self) -> None:
        """Hold types and bounds of the annotations also where the object is made in Python, not from a config."""
        for name, hint in _hints(type(self)).items():
            value = getattr(self, name)
            try:
                msgspec.convert(value.item() if hasattr(value, "item") else value, hint)  # NumPy's numbers are numbers
            except msgspec.ValidationError:
                need = describe_type(hint)
                raise InputError(f"{type(self).__name__}: {name} must be {need}, got {value!r}") from None

    @classmethod
    def name(cls) -> str:
        """The name that a config uses."""
        return str(cls.__struct_config__.tag)

    @classmethod
    def facts(cls) -> list[str]:
        """What ``mpicoded list`` says beside the summary and the fields, a line each."""
        return [f"cost: {cls.cost}"] if cls.cost else []


_Part = TypeVar("_Part", bound="VotesTaker")


class VotesTaker(Component):
    """Base of what works on votes, rules and filters, and may need a certain number of them.

    Those with a field ``byzantine`` are told how many Byzantine votes to tolerate; with "auto" they are a plan only,
    from which ``tolerating`` makes the parts that work.
    """

    @property
    def estimates(self) -> bool:
        """Whether this part, or one in it, is to be told an estimate."""
        if getattr(self, "byzantine", 0) == AUTO:
            return True
        inside = nested(type(self))  # of most parts nothing
        return bool(inside) and any(
            part.estimates for part in (getattr(self, field) for field in inside) if isinstance(part, VotesTaker)
        )

    def tolerating(self: _Part, byzantine: int) -> _Part:
        """The same part with a number in place of "auto"."""
        if not self.estimates:
            return self
        told: dict[str, Any] = {"byzantine": byzantine} if getattr(self, "byzantine", 0) == AUTO else {}
        for field in nested(type(self)):
            part = getattr(self, field)
            if isinstance(part, VotesTaker):
                told[field] = part.tolerating(byzantine)
        return msgspec.structs.replace(self, **told)

    def fewest(self) -> int:
        """The number of votes below which it is undefined."""
        return 1

    def check(self, votes: int) -> None:
        """Raise InputError where there are fewer votes than needed."""
        if self.estimates:
            raise InputError(f"{type(self).__name__}(byzantine='auto') works in a run only: use tolerating(number)")
        if votes < self.fewest():
            fields = ", ".join(f"{field}={getattr(self, field)}" for field in self.__struct_fields__)
            raise InputError(f"{type(self).__name__}({fields}) needs at least {self.fewest()} votes, got {votes}")


@functools.cache
def _hints(cls: type[Component]) -> dict[str, Any]:
    """The annotations of a component's fields."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {name: hints[name] for name in cls.__struct_fields__}


def members(choice: Any) -> dict[str, type[Component]]:
    """The members of a family's ``Choice``, by their config names, in the order of definition."""
    classes = typing.get_args(choice) if isinstance(choice, types.UnionType) else (choice,)
    return {cls.name(): cls for cls in classes}


@functools.cache
def nested(cls: type[Component]) -> dict[str, dict[str, type[Component]]]:
    """The fields of a component that are components themselves, each with the members that it may be."""
    found = {}
    for field, hint in _hints(cls).items():
        options = [arg for arg in typing.get_args(hint) or (hint,) if _is_component(arg)]
        if options:
            found[field] = {option.name(): option for option in options}
    return found


def _is_component(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Component)


def describe_type(hint: Any) -> str:
    """A field's type in a user's words."""
    if _is_component(hint):
        return str(hint.name())
    if typing.get_origin(hint) is Annotated:
        base, meta = typing.get_args(hint)[0], hint.__metadata__[0]
        bounds = [
            f"{sign} {bound:g}"
            for sign, bound in ((">", meta.gt), (">=", meta.ge), ("<", meta.lt), ("<=", meta.le))
            if bound is not None
        ]
        return " ".join([describe_type(base), *bounds])
    if typing.get_origin(hint) is Literal:
        return " | ".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) in (tuple, list):
        return f"list of {describe_type(typing.get_args(hint)[0])}"
    if typing.get_origin(hint) is dict:
        return "table"
    if typing.get_origin(hint) in _UNIONS:
        return " or ".join("unset" if arg is type(None) else describe_type(arg) for arg in typing.get_args(hint))
    return getattr(hint, "__name__", str(hint))
