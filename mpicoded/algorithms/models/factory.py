"""Code of the user's own, that a config names."""

import hashlib
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpicoded.errors import InputError, one_line


def factory(named: str, folder: str | None) -> tuple[Callable[..., Any], str]:
    """What ``package.module:factory`` names, and a checksum of the module's file. Raises InputError.

    The module is looked for in ``folder`` first, and may import others from there.
    """
    name, _, attribute = named.partition(":")
    if folder is not None and folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(name)
    except Exception as error:  # foreign code
        raise InputError(f"model torch: {name} cannot be imported: {type(error).__name__}: {one_line(error)}") from None
    place = Path(getattr(module, "__file__", None) or "").resolve()
    if folder is not None and not place.is_relative_to(Path(folder).resolve()):
        raise InputError(f"model torch: {name} is {place}, not one of {folder}: give the file there another name")
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise InputError(f"model torch: {place} has nothing to call that is named {attribute}")
    return found, hashlib.sha256(place.read_bytes()).hexdigest() if place.is_file() else ""
