"""The one exception for input that the user can mend."""

__all__ = ["InputError"]


class InputError(ValueError):
    """Bad input: the message names the file or argument, what was found, and what to do.

    It is a ``ValueError``, so library users catch what they expect; the command line prints it in one
    line, without a traceback, and exits with 2.
    """
