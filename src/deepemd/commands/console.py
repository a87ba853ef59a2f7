"""Where commands print their tables."""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console"]

_WIDE = 400  # columns; a table takes what it needs


def console() -> "Console":
    """The terminal; where the output goes to a file or another program, nothing is folded or cut to a terminal's width.

    $COLUMNS sets the width of both.
    """
    from rich.console import Console

    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else _WIDE
    return Console(width=width, highlight=False, soft_wrap=True, markup=False)
