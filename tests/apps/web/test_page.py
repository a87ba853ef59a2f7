"""What people do at the page besides the usual: wait for a second class, load it again, come back too late.

Tests deepemd.apps.web.app.
"""

import signal
import socket
import time
from urllib.parse import urlsplit

import pytest
from web_page import Page, Server

pytest.importorskip("gradio", reason="needs gradio: pip install 'deepemd[app]'")

# Texts that are keys of gradio's translations, such as common.complete, wherever people can see or hear them.
WATCH = r"""(() => {
  window.keys = new Set();
  const look = () => document.querySelectorAll("body *").forEach(one => {
    const texts = one.children.length ? [] : [one.tagName === "SCRIPT" ? "" : one.textContent];
    for (const text of [...texts, one.ariaLabel, one.title, one.placeholder])
      if (/^[a-z_]+\.[a-z_]+$/.test((text || "").trim())) keys.add(text);
  });
  const all = { subtree: true, childList: true, characterData: true, attributes: true };
  new MutationObserver(look).observe(document, all);
})()"""


def test_a_photo_is_classified_as_soon_as_there_are_two_classes(visit, server, photos, query):
    person = visit()
    person.drop("queries", query)
    person.says("At least two classes are needed; there is none yet. Your photo is classified when there are two.")
    person.add("flower", *photos["flower"])
    person.added("flower")
    person.says("At least two classes are needed; there is only 'flower'")
    person.add("temple", *photos["temple"])
    person.page.locator(".answer").wait_for()
    assert person.page.get_by_text("At least two classes").count() == 0
    assert person.page.locator(".answer .file").inner_text() == "mine.jpg"
    assert "at least 19 photos in all, two or more of each class, not of one series: 6 count now" in (
        person.page.inner_text(".answer")
    )
    assert server.kept() == []

    # a verdict that was given with other classes does not stay
    person.page.get_by_role("button", name="Remove flower").click()
    person.page.get_by_text("'flower' was removed.").wait_for()
    person.page.get_by_text("waiting").wait_for()
    assert person.page.locator(".answer").count() == 0
    assert person.classes() == ["temple"]
    person.page.get_by_role("button", name="Undo").click()
    person.added("flower")
    person.page.locator(".answer").wait_for()
    assert person.labels() == ["flower"]


def test_nothing_is_lost_without_a_name_and_the_message_goes_when_there_is_one(visit, photos):
    person = visit()
    person.add("", *photos["flower"])
    person.says("The class has no name")
    assert person.page.locator("#class-photos table tr").count() == 3
    person.page.get_by_label("Name of the class").fill("flower")
    person.page.get_by_text("The class has no name").wait_for(state="hidden")
    person.page.get_by_role("button", name="Add to the class").click()
    person.added("flower")
    assert person.page.locator(".thumbnails img").count() == 3
    assert person.page.locator("#class-photos table tr").count() == 0


def test_all_is_there_after_a_reload_and_in_a_second_tab(visit, photos, query):
    person = visit()
    for name in ("flower", "temple"):
        person.add(name, *photos[name])
        person.added(name)
    person.drop("queries", query)
    person.page.locator(".answer").wait_for()
    person.page.reload()
    person.page.locator(".answer").wait_for()
    assert person.classes() == ["flower", "temple"]
    tab = person.context.new_page()
    tab.goto(person.page.url)
    tab.get_by_role("button", name="Remove flower").click()
    tab.get_by_text("'flower' was removed.").wait_for()
    person.page.get_by_role("button", name="Remove flower").click()  # of a page that does not know yet
    person.says("There is no class 'flower' any more")
    assert person.classes() == ["temple"]


def _many(query, count: int, name: str) -> list[dict]:
    return [{**query, "name": f"{name}{k}.jpg"} for k in range(count)]


@pytest.fixture
def flower_or_temple(visit, photos) -> Page:
    """A person who has added two classes."""
    person = visit()
    for name in ("flower", "temple"):
        person.add(name, *photos[name])
        person.added(name)
    return person


def test_photos_that_are_dropped_while_others_are_classified_are_classified_too(flower_or_temple, query):
    person = flower_or_temple
    person.drop("queries", *_many(query, 6, "first"))
    person.page.locator(".answer").first.wait_for()
    person.drop("queries", *_many(query, 2, "second"))
    person.page.locator("#asked").get_by_text("second1.jpg").wait_for()


def test_a_reload_while_photos_are_classified_loses_none(flower_or_temple, query):
    person = flower_or_temple
    person.drop("queries", *_many(query, 8, "mine"))
    person.page.locator("#asked .asked").nth(1).wait_for()
    person.page.reload()
    person.page.locator("#asked").get_by_text("mine7.jpg").wait_for()
    assert person.asked() == [f"mine{k}.jpg" for k in range(8)]
    person.errors.clear()  # gradio reports the answer that was broken off


def test_classes_that_are_removed_one_after_the_other_while_photos_are_classified(flower_or_temple, query):
    person = flower_or_temple
    person.drop("queries", *_many(query, 6, "mine"))
    person.page.locator(".answer").first.wait_for()
    for name in ("flower", "temple"):
        person.page.get_by_role("button", name=f"Remove {name}").click()
    for name in ("flower", "temple"):
        person.page.get_by_role("button", name=f"Remove {name}").wait_for(state="detached")


