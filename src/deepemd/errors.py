"""Errors whose messages are written for the user, and :func:`printable`, which makes names safe to print."""

import unicodedata
from pathlib import Path

__all__ = ["InputError", "Interrupted", "ProcessLost", "printable"]

# Right-to-left marks and overrides can make a name seem to have another ending.
_TURNS = {*map(chr, (0x061C, 0x200E, 0x200F)), *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}


class InputError(ValueError):
    """Bad input: the message names the file or argument, what was found, and what to do.

    It is a ``ValueError``, as users of the library expect. The command line prints the message without a traceback and
    exits with code 2.
    """


class Interrupted(Exception):
    """A training run was interrupted by SIGTERM or Ctrl-C, after it had finished a step and saved everything.

    Attributes:
        signal: number of the signal.
        exit_code: 128 + signal, the code that shells expect of an interrupted process.
        out: folder of the run; ``resume=True`` continues it.
        step: number of finished steps, out of ``steps``.
    """

    def __init__(self, signal: int, out: Path, step: int, steps: int) -> None:
        super().__init__(
            f"interrupted after step {step} of {steps}; the run is saved in {out}: run the same command with --resume"
            " to continue"
        )
        self.signal = int(signal)
        self.exit_code = 128 + int(signal)
        self.out = out
        self.step = step
        self.steps = steps


class ProcessLost(Exception):
    """Another process of a command died, so this one cannot continue either.

    Attributes:
        exit_code: 75 (EX_TEMPFAIL), which means that trying again may help.
    """

    exit_code = 75

    def __init__(self, rank: int, count: int) -> None:
        super().__init__(
            f"process {rank} of {count} ends, because another one died or cannot be reached (its output may say why):"
            " run the command again; with --resume, a training run continues from its last checkpoint"
        )


def printable(text: object, *, allow: str = "") -> str:
    r"""Make a name safe to show on a terminal, a page or a sheet: replace control characters by their codes.

    Line breaks, marks that change the direction of writing, and bytes of a file name that are not text are replaced
    too. Letters and signs of all languages stay.

    Args:
        text: a name, or an object that converts to one, such as a path.
        allow: characters that are not replaced, such as the line breaks of a message.

    >>> printable("für\x1b[2J\u202egpj.exe")
    'für\\x1b[2J\\u202egpj.exe'
    """
    return "".join(_code(c) if c not in allow and _acts(c) else c for c in str(text))


def _acts(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _TURNS


def _code(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # how Python represents a byte of a file name that is not text
        return f"\\x{number - 0xDC00:02x}"
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
