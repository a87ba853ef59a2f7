"""What a person at the keyboard, and not a programmer, should read."""

import unicodedata
from pathlib import Path

__all__ = ["InputError", "Interrupted", "ProcessLost", "printable"]

# Right-to-left marks and overrides: with them a name can pretend to have another ending.
_TURNS = {*map(chr, (0x061C, 0x200E, 0x200F)), *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}


class InputError(ValueError):
    """Bad input: the message names the file or argument, what was found, and what to do.

    It is a ``ValueError``, so library users catch what they expect; the command line prints it in one
    line, without a traceback, and exits with 2.
    """


class Interrupted(Exception):
    """SIGTERM or Ctrl-C came; the step was finished and everything is on the disk.

    Attributes:
        signal: number of the signal.
        exit_code: what a shell expects of a process that ends so: 128 + signal.
        out: the run's folder; call again with ``resume=True`` to go on.
        step: steps done, of ``steps``.
    """

    def __init__(self, signal: int, out: Path, step: int, steps: int) -> None:
        super().__init__(
            f"interrupted after step {step} of {steps}; everything is kept in {out}: run the same command with --resume"
            " to go on"
        )
        self.signal = int(signal)
        self.exit_code = 128 + int(signal)
        self.out = out
        self.step = step
        self.steps = steps


class ProcessLost(Exception):
    """Another process of a command died, so that this one cannot go on either.

    Attributes:
        exit_code: 75, which means that trying again may help (EX_TEMPFAIL).
    """

    exit_code = 75

    def __init__(self, rank: int, count: int) -> None:
        super().__init__(
            f"process {rank} of {count} ends, because another one died or cannot be reached (its output may say why):"
            " run the command again; with --resume, a training run goes on from its last checkpoint"
        )


def printable(text: object, *, keep: str = "") -> str:
    r"""A name as it may be shown on a terminal, a page or a sheet: what would act there is written out as its code.

    That is control characters (a file name may hold the codes that move a terminal's cursor), line breaks, marks that
    turn the direction of writing, and bytes of a file name that are no text. All letters and signs of all languages
    stay.

    Args:
        text: a name, or what has one, such as a path.
        keep: characters to leave as they are, such as the line breaks of a message.

    >>> printable("für\x1b[2J\u202egpj.exe")
    'für\\x1b[2J\\u202egpj.exe'
    """
    return "".join(_code(c) if c not in keep and _acts(c) else c for c in str(text))


def _acts(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _TURNS


def _code(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte of a file name that is no text, as Python holds it
        return f"\\x{number - 0xDC00:02x}"
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
