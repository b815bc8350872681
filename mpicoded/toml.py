"""TOML texts that nobody vouches for."""

import tomllib
from typing import Any

MOST = 1 << 18  # letters; a config has a thousand
_MOST_DOTS = 1000  # in a line: the time of Python's parser grows with the square of the parts of a key


def parse(text: str) -> dict[str, Any]:
    """The tree of a TOML text. Raises ValueError, and soon, for whatever is wrong with it."""
    if len(text) > MOST:
        raise ValueError(f"it has more than {MOST} letters")
    if any(line.count(".") > _MOST_DOTS for line in text.splitlines()):
        raise ValueError("it is nested too deeply")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
