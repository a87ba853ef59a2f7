"""The photos of a request: deepemd.apps.serve.body."""

import asyncio

import pytest
from endpoint import form

from deepemd.apps.serve.body import read_photos
from deepemd.apps.serve.limits import Limits, Memory, Refused

LIMITS = Limits(megabytes=0.01, photos=3, seconds=5)  # 10,485 bytes of a photo
RAW = {"content-type": "image/jpeg"}


def read(
    body: bytes, headers: dict[str, str], *, step: int = 7, limits: Limits = LIMITS, cut: bool = False, room=10**6
):
    """Read a body that arrives in pieces; also return the memory, and the number of bytes that were asked for."""
    memory, taken = Memory(room), [0]

    async def receive():
        at = taken[0]
        if cut and at >= len(body) // 2:
            return {"type": "http.disconnect"}
        piece = body[at : at + step]
        taken[0] += len(piece)
        return {"type": "http.request", "body": piece, "more_body": taken[0] < len(body)}

    async def run():
        with memory.lease() as lease:
            photos = await read_photos({name.lower(): value for name, value in headers.items()}, receive, limits, lease)
            assert memory.used == lease.size <= len(body)
            return photos

    try:
        return asyncio.run(run()), taken[0]
    finally:
        assert memory.used == 0


def refused(status: int, message: str, *arguments, **options) -> None:
    with pytest.raises(Refused, match=message) as found:
        read(*arguments, **options)
    assert found.value.status == status


@pytest.mark.parametrize(
    "headers", [RAW, {"content-type": "IMAGE/png; q=1"}, {}, {"content-type": "application/octet-stream"}]
)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_one_photo_as_the_body(headers, step):
    (photo,), _ = read(b"photo" * 100, headers, step=step)
    assert (photo.name, photo.content, photo.error) == ("photo", b"photo" * 100, None)


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_files_of_a_form_in_their_order(step):
    body, headers = form(("a.jpg", b"first\r\n--"), ("C:\\photos\\ü.jpg", b"\r\n\r\n"), ("../../x", bytes(range(256))))
    photos, _ = read(body, headers, step=step)
    assert [(one.name, one.content) for one in photos] == [
        ("a.jpg", b"first\r\n--"), ("ü.jpg", b"\r\n\r\n"), ("x", bytes(range(256))),
    ]  # fmt: skip


def test_names_are_short_and_show_no_control_characters():
    photos, _ = read(*form(("\x1b[2J\u202egpj.exe", b"1"), ("n" * 300 + ".jpg", b"2"), ("", b"3")))
    assert [one.name for one in photos] == ["\\x1b[2J\\u202egpj.exe", "n" * 196 + ".jpg", "photo"]


def test_a_file_that_is_too_large_or_empty_leaves_the_others():
    photos, _ = read(*form(("a.jpg", b"a"), ("large.jpg", bytes(20_000)), ("empty.jpg", b"")), step=1000)
    assert photos[0].content == b"a"
    assert [one.error and one.error.status for one in photos] == [None, 413, 422]
    assert str(photos[1].error) == "large.jpg: more than 0.01 MB: make the photo smaller"
    assert photos[1].content == b""


def test_no_more_than_the_limit_is_read():
    for headers in (RAW, {**RAW, "transfer-encoding": "chunked"}):
        with pytest.raises(Refused, match=r"at most 0\.009999 MB are read") as found:
            read(bytes(10**6), headers, step=100)
        assert found.value.status == 413
    refused(413, "200.0 MB or more", b"unread", {**RAW, "content-length": str(200 * 2**20)})
    refused(413, "Too many photos: at most 3", *form(*[("a.jpg", b"a")] * 4))


def test_memory_of_all_requests_is_limited():
    refused(503, "busy", bytes(5000), RAW, room=4000)


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b"", RAW, 400, "The request is empty. Send a photo as the body"),
        (b"{}", {"content-type": "application/json"}, 415, "'application/json', which holds no photo"),
        (b"a", {"content-type": "application/x-www-form-urlencoded"}, 415, "With curl: -F photo=@FILE, or -H"),
        (b"a", {"content-type": "multipart/form-data"}, 415, "holds no photo"),
        (b"a", {"content-type": "text/html\x1b[2J"}, 415, r"text/html\\x1b"),
        (b"a", {**RAW, "content-encoding": "gzip"}, 415, "compressed: send it without Content-Encoding"),
        (b"no form", {"content-type": "multipart/form-data; boundary=x"}, 400, "not well formed"),
        (form(("a.jpg", b"abc"))[0][:-20], form()[1], 400, "not well formed, or was cut off"),
        (b"--x--\r\n", form()[1], 400, "form"),
        (b'--x\r\nContent-Disposition: form-data; name="photo"\r\n\r\n1.jpg\r\n--x--\r\n', form()[1], 400,
         "field 'photo' holds text, not a file. With curl: -F photo=@FILE"),
        (form(("n" * 3000, b"a"))[0], form()[1], 400, "name of a file is too long"),
    ],
)  # fmt: skip
def test_what_is_refused(body, headers, status, message):
    refused(status, message, body, headers)


def test_a_request_that_is_cut_off():
    refused(400, "cut off", bytes(1000), RAW, cut=True)
    refused(400, "cut off", *form(("a.jpg", bytes(1000))), cut=True)


def test_a_request_that_takes_too_long():
    async def receive():
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def run():
        with Memory(100).lease() as lease:
            await read_photos(RAW, receive, Limits(seconds=0.1), lease)

    with pytest.raises(Refused, match=r"took longer than 0\.1 seconds") as found:
        asyncio.run(run())
    assert found.value.status == 408
