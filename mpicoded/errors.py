"""The exceptions that users meet, and what their texts are made of."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class InputError(ValueError):
    """Something the user gave cannot work: a config, a file, a combination.

    Its text is one line that names the part, the need and the value. The command line prints it without a
    traceback and exits with code 2, on all ranks.
    """


class RunError(RuntimeError):
    """A run cannot go on, for a reason that is no fault of the program. Its text is one line."""


_MOST = 900  # letters of a line: ranks exchange texts of 1024 bytes


def one_line(error: BaseException) -> str:
    """Another exception's text on one line, cut where it is very long; its type where it has none."""
    return shortened(" ".join(str(error).split()), _MOST) or type(error).__name__


def quoted(value: Any) -> str:
    """A value of the user's in a message."""
    try:
        return shortened(repr(value), 200)
    except (ValueError, RecursionError):  # Python writes no number of thousands of digits
        return f"a {type(value).__name__} that is too long to write"


def shortened(text: str, most: int) -> str:
    """At most so many letters of a text."""
    return text if len(text) <= most else f"{text[:most]}…"


def printable(text: str) -> str:
    """Lines of text without what a terminal takes for a command: texts of files are not trusted."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)


@contextmanager
def understood(what: str) -> Iterator[None]:
    """What content that nobody checked makes code raise becomes an InputError: ``what, damaged or …: reason``.

    What it makes libraries warn of (numbers that are NaN, signs that a font lacks) is of no use to users.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else one_line(error)
        raise InputError(f"{what}, damaged or of another version: {reason}") from None
