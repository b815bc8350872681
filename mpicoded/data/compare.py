"""What differs between experiments, and which are the same but for the seed: for tables and figures."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from mpicoded.data.naming import experiment_hash
from mpicoded.data.results import Results

_UNINTERESTING = ("evaluate_every",)
_ABSENT = "–"
SEED, DATA = "seed", "data.path"


class Group(NamedTuple):
    """Results of one experiment with different seeds."""

    label: str
    settings: dict[str, str]  # those that tell it from other groups
    results: list[Results]


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """``{"attack": {"name": "ipm"}}`` → ``{"attack.name": "ipm"}``; lists of tables count from 0."""
    items = enumerate(tree) if isinstance(tree, list) else tree.items()
    flat: dict[str, Any] = {}
    for key, value in items:
        name = f"{prefix}{key}"
        if isinstance(value, dict) or (isinstance(value, list) and value):
            flat |= flatten(value, f"{name}.")
        elif value != []:
            flat[name] = value
    return flat


def differences(results: Sequence[Results], ignored: Collection[str] = ()) -> list[dict[str, str]]:
    """For each result the settings that are not the same in all of them, by key."""
    flats = [flatten(result.experiment) for result in results]
    keys = list(dict.fromkeys(key for flat in flats for key in flat))
    differing = [
        key
        for key in keys
        if key not in _UNINTERESTING
        and key not in ignored
        and any(flat.get(key) != flats[0].get(key) for flat in flats)
    ]
    return [{key: str(flat[key]) if key in flat else _ABSENT for key in differing} for flat in flats]


def labels(results: Sequence[Results], ignored: Collection[str] = ()) -> list[str]:
    """A short label for each result: component names first; the file's name where settings do not tell them apart."""
    found = [_label(settings) for settings in telling(differences(results, ignored))]
    return [
        label if label and found.count(label) == 1 else " ".join(filter(None, [label, f"({result.path})"]))
        for label, result in zip(found, results, strict=True)
    ]


def telling(settings: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Of the settings that differ those that tell results apart: not what comes with a component, always the same."""

    def tells(key: str) -> bool:
        return key.endswith("name") or len({one[key] for one in settings} - {_ABSENT}) > 1

    short = [{key: value for key, value in one.items() if tells(key)} for one in settings]
    apart = len({tuple(one.values()) for one in short}) == len({tuple(one.values()) for one in settings})
    return short if apart else list(settings)


def _label(settings: dict[str, str]) -> str:
    parts, without = [], []
    for key, value in sorted(settings.items(), key=lambda item: not item[0].endswith(".name")):
        family, _, field = key.rpartition(".")
        if field == "name" and value in ("none", _ABSENT):
            without.append(f"no {family.partition('.')[0].removesuffix('s')}")
        elif value != _ABSENT:
            parts.append(value if field == "name" else f"{field} {value}")
    return ", ".join(parts or without)


def by_seed(results: Sequence[Results], apart: bool = False) -> list[Group]:
    """Results that are the same but for the seed together; ``apart``: each by itself.

    They stay in the order in which they come; where their files are named by hashes, in that of their settings. Seeds
    may have data of their own: where each of a group has another seed, the data's path may differ as well.
    """
    if apart:
        return _groups([[result] for result in results])
    found: dict[str, list[Results]] = {}
    for result in results:
        found.setdefault(_key(result, (SEED, DATA)), []).append(result)
    parted: list[list[Results]] = []
    for members in found.values():
        if _different_seeds(members):
            parted.append(members)
            continue
        of_data: dict[str, list[Results]] = {}
        for result in members:
            of_data.setdefault(_key(result, (SEED,)), []).append(result)
        for same in of_data.values():
            parted += [same] if _different_seeds(same) else [[one] for one in same]
    return _groups(parted)


def _different_seeds(members: Sequence[Results]) -> bool:
    return len({result.experiment.get(SEED) for result in members}) == len(members)


def _key(result: Results, without: Collection[str]) -> str:
    return str(sorted((key, str(value)) for key, value in flatten(result.experiment).items() if key not in without))


def _groups(parted: Sequence[list[Results]]) -> list[Group]:
    within = [differences(members) for members in parted]
    ignored = [key for key in (SEED, DATA) if any(key in settings[0] for settings in within)]
    first = [members[0] for members in parted]
    told, settings = labels(first, ignored), telling(differences(first, ignored))
    groups = [Group(*one) for one in zip(told, settings, parted, strict=True)]
    hashed = all(experiment_hash(result.toml) in result.path for result in first)
    return sorted(groups, key=_order) if hashed else groups


def _order(group: Group) -> list[tuple[bool, float, str]]:
    """Numbers by size, words by the alphabet; names of components first."""
    found = []
    for key, value in sorted(group.settings.items(), key=lambda item: not item[0].endswith(".name")):
        try:
            found.append((False, float(value), key))
        except ValueError:
            found.append((True, 0.0, value))
    return found
