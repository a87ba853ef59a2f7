"""The page in a real browser, from upload to drawn match, with everything that people drop into it.

Tests deepemd.apps.samples, deepemd.apps.web.server.
"""

import base64
import socket
import struct
import sys
import urllib.error
import urllib.request
import zlib
from urllib.parse import urlsplit

import pytest

from deepemd import InputError, cli

pytest.importorskip("gradio", reason="needs gradio: pip install 'deepemd[app]'")

MEGABYTE = 2**20


def test_from_upload_to_drawn_match(visit, server, photos, query):
    person = visit()
    person.add("flower", *photos["flower"])
    person.added("flower")
    person.add("temple", *photos["temple"])
    person.added("temple")
    assert person.classes() == ["flower", "temple"]
    assert person.page.locator(".thumbnails img").count() == 6
    person.drop("queries", query)
    answer = person.page.locator(".answer")
    answer.wait_for()
    assert answer.locator("h3").inner_text().startswith("flower")
    assert answer.locator("th").all_inner_texts() == ["flower", "temple"]
    shares = [float(text.removesuffix(" %")) for text in answer.locator(".share").all_inner_texts()]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert (
        answer.locator(".bar").first.bounding_box()["width"] > 10 * answer.locator(".bar").last.bounding_box()["width"]
    )
    drawn = answer.locator("svg.match")
    assert drawn.bounding_box()["width"] > 300
    assert "flower" in drawn.get_attribute("aria-label")
    assert drawn.locator(".badge").count() == 8  # four pairs of parts, numbered in both photos
    # nothing was fetched from elsewhere, and nothing of the photos is kept on the disk
    assert {urlsplit(url).hostname for url in person.requests if url.startswith(("http", "ws"))} == {"127.0.0.1"}
    assert server.kept() == []
    assert not server.cache.exists()


def test_two_visitors_do_not_see_each_other(visit, photos, query):
    one, other = visit(), visit()
    one.add("flower", *photos["flower"])
    one.added("flower")
    one.add("temple", *photos["temple"])
    one.added("temple")
    other.add("portrait", *photos["portrait"])
    other.added("portrait")
    assert (one.classes(), other.classes()) == (["flower", "temple"], ["portrait"])
    other.drop("queries", query)
    other.says("At least two classes are needed; there is only 'portrait'")
    other.add("flower", *photos["temple"])  # by the same name, what another calls temple
    other.added("flower")
    one.drop("queries", query)
    one.page.locator(".answer").wait_for()
    assert one.page.locator(".answer th").all_inner_texts() == ["flower", "temple"]
    one.page.get_by_role("button", name="Remove flower").click()
    one.page.get_by_text("'flower' was removed.").wait_for()
    one.page.get_by_role("button", name="Remove flower").wait_for(state="detached")
    assert (one.classes(), other.classes()) == (["temple"], ["portrait", "flower"])


def test_a_hostile_name_is_only_text(visit, photos, query):
    person = visit()
    hostile = "<img src=x onerror=hit=1>${hit=2}<script>hit=3</script>"
    person.add(hostile, {**photos["flower"][0], "name": "<img src=x onerror=hit=4>.jpg"})
    person.added(hostile)
    person.add("temple", photos["temple"][0], {**photos["temple"][0], "name": "<img src=x onerror=hit=5>.pdf"})
    person.added("temple")
    person.drop("queries", {**query, "name": "<img src=x onerror=hit=6>.jpg"})
    person.page.locator(".answer").wait_for()
    assert person.classes()[0] == hostile
    assert person.page.locator(".answer h3").inner_text().startswith(hostile)
    assert person.page.locator(".answer tr").first.locator("th").inner_text() == hostile
    person.page.wait_for_timeout(300)  # for an image that cannot be loaded to say so
    assert person.page.evaluate("typeof hit") == "undefined"


