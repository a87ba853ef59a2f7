"""The console on which commands print their tables."""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console"]

_WIDE = 400  # columns, wider than any table


def console() -> "Console":
    """Return a console of the terminal's width; output to a file or another program is not wrapped or cut.

    $COLUMNS sets the width of either.
    """
    from rich.console import Console

    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else _WIDE
    return Console(width=width, highlight=False, soft_wrap=True, markup=False)
