"""Handle SIGTERM and Ctrl-C during a run: stop it after the current step."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopSignals"]

_STOPPING = "stopping after this step; press Ctrl-C again to stop now and lose the steps since the last checkpoint"


class StopSignals:
    """Records SIGTERM and Ctrl-C; a second Ctrl-C raises KeyboardInterrupt.

    Attributes:
        received: number of the signal that was received; None before any.

    Args:
        notify: function that prints a message to the user.
    """

    def __init__(self, notify: Callable[[str], None]) -> None:
        self.received: int | None = None
        self._notify = notify

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals until the block ends, then restore the handlers that were set before."""
        if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
            yield
            return
        earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self.listen()
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def listen(self) -> None:
        """Set the handlers; call it again after a library has replaced them."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._receive)
            signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
        self._notify(_STOPPING)