def test_the_key_enter_and_a_click_add_once(visit, photos):
    person = visit()
    person.page.get_by_label("Name of the class").fill("flower")
    person.drop("class-photos", *photos["flower"])
    person.page.locator("#class-photos table tr").first.wait_for()
    person.page.get_by_label("Name of the class").press("Enter")
    person.page.get_by_role("button", name="Add to the class").click()
    person.added("flower")
    person.page.get_by_role("status").get_by_text("3 photos added to 'flower'.").wait_for()
    assert person.page.get_by_text("No photos for").count() == 0


def test_an_open_page_keeps_its_visitor_from_being_forgotten(visit):
    hurry = "const wait = setInterval; window.setInterval = (run, time) => wait(run, Math.min(time, 2000))"
    person = visit(script=hurry)
    with person.page.expect_response("**/here") as answer:
        pass
    assert answer.value.status == 200


def test_the_same_photos_of_two_visitors_at_once(visit, photos):
    one, other = visit(), visit()
    for person in (one, other):
        person.page.get_by_label("Name of the class").fill("flower")
        person.drop("class-photos", *photos["flower"])
        person.page.locator("#class-photos table tr").first.wait_for()
    for person in (one, other):
        person.page.get_by_role("button", name="Add to the class").click()
    for person in (one, other):
        person.added("flower")
        assert person.page.locator(".thumbnails img").count() == 3
        assert person.page.get_by_role("alert").all_inner_texts() in ([], ["", ""])


def test_who_was_forgotten_is_informed(browser, tmp_path, photos):
    first = Server(tmp_path)
    port = str(urlsplit(first.address).port)
    person = Page(browser, first.address)
    person.add("flower", *photos["flower"])
    person.added("flower")
    first.process.send_signal(signal.SIGKILL)
    first.process.communicate(timeout=30)
    assert len(list(first.uploads.glob("deepemd-app-*"))) == 1
    second = Server(tmp_path, "--port", port)
    try:
        assert len(list(second.uploads.glob("deepemd-app-*"))) == 1  # the killed app's folder was removed
        person.page.reload()
        person.says("Whatever you had added here before was forgotten")
        person.add("temple", *photos["temple"])
        person.added("temple")
        assert person.page.get_by_text("was forgotten").count() == 0
        person.context.close()
    finally:
        second.stop()


@pytest.mark.parametrize("locale", ["en", "de", "zh-CN", "fr", "ar", "xx"])
def test_no_key_of_a_translation_is_shown(visit, photos, locale):
    person = visit(script=WATCH, locale=locale)
    person.add("flower")
    person.says("No photos for 'flower'")
    person.add("flower", {**photos["flower"][0], "buffer": b"x" * 2_000_000})
    person.says("Nothing was added to 'flower'")
    person.add("flower", *photos["flower"])
    person.added("flower")
    person.page.get_by_role("status").get_by_text("Done").wait_for(state="attached")
    assert person.page.evaluate("[...keys]") == []
    assert "Drop File Here" in person.page.locator("#class-photos").inner_text()


def test_a_photo_that_is_dropped_beside_a_box_does_not_replace_the_page(visit):
    replaced = """() => ["dragover", "drop"].some(name => {
        const files = new DataTransfer();
        files.items.add(new File(["x"], "a.jpg"));
        const settings = { bubbles: true, cancelable: true, dataTransfer: files };
        return document.querySelector("h1").dispatchEvent(new DragEvent(name, settings));
    })"""
    assert visit().page.evaluate(replaced) is False


def test_too_many_photos_are_not_sent(visit, photos):
    person = visit()
    person.drop("class-photos", *[{**photos["flower"][0], "name": f"{k}.jpg"} for k in range(101)])
    person.says("101 photos are too many: at most 100 at once")
    assert not [url for url in person.requests if "/upload" in url]


def test_what_the_server_refuses_is_said(visit, photos):
    person = visit()
    person.page.route("**/gradio_api/upload*", lambda route: route.fulfill(status=507, body="The disk is full"))
    person.drop("class-photos", *photos["flower"])
    person.page.get_by_text("The disk is full").first.wait_for()
    person.errors.clear()  # the browser logs the status


def test_the_page_by_keyboard_on_a_phone(visit):
    person = visit(viewport={"width": 360, "height": 640}, color_scheme="dark")
    person.page.get_by_role("button", name="Try it with examples").press("Enter")
    person.page.locator("#asked .asked").nth(3).wait_for()
    assert person.page.evaluate("document.documentElement.scrollWidth") <= 360
    person.page.get_by_role("button", name="Remove flower").press("Enter")
    person.page.get_by_text("'flower' was removed.").wait_for()


