"""The page as a user starts it, and people who use it in a real browser."""

import signal
from collections.abc import Iterator

import pytest
from web_page import CHROMIUM, FLAGS, Page, Server, jpeg

from deepemd.apps.samples import sample_classes, sample_queries


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    pytest.importorskip("gradio", reason="needs gradio: pip install 'deepemd[app]'")
    one = Server(tmp_path_factory.mktemp("app"))
    try:
        yield one
    finally:
        code = one.stop()
    assert code == 128 + signal.SIGTERM
    assert list(one.uploads.glob("deepemd-app-*")) == []


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'deepemd[test]'")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)  # a fresh profile each time
        yield one
        one.close()


@pytest.fixture
def visit(browser, server) -> Iterator:
    pages: list[Page] = []

    def one(**settings: object) -> Page:
        pages.append(Page(browser, server.address, **settings))
        return pages[-1]

    yield one
    for page in pages:
        page.context.close()
        assert page.errors == []


@pytest.fixture(scope="module")
def photos() -> dict[str, list[dict]]:
    return {
        name: [jpeg(p, f"{name}{k}.jpg") for k, p in enumerate(some[:3])] for name, some in sample_classes().items()
    }


@pytest.fixture(scope="module")
def query() -> dict:
    return jpeg(sample_queries()[1], "mine.jpg")
