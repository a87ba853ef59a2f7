"""What one request may ask for, and how much memory all requests may hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from deepemd.checks import real_number, whole_number

__all__ = ["Lease", "Limits", "Memory", "Refused"]

_PILLOW_MEGAPIXELS = 89.4  # more are never decoded
_MIN_MEMORY = 2**29  # bytes
_WORDS = 65536  # bytes of a multipart body besides its photos, for each photo


class Refused(Exception):
    """A request, or one of its photos, that is not accepted.

    Attributes:
        status: the status code of the response.
        headers: further headers of the response.
    """

    def __init__(self, status: int, reason: str, **headers: str) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass(frozen=True)
class Limits:
    """The limits of the server.

    Attributes:
        megabytes: size of one photo, in MB of 2**20 bytes.
        megapixels: pixels of one photo, in millions.
        photos: photos in one request.
        waiting: requests that wait for the model at a time.
        seconds: time in which a request must arrive.
        requests: requests that are answered at a time, those that are still arriving included.
    """

    megabytes: float = 20
    megapixels: float = 64
    photos: int = 32
    waiting: int = 200
    seconds: float = 60
    requests: int = 500

    def __post_init__(self) -> None:
        real_number("max_megabytes", self.megabytes, 0, 1024, above=True, hint="20 is the default")
        hint = "64 is the default, and an image has at most 89"
        real_number("max_megapixels", self.megapixels, 0, _PILLOW_MEGAPIXELS, above=True, hint=hint)
        whole_number("max_photos", self.photos, hint="32 is the default")
        whole_number("max_waiting", self.waiting, hint="200 is the default")
        real_number("timeout", self.seconds, 0, above=True, hint="60 seconds is the default")

    @property
    def photo_bytes(self) -> int:
        """Bytes of one photo."""
        return int(self.megabytes * 2**20)

    @property
    def request_bytes(self) -> int:
        """Bytes of one request."""
        return min(self.photos * (self.photo_bytes + _WORDS), self.memory_bytes)

    @property
    def memory_bytes(self) -> int:
        """Bytes of all requests that have arrived and are not answered yet."""
        return max(_MIN_MEMORY, 4 * self.photo_bytes)

    @property
    def pixels(self) -> int:
        """Pixels of one photo."""
        return int(self.megapixels * 1e6)


class Memory:
    """Counts the bytes that requests hold, and refuses more than there is room for.

    Args:
        room: bytes of all requests together.

    >>> memory = Memory(room=100)
    >>> with memory.lease() as lease:
    ...     lease.take(60)
    ...     memory.used
    60
    >>> memory.used
    0
    """

    def __init__(self, room: int) -> None:
        self.room, self.used = room, 0

    @contextmanager
    def lease(self) -> "Iterator[Lease]":
        """Yield what counts the bytes of one request; at the end of the block they are free again."""
        lease = Lease(self)
        try:
            yield lease
        finally:
            lease.take(-lease.size)


class Lease:
    """The bytes that one request holds."""

    def __init__(self, memory: Memory) -> None:
        self.memory, self.size = memory, 0

    def take(self, size: int) -> None:
        """Count bytes that have arrived, or free some if `size` is negative.

        Raises:
            Refused: the server holds too many bytes of all requests.
        """
        if size > 0 and self.memory.used + size > self.memory.room:
            raise Refused(503, "The server is busy: too many photos arrive at once. Try again", retry_after="2")
        self.size += size
        self.memory.used += size
