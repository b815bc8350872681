"""``mpicoded merge``: many results in one file."""

import os
from collections.abc import Sequence

from mpicoded.data.merged import is_merged, merge
from mpicoded.errors import InputError


def run(paths: Sequence[str], target: str) -> int:
    """Write them to one file, and say which groups it has."""
    if os.path.exists(target) and not is_merged(target):
        raise InputError(f"output {target} exists and is not a file of merged results: it is left as it is")
    try:
        merged = merge(paths, target)
    except OSError as error:
        raise InputError(f"output {target} cannot be written: {error.strerror}") from None
    for path in merged.repeated:
        print(f"{path}: the same experiment, with the same numbers, is there already")
    print(f"{target}: {len(merged.names)} results: {', '.join(merged.names)}")
    return 0
