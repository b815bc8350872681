"""The one exception that users meet."""


class InputError(ValueError):
    """Something the user gave cannot work: a config, a file, a combination.

    Its text is one line that names the part, the need and the value. The command line prints it without a
    traceback and exits with code 2, on all ranks.
    """


def one_line(error: BaseException) -> str:
    """Another exception's text on one line; its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
