"""The console on which commands print their tables."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console"]


def console() -> "Console":
    """Return a console of the terminal's width; output to a file or another program is not wrapped or cut."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, markup=False)
