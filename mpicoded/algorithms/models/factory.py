"""Code of the user's own, that a config names."""

import hashlib
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from mpicoded.errors import InputError, one_line

_OWN = "mpicoded.networks"
_loaded: dict[str, str] = {}  # packages that came from a folder, and which


def factory(named: str, folder: str | None) -> tuple[Callable[..., Any], str]:
    """What ``package.module:factory`` names, and a checksum of the module's file. Raises InputError.

    The module is looked for in ``folder`` first, and may import others from there.
    """
    name, _, attribute = named.partition(":")
    package = name.partition(".")[0]
    if package == "mpicoded" and name != _OWN:
        raise InputError(f"model torch: of mpicoded itself only {_OWN} has factories, got {named}")
    if folder is not None:
        if _loaded.get(package, folder) != folder:  # another config's, of the same name
            for other in [each for each in sys.modules if each.partition(".")[0] == package]:
                del sys.modules[other]
        sys.path[:] = [folder, *(path for path in sys.path if path != folder)]
    try:
        module = importlib.import_module(name)
    except Exception as error:  # foreign code
        raise InputError(f"model torch: {name} cannot be imported: {type(error).__name__}: {one_line(error)}") from None
    place = Path(os.path.abspath(getattr(module, "__file__", None) or ""))
    if folder is not None:
        if not any(path.is_relative_to(os.path.abspath(folder)) for path in (place, place.resolve())):
            raise InputError(f"model torch: {name} is {place}, not one of {folder}: give the file there another name")
        _loaded[package] = folder
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
        if isinstance(found, ModuleType):  # whoever is asked to trust a module is not to be told another's name
            raise InputError(f"model torch: {named} is in {found.__name__}: name that module")
    if not callable(found):
        raise InputError(f"model torch: {place} has nothing to call that is named {attribute}")
    return found, hashlib.sha256(place.read_bytes()).hexdigest() if place.is_file() else ""
