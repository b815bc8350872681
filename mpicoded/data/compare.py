"""What differs between experiments: labels for tables and plots."""

from collections.abc import Sequence
from typing import Any

from mpicoded.data.results import Results

_UNINTERESTING = ("evaluate_every",)


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


def differences(results: Sequence[Results]) -> list[dict[str, str]]:
    """For each result the settings that are not the same in all of them, by key."""
    flats = [flatten(result.experiment) for result in results]
    keys = list(dict.fromkeys(key for flat in flats for key in flat))
    differing = [
        key for key in keys if key not in _UNINTERESTING and any(flat.get(key) != flats[0].get(key) for flat in flats)
    ]
    return [{key: str(flat[key]) if key in flat else "–" for key in differing} for flat in flats]


def labels(results: Sequence[Results]) -> list[str]:
    """A short label for each result: component names first; the file's name where settings do not tell them apart."""
    found = []
    for settings in differences(results):
        parts = []
        for key, value in sorted(settings.items(), key=lambda item: not item[0].endswith(".name")):
            family, _, field = key.rpartition(".")
            if value != "–":
                parts.append(value if field == "name" else f"{field} {value}")
            elif field == "name" and family.startswith("filters"):
                parts.append("no filter")
        found.append(", ".join(parts))
    return [
        label if label and found.count(label) == 1 else " ".join(filter(None, [label, f"({result.path})"]))
        for label, result in zip(found, results, strict=True)
    ]
