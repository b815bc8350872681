"""The one exception that users meet."""


class InputError(ValueError):
    """Something the user gave cannot work: a config, a file, a combination.

    Its text is one line that names the part, the need and the value. The command line prints it without a
    traceback and exits with code 2, on all ranks.
    """