def test_a_correction_by_the_keyboard_alone_and_another_photo_of_the_gallery(flower_or_temple, query, photos):
    person = flower_or_temple
    person.drop("queries", query, photos["temple"][0])
    person.page.locator("#asked .asked").nth(1).wait_for()
    person.page.locator(".answer").wait_for()
    second = person.page.locator("#asked .asked").nth(1)
    second.press("Enter")
    person.page.get_by_text("This photo is in 'temple'").wait_for()
    assert second.get_attribute("aria-pressed") == "true"
    assert second.evaluate("one => one === document.activeElement")
    person.page.locator("#asked .asked").first.press("Enter")
    button = person.page.get_by_role("button", name="mine.jpg is of temple: add it to this class")
    button.press("Enter")
    person.page.get_by_text("The photo was added to 'temple', and all answers are new.").wait_for()
    assert person.labels()[0] == "temple"
    assert person.page.locator("#classes h3 small").all_inner_texts() == ["3 photos", "4 photos"]
    # what had the focus is gone, so the focus is on a button near to it
    person.until("document.activeElement.closest('#answer') !== null")
    person.page.get_by_role("button", name="Remove photo 4 of temple").press("Enter")
    person.page.get_by_text("A photo of 'temple' was removed.").wait_for()
    assert person.labels()[0] == "flower"
    person.until("document.activeElement.closest('#classes') !== null")


def test_classes_and_answers_are_kept_as_files_and_the_classes_are_opened_again(
    visit, flower_or_temple, query, server, tmp_path
):
    person = flower_or_temple
    person.drop("queries", query)
    person.page.locator(".answer").wait_for()
    files = {"Save the classes": "deepemd-model.zip", "Table": "predictions.csv", "Report": "predictions.html"}
    for words, name in files.items():
        with person.page.expect_download() as found:
            person.page.get_by_role("link", name=words).press("Enter")
        assert found.value.suggested_filename == name
        found.value.save_as(tmp_path / name)
    assert "mine.jpg" in (tmp_path / "predictions.csv").read_text()
    assert "mine.jpg" in (tmp_path / "predictions.html").read_text()
    other = visit()
    other.drop("queries", query)
    other.page.get_by_text("waiting").wait_for()
    other.page.locator("input[type=file][accept='.zip']").set_input_files(tmp_path / "deepemd-model.zip")
    other.page.get_by_text("2 classes were opened from deepemd-model.zip.").wait_for()
    assert other.classes() == ["flower", "temple"]
    assert other.labels() == ["flower"]
    assert server.kept() == []


def test_a_download_without_anything_to_download(server, browser):
    page = browser.new_page()
    assert page.request.get(f"{server.address}download/predictions.csv").status == 404
    page.goto(server.address)
    assert page.request.get(f"{server.address}download/predictions.csv").status == 409
    assert page.request.get(f"{server.address}download/other").status == 404
    page.close()


def test_a_photo_of_the_camera(visit, server):
    person = visit(permissions=["camera"])
    person.page.get_by_role("button", name="Take a photo to classify").click()
    person.page.get_by_text("Click to Access Webcam").click()
    button = person.page.get_by_role("button", name="capture photo")
    button.wait_for()
    shown = "[...document.querySelectorAll('video')].some(one => one.videoWidth > 0 && one.currentTime > 0)"
    person.until(shown)  # nobody takes a photo before they see it
    button.click()
    person.page.locator("#asked").get_by_text("camera-1.png").wait_for()
    assert server.kept() == []


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_end_in_the_middle_of_an_upload(tmp_path, kill):
    server = Server(tmp_path)
    address = urlsplit(server.address)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(
            f"POST /gradio_api/upload HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 9000000\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
            '--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'.encode()
            + b"x" * 1_000_000
        )
        while not server.kept():
            time.sleep(0.05)
        server.process.send_signal(kill)
        server.process.communicate(timeout=60)
    assert "Traceback" not in server.log.read_text()
    if kill == signal.SIGKILL:
        Server(tmp_path).stop()
    assert list(server.uploads.glob("deepemd-app-*")) == []


@pytest.mark.parametrize("how", ["fetch", "form", "frame", "script"])
def test_another_page_in_the_same_browser_cannot_use_it(browser, server, how):
    context = browser.new_context()
    page = context.new_page()
    page.route("http://other.example/**", lambda route: route.fulfill(body="<p>other", content_type="text/html"))
    page.goto("http://other.example/")
    answers: list[int] = []
    page.on("response", lambda one: answers.append(one.status) if one.url.startswith(server.address) else None)
    scripts = {
        "fetch": """url => { const body = new FormData(); body.append("files", new Blob(["x"]), "a.jpg");
            return fetch(url + "gradio_api/upload", { method: "POST", body, mode: "no-cors" }).catch(() => 0) }""",
        "form": """url => { document.body.innerHTML = `<form method=post enctype=multipart/form-data target=_self
            action="${url}gradio_api/upload"><input name=files></form>`; document.forms[0].submit() }""",
        "frame": "url => { document.body.innerHTML = `<iframe src='${url}'></iframe>` }",
        "script": """url => { const one = document.createElement("script"); one.src = url + "config";
            document.body.append(one) }""",
    }
    before = server.kept()
    page.evaluate(scripts[how], server.address)
    page.wait_for_timeout(1500)
    assert set(answers) <= {403}  # nothing at all where the browser refuses it first
    assert server.kept() == before
    context.close()
