"""Show a progress bar on standard error."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from deepemd.processes import rank

__all__ = ["track"]

T = TypeVar("T")


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Iterate over items with a progress bar on standard error, shown only on a terminal and only by process 0."""
    from rich.console import Console
    from rich.progress import track as rich_track

    console = Console(stderr=True)
    hidden = not console.is_terminal or rank() > 0
    return iter(rich_track(items, description, total, console=console, transient=True, disable=hidden))
