"""The page that describes the endpoint: deepemd.apps.serve.page."""

import base64
import hashlib
import re

import pytest
from endpoint import ask, running
from web_page import CHROMIUM, FLAGS

from deepemd.apps.serve.answers import PhotoAnswer
from deepemd.apps.serve.limits import Limits
from deepemd.apps.serve.page import policy, render


@pytest.fixture(scope="module")
def schema(server):
    return ask(server[0], path="/openapi.json")[1]


def test_every_path_and_field_is_described(schema):
    page = render(schema, has_token=False)
    for path, method in (("/classify", "POST"), ("/model", "GET"), ("/health", "GET")):
        assert f"<code>{method} {path}</code>" in page
    for field in PhotoAnswer.model_fields:
        assert f"<code>{field}</code>" in page
    assert set(schema["paths"]["/classify"]["post"]["requestBody"]["content"]) >= {"multipart/form-data", "image/*"}
    assert {"200", "413", "415", "422", "503"} <= set(schema["paths"]["/classify"]["post"]["responses"])
    assert "{{" not in page


def test_a_token_is_described_where_one_is_needed(classifier):
    with running(classifier, Limits(), token="0123456789abcdef") as (port, _):
        found = ask(port, path="/openapi.json")[1]
    assert found["components"]["securitySchemes"] == {"HTTPBearer": {"type": "http", "scheme": "bearer"}}
    assert found["paths"]["/classify"]["post"]["security"] == [{"HTTPBearer": []}]
    assert "<label hidden>" not in render(found, has_token=True)


def test_nothing_comes_from_elsewhere(schema):
    page = render(schema, has_token=False)
    assert not re.findall(r"(?:src|href)=(?!['\"](?:#|openapi\.json))", page)
    assert "//" not in re.sub(r"<!--.*?-->|https?://localhost", "", page.split("<script>")[0])
    script = re.search("<script>(.*?)</script>", page, re.DOTALL)[1]
    assert f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy(page)


@pytest.mark.parametrize("token", [None, "0123456789abcdef"])
@pytest.mark.parametrize("width", [390, 1280])
def test_photos_are_classified_in_a_browser(classifier, photos, own, token, width):
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'deepemd[test]'")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    seen, problems = [], []
    with running(classifier, Limits(), token) as (port, _), sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.on("request", lambda request: seen.append(request.url))
        page.on("console", lambda one: problems.append(one.text) if one.type == "error" else None)
        page.on("pageerror", lambda one: problems.append(str(one)))
        page.goto(f"http://localhost:{port}/")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.get_by_label("Photos").set_input_files(photos[:2])
        if token:
            page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Classify").click()
        page.get_by_role("status").get_by_text(f'"label": "{own[photos[1]].label}"').first.wait_for()
        assert page.locator("#answer").inner_text().startswith("200 OK")
        browser.close()
    assert problems == []
    assert {url.split("/")[2] for url in seen} == {f"localhost:{port}"}