def _huge_png() -> bytes:
    """The header of a picture of 200 megapixels, in 70 bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 10_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_what_cannot_be_used_is_told_in_the_page_and_the_rest_goes_on(visit, server, photos, query, tmp_path):
    person = visit()
    person.add("flower")
    person.says("No photos for 'flower'")
    person.add(" ", photos["flower"][0])
    person.says("The class has no name")

    large = tmp_path / "large.jpg"
    good = tmp_path / "good.jpg"
    good.write_bytes(photos["flower"][0]["buffer"])
    with large.open("wb") as file:
        file.truncate(100 * MEGABYTE)
    person.add("flower", large, good)
    person.says("large.jpg: 100.0 MB, at most 20.0 MB can be uploaded")
    person.added("flower")  # the good one

    bad = [
        {"name": "notes.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.4"},
        {"name": "film.jpg", "mimeType": "image/jpeg", "buffer": b"\0\0\0\x18ftypmp42"},
        {"name": "huge.png", "mimeType": "image/png", "buffer": _huge_png()},
        {"name": "cut.jpg", "mimeType": "image/jpeg", "buffer": photos["temple"][0]["buffer"][:3000]},
    ]
    person.add("temple", *bad, photos["temple"][0])
    person.added("temple")
    for text in (
        "notes.pdf: not an image",
        "film.jpg: not an image",
        "huge.png: too many pixels",
        "cut.jpg: truncated or damaged image",
    ):
        person.says(text)
    assert person.page.get_by_role("status").get_by_text("1 photo added to 'temple'.").count() == 1

    person.drop("queries", *bad[:1], query)
    person.says("notes.pdf: not an image")
    person.page.locator(".answer").wait_for()
    assert person.page.locator(".answer h3").inner_text().startswith("flower")
    assert server.kept() == []


def test_too_large_a_drop_is_held_back_as_well(visit, photos):
    person = visit()
    person.page.evaluate(
        """([name, text]) => {
            const files = new DataTransfer();
            files.items.add(new File([new Uint8Array(21 * 2**20)], "large.jpg", { type: "image/jpeg" }));
            const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
            files.items.add(new File([bytes], name, { type: "image/jpeg" }));
            const drop = new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: files });
            document.querySelector("#class-photos button").dispatchEvent(drop);
        }""",
        ["flower.jpg", base64.b64encode(photos["flower"][0]["buffer"]).decode()],
    )
    person.says("large.jpg: 21.0 MB, at most 20.0 MB can be uploaded")
    person.page.locator("#class-photos").get_by_text("flower").first.wait_for()
    person.add("flower")
    person.added("flower")


def _upload(server, size: int) -> int:
    """Send a file without the page. -> the answer's code; 0 where the server hung up before it had all."""
    head = b"--b\r\nContent-Disposition: form-data; name=files; filename=a.jpg\r\nContent-Type: image/jpeg\r\n\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    body = head + b"x" * size + b"\r\n--b--\r\n"
    request = urllib.request.Request(f"{server.address}gradio_api/upload", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code
    except (urllib.error.URLError, ConnectionError):
        return 0


def test_the_server_itself_refuses_what_is_too_large(server):
    assert _upload(server, 21 * MEGABYTE) == 413
    assert server.kept() == []
    assert _upload(server, 19 * MEGABYTE) == 200
    (path,) = server.kept()
    assert path.stat().st_size == 19 * MEGABYTE
    path.unlink()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_examples_need_no_file_and_no_network(visit, scheme):
    person = visit()
    person.page.emulate_media(color_scheme=scheme)
    person.page.get_by_role("button", name="Try it with examples").press("Enter")  # by the keyboard
    person.page.locator("#asked .asked").nth(3).wait_for()
    assert person.classes() == ["temple", "flower", "portrait"]
    assert person.labels() == ["temple", "flower", "portrait", "none of them"]
    person.page.locator("#asked .asked").nth(3).press("Enter")
    person.page.get_by_role("heading", name="Resembles none of your classes").wait_for()
    assert {urlsplit(url).hostname for url in person.requests if url.startswith(("http", "ws"))} == {"127.0.0.1"}


def test_only_this_machine_can_reach_it(server):
    port = urlsplit(server.address).port
    with socket.create_connection(("127.0.0.1", port), timeout=10):
        pass
    with pytest.raises(ConnectionRefusedError):  # as it would be through any other address of the machine
        socket.create_connection(("127.0.0.2", port), timeout=10)


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_a_port_of_ipv6():
    from deepemd.apps.web.server import listening

    try:
        taken = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("needs an IPv6 address of this machine")
    with taken, pytest.raises(InputError, match="cannot be used"):
        listening("::1", taken.getsockname()[1])
    with listening("::1", None) as listener:
        assert listener.getsockname()[1] >= 7860


def test_a_port_in_use_is_told_and_the_next_one_is_taken_where_none_was_asked_for(capsys, server):
    taken = urlsplit(server.address).port
    assert cli.main(["app", "--port", str(taken)]) == 2
    said = capsys.readouterr().err
    assert f"port {taken} of 127.0.0.1 cannot be used (Address already in use): pass another --port" in said
    from deepemd.apps.web.server import listening

    with listening("127.0.0.1", None) as one, listening("127.0.0.1", None) as other:  # two apps that start at once
        assert len({taken, one.getsockname()[1], other.getsockname()[1]}) == 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--port", "70000"], "port is 70000: choose one from 1024 to 65535"),
        (["--host", "no.such.host.invalid"], "host is 'no.such.host.invalid'"),
        (["--host", "2001:db8::1"], "host is '2001:db8::1', which is not an address of this machine"),
        (["--host", 70 * "a"], f"host is '{70 * 'a'}'"),
        (["--max-megabytes", "0"], "max_megabytes is 0.0: it must be above 0"),
        (["--backbone", "/no/such/model"], "/no/such/model: neither a folder here"),
    ],
)
def test_what_cannot_be_served(capsys, words, says):
    assert cli.main(["app", *words]) == 2
    assert says in capsys.readouterr().err


def test_without_gradio_it_says_how_to_get_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)  # Python's own way to say that a module is not there
    assert cli.main(["app"]) == 2
    assert "pip install 'deepemd[app]'" in capsys.readouterr().err
