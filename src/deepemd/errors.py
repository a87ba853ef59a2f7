"""What a person at the keyboard, and not a programmer, should read."""

from pathlib import Path

__all__ = ["InputError", "Interrupted"]


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
