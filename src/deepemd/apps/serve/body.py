"""Read the photos of a request, as they arrive and within limits: one raw image, or the files of a form."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from deepemd.apps.serve.limits import Lease, Limits, Refused
from deepemd.errors import printable

__all__ = ["Photo", "Receive", "read_photos"]

Receive = Callable[[], Awaitable[Any]]

_MAX_HEADER = 2048  # bytes of a header of a part
_HOW = "Send a photo as the body with the header Content-Type: image/jpeg, or one or several as files of a form"
_FORM = "The form is not well formed, or was cut off: send it again, best with a library that makes forms"


@dataclass
class Photo:
    """A photo of a request.

    Attributes:
        name: its file name, without folders; "photo" if it has none.
        content: its bytes, empty where it was refused.
        error: why it was refused, or None.
        pixels: the number of pixels to decode, once it is known.
    """

    name: str
    content: bytes = b""
    error: Refused | None = None
    pixels: int = 0


async def read_photos(headers: Mapping[str, str], receive: Receive, limits: Limits, lease: Lease) -> list[Photo]:
    """Read the body of a request; never more than the limits allow.

    Args:
        headers: headers of the request, with lower-case names.
        receive: returns the next message of the request, as in ASGI.
        limits: the limits.
        lease: counts the bytes that are held.

    Returns:
        The photos in their order. One that is too large, or empty, has an error instead of its content.

    Raises:
        Refused: the request as a whole is too large, too slow, cut off, of another type, or without a photo.
    """
    kind, boundary = _content_type(headers)
    multipart = kind == "multipart/form-data"
    most = limits.request_bytes if multipart else limits.photo_bytes
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise _too_large(int(length), most)
    try:
        async with asyncio.timeout(limits.seconds):
            chunks = _chunks(receive, most, lease)
            photos = await (_form(chunks, boundary, limits, lease) if multipart else _raw(chunks))
    except TimeoutError as error:
        raise Refused(
            408, f"The request took longer than {limits.seconds:g} seconds to arrive: send smaller photos"
        ) from error
    for photo in photos:
        if not photo.content and photo.error is None:
            photo.error = Refused(422, f"{photo.name}: an empty file: send a photo")
    return photos


def _content_type(headers: Mapping[str, str]) -> tuple[str, bytes]:
    """Return the type of the body, and the boundary of a form.

    Raises:
        Refused: the type is neither an image nor a form, or the body is compressed.
    """
    from python_multipart.multipart import parse_options_header

    if headers.get("content-encoding", "identity").lower() not in ("identity", ""):
        raise Refused(415, "The body is compressed: send it without Content-Encoding")
    given = headers.get("content-type", "")
    parsed, options = parse_options_header(given)
    kind, boundary = parsed.decode("latin-1").strip().lower(), options.get(b"boundary", b"")
    if kind == "multipart/form-data" and boundary:
        return kind, boundary
    if kind.startswith("image/") or kind in ("", "application/octet-stream"):
        return kind, b""
    hint = ""
    if kind == "application/x-www-form-urlencoded":  # what curl says of --data-binary
        hint = ". With curl: -F photo=@FILE, or -H 'Content-Type: image/jpeg' --data-binary @FILE"
    raise Refused(415, f"The content type is '{printable(given)[:100]}', which holds no photo. {_HOW}{hint}")


async def _chunks(receive: Receive, most: int, lease: Lease) -> AsyncIterator[bytes]:
    """Yield the body piece by piece; every piece is counted."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise Refused(400, "The request was cut off")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > most:
            raise _too_large(size, most)
        lease.take(len(chunk))
        yield chunk
        more = message.get("more_body", False)


async def _raw(chunks: AsyncIterator[bytes]) -> list[Photo]:
    content = b"".join([chunk async for chunk in chunks])
    if not content:
        raise Refused(400, f"The request is empty. {_HOW}")
    return [Photo("photo", content)]


async def _form(chunks: AsyncIterator[bytes], boundary: bytes, limits: Limits, lease: Lease) -> list[Photo]:
    from python_multipart import MultipartParser
    from python_multipart.exceptions import FormParserError

    parts = _Parts(limits, lease)
    callbacks: Any = {name: getattr(parts, name) for name in _Parts.CALLBACKS}
    try:
        parser = MultipartParser(boundary, callbacks)
        async for chunk in chunks:
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise Refused(400, _FORM) from error
    if not parts.complete:
        raise Refused(400, _FORM)
    if not parts.photos:
        raise Refused(400, f"The form has no file. {_HOW}")
    return parts.photos


class _Parts:
    """The files of one form, as the parser reports them."""

    CALLBACKS: tuple[str, ...] = (
        *("on_part_begin", "on_header_field", "on_header_value", "on_header_end", "on_headers_finished"),
        *("on_part_data", "on_part_end", "on_end"),
    )

    def __init__(self, limits: Limits, lease: Lease) -> None:
        self.limits, self.lease = limits, lease
        self.photos: list[Photo] = []
        self.complete = False
        self.pieces: list[bytes] = []
        self.size = 0
        self.header, self.value, self.disposition = b"", b"", b""

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
            field = printable(options.get(b"name", b"?").decode("utf-8", "replace"))[:100]
            raise Refused(400, f"The field '{field}' holds text, not a file. With curl: -F photo=@FILE, with the @")
        if len(self.photos) == self.limits.photos:
            raise Refused(413, f"Too many photos: at most {self.limits.photos} in one request. Send several requests")
        self.photos.append(Photo(_base_name(options[b"filename"].decode("utf-8", "replace"))))
        self.pieces, self.size = [], 0

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        photo = self.photos[-1]
        self.size += end - start
        if photo.error is None and self.size <= self.limits.photo_bytes:
            self.pieces.append(data[start:end])
            return
        if photo.error is None:
            self.lease.take(-sum(map(len, self.pieces)))
            self.pieces = []
            reason = f"{photo.name}: more than {self.limits.megabytes:.4g} MB: make the photo smaller"
            photo.error = Refused(413, reason)
        self.lease.take(start - end)  # it is not held

    def on_part_end(self) -> None:
        if self.photos[-1].error is None:
            self.photos[-1].content = b"".join(self.pieces)
        self.pieces = []

    def on_end(self) -> None:
        self.complete = True

    @staticmethod
    def _short(text: bytes) -> bytes:
        if len(text) > _MAX_HEADER:
            raise Refused(400, "The name of a file is too long: shorten it")
        return text


def _too_large(size: int, most: int) -> Refused:
    found, limit = f"{size / 2**20:,.1f} MB or more", f"at most {most / 2**20:.4g} MB are read"
    return Refused(413, f"The request has {found}, {limit}: make the photos smaller or send fewer at a time")


def _base_name(name: str) -> str:
    """Return the name of a file without folders, at most 200 characters, safe to show."""
    return printable(re.split(r"[/\\]", name)[-1].strip())[-200:] or "photo"
