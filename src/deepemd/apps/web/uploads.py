"""Receive the files that visitors upload: each under a name of its own, and within limits."""

import re
import shutil
import uuid
from asyncio import wait_for
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["PATIENCE", "Limits", "Refused", "Room", "Upload", "receive_files"]

PATIENCE = 60  # seconds without a byte, after which a request is given up


class Refused(Exception):
    """An upload that is not accepted.

    Attributes:
        status: the status code of the response.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """What may be uploaded.

    Attributes:
        file: bytes of one photo.
        model: bytes of a zip, which may be a model.
        files: files at once.
        visitor: bytes of one visitor's files that are waiting; the oldest make room for new ones.
        total: bytes of all files that are waiting.
        reserve: bytes of the disk that are left free.
    """

    file: int
    files: int = 100
    model: int = 2**28
    visitor: int = 2**30
    total: int = 4 * 2**30
    reserve: int = 2**28


@dataclass(frozen=True)
class Upload:
    """An uploaded file.

    Attributes:
        path: where it is, under a random name.
        name: its name on the visitor's machine, without a folder.
        size: its size in bytes.
    """

    path: Path
    name: str
    size: int

    @property
    def token(self) -> str:
        """The random name, by which the browser refers to the file; it does not contain the folder."""
        return self.path.name

    def remove(self) -> None:
        """Remove the file, if it is still there."""
        self.path.unlink(missing_ok=True)


@dataclass
class Room:
    """Count the bytes on the disk and of a visitor, and say when there are too many.

    Attributes:
        folder: where the files are.
        limits: the limits.
        used: bytes of all files in the folder.
    """

    folder: Path
    limits: Limits
    used: int = 0
    _unchecked: int = field(default=0, repr=False)

    def take(self, size: int) -> None:
        """Count bytes that are about to be written.

        Raises:
            Refused: there is no room for them.
        """
        self._unchecked -= size
        if self._unchecked <= 0:
            self._unchecked = 2**23
            if shutil.disk_usage(self.folder).free < self.limits.reserve:
                raise Refused(507, "The disk of the computer that runs this page is full: try again later")
        if self.used + size > self.limits.total:
            raise Refused(507, "There are too many photos of other visitors at the moment: try again later")
        self.used += size

    def give(self, size: int) -> None:
        """Count bytes that were removed."""
        self.used -= size


async def receive_files(
    headers: Mapping[str, str],
    receive: Callable[[], Awaitable[Any]],
    room: Room,
    progress: Callable[[str, int], None] = lambda _name, _size: None,
) -> list[Upload]:
    """Write the files of a request of type multipart/form-data as they arrive; if it fails, none is left.

    Args:
        headers: the headers of the request, in lower case.
        receive: returns the next message of the request, as in ASGI.
        room: counts the bytes, and has the limits.
        progress: called with a file's name and the size of each piece.

    Raises:
        Refused: something is too large or too many, the request is not well formed, or it was broken off.
    """
    from python_multipart import MultipartParser
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import parse_options_header

    kind, options = parse_options_header(headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Refused(400, "Not an upload of files")
    parts = _Parts(room, progress)
    callbacks: Any = {name: getattr(parts, name) for name in _Parts.CALLBACKS}
    try:
        parser = MultipartParser(options[b"boundary"], callbacks)
        more = True
        while more:
            message = await wait_for(receive(), PATIENCE)
            if message["type"] != "http.request":
                raise Refused(400, "The upload was broken off")
            parser.write(message.get("body", b""))
            more = message.get("more_body", False)
        parser.finalize()
        return parts.finished()
    except TimeoutError as error:
        raise Refused(408, "The upload took too long: try again") from error
    except FormParserError as error:
        raise Refused(400, "The upload is not well formed: try again") from error
    except OSError as error:
        raise Refused(507, f"The photos cannot be stored ({error.strerror}): try again later") from error
    finally:
        parts.close()


class _Parts:
    """The parts of one upload, written to disk as the parser reports them."""

    CALLBACKS: tuple[str, ...] = (
        *("on_part_begin", "on_header_field", "on_header_value", "on_header_end", "on_headers_finished"),
        *("on_part_data", "on_part_end", "on_end"),
    )

    def __init__(self, room: Room, progress: Callable[[str, int], None]) -> None:
        self.room, self.progress = room, progress
        self.uploads: list[Upload] = []
        self.file: BinaryIO | None = None
        self.path, self.name, self.size = Path(), "", 0
        self.header, self.value, self.disposition = b"", b"", b""
        self.complete = False

    def on_part_begin(self) -> None:
        self.header = self.value = self.disposition = b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.header = self._short(self.header + data[start:end])

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self.value = self._short(self.value + data[start:end])

    def on_header_end(self) -> None:
        if self.header.lower() == b"content-disposition":
            self.disposition = self.value
        self.header = self.value = b""

    def on_headers_finished(self) -> None:
        from python_multipart.multipart import parse_options_header

        options = parse_options_header(self.disposition)[1]
        if b"filename" not in options:
            raise Refused(400, "Not an upload of files")
        most = self.room.limits.files
        if len(self.uploads) == most:
            raise Refused(413, f"Too many photos: at most {most} at once")
        self.name, self.size = _base_name(options[b"filename"].decode("utf-8", "replace")), 0
        self.path = self.room.folder / uuid.uuid4().hex
        self.file = self.path.open("xb")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self.file is None:
            raise Refused(400, "Not an upload of files")
        limits = self.room.limits
        most = limits.model if self.name.lower().endswith(".zip") else limits.file
        if self.size + end - start > most:
            raise Refused(413, f"{self.name}: at most {most / 2**20:g} MB can be uploaded: make it smaller")
        self.room.take(end - start)
        self.size += end - start
        self.file.write(data[start:end])
        self.progress(self.name, end - start)

    def on_part_end(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None
            self.uploads.append(Upload(self.path, self.name, self.size))

    def on_end(self) -> None:
        self.complete = True

    def finished(self) -> list[Upload]:
        """Return the files; from now on they are the caller's.

        Raises:
            Refused: the request ended too early.
        """
        if not self.complete:
            raise Refused(400, "The upload was broken off")
        uploads, self.uploads = self.uploads, []
        return uploads

    def close(self) -> None:
        """Remove the files that are not the caller's."""
        if self.file is not None:
            self.file.close()
            self.uploads.append(Upload(self.path, self.name, self.size))
        for upload in self.uploads:
            upload.remove()
            self.room.give(upload.size)

    @staticmethod
    def _short(text: bytes) -> bytes:
        if len(text) > 8192:
            raise Refused(400, "The name of a file is too long: rename it")
        return text


def _base_name(name: str) -> str:
    """Return the name of a file without folders and control characters, at most 200 characters."""
    name = "".join(c for c in re.split(r"[/\\]", name)[-1] if c.isprintable()).strip()
    return name[-200:] or "photo"
