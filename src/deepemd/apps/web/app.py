"""The page: drop photos to add classes, drop photos, see their classes and why. It needs the extra package gradio."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepemd.apps.reports.page import drawing_style
from deepemd.apps.web import fragments
from deepemd.apps.web.events import Events
from deepemd.apps.web.folder import upload_folder
from deepemd.apps.web.guard import Guard
from deepemd.apps.web.hosts import Hosts, address
from deepemd.apps.web.server import environment, listening, running
from deepemd.apps.web.session import MAX_UPLOAD, Visitor
from deepemd.apps.web.uploads import Limits, Room
from deepemd.apps.web.visitors import Visitors
from deepemd.errors import InputError
from deepemd.model import DeepEMD

if TYPE_CHECKING:
    import gradio

__all__ = ["ending_in_order", "page", "serving", "wait"]

_MAX_QUEUE = 100  # events of all visitors that wait for the model
_MAX_PAGES = 200  # pages that gradio remembers; a page that it has forgotten works on

_WORDS = {"common.complete": "Done", "common.upload": "Add files"}  # for which gradio has no words

_LEAD = """<h1>Your classes, your photos</h1>
<p>Drop a few photos of each class, then a photo to classify: it is matched, part by part, with yours. Everything stays
on the computer that runs this page. You find it again if you load the page again; it is forgotten within an hour after
you leave, unless you save it.</p>"""


@contextmanager
def serving(
    model: DeepEMD,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    max_megabytes: float = 20,
    allowed_hosts: str | Sequence[str] | None = None,
) -> Iterator[str]:
    """Serve the page inside a ``with`` block; afterwards the port is free and all uploads are removed.

    Args:
        model: the model that encodes the photos of all visitors.
        host: address to listen on; by default only this machine can reach the page.
        port: port to listen on; by default the first free one from 7860.
        max_megabytes: size limit of an uploaded photo.
        allowed_hosts: further names by which browsers may reach the page, such as that of a proxy; as a sequence or
            with commas between them.

    Yields:
        The address of the page.

    Raises:
        InputError: gradio is not installed, the host or port cannot be used, or a name is not well formed.
    """
    if not max_megabytes > 0:
        raise InputError(f"max_megabytes is {max_megabytes}: it must be above 0")
    host = host.removeprefix("[").removesuffix("]")
    with listening(host, port) as listener, upload_folder() as folder, environment(str(folder)):
        taken = listener.getsockname()[1]
        hosts = Hosts.bound(host, taken, allowed_hosts)
        limits = Limits(file=int(max_megabytes * 2**20), files=MAX_UPLOAD)
        visitors = Visitors(model, Room(folder, limits))
        blocks = page(visitors, max_megabytes)
        _warm(model)
        script = _asset("app.js").replace("MAX_BYTES", str(limits.file)).replace("MAX_FILES", str(limits.files))
        guard = Guard(_gradio_app(blocks, limits.file), hosts, visitors, script, _events(blocks))
        with running(guard, listener, visitors.sweep):
            yield address(host, taken)


def _events(blocks: "gradio.Blocks") -> dict[int, tuple[type, ...]]:
    """Return the events of the page, by number, each with the types of its values."""
    return {number: tuple(_kind(one) for one in event.inputs) for number, event in blocks.fns.items()}


def _kind(component: Any) -> type:
    """Return the type of a component's value: a dict is one file, a list is one of files."""
    gr = _gradio()
    return (
        dict if isinstance(component, gr.Image) else list if isinstance(component, gr.File | gr.UploadButton) else str
    )


def _gradio_app(blocks: "gradio.Blocks", max_bytes: int) -> Any:
    """Return gradio's application."""
    from fastapi import FastAPI

    blocks.state_session_capacity = _MAX_PAGES
    blocks.queue(max_size=_MAX_QUEUE, api_open=False)
    return _gradio().mount_gradio_app(
        FastAPI(openapi_url=None),
        blocks,
        path="/",
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        run_history=False,
        pwa=False,
        mcp_server=False,
        footer_links=[],
        max_file_size=max_bytes,
        i18n=_gradio().I18n(en=_WORDS),
        theme=_theme(),
        css=_asset("app.css") + drawing_style(),
    )


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Let SIGTERM end a ``with`` block like Ctrl-C, so that what it has written is removed."""

    def leave(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def wait() -> None:
    """Sleep until the program is ended."""
    while True:
        threading.Event().wait(3600)


def page(visitors: Visitors, max_megabytes: float = 20) -> "gradio.Blocks":
    """Build the page as gradio's Blocks.

    Raises:
        InputError: gradio is not installed.
    """
    gr = _gradio()
    events = Events(visitors, gr.skip())
    # Photos wait in one queue. Without gradio's own preparation, which would copy each file.
    plain: dict[str, Any] = {"api_visibility": "private", "preprocess": False}
    one: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model", **plain}

    def on(action: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def called(request: Any, *values: Any) -> Iterator[Any]:
            yield from action(request.headers, *values)

        called.__annotations__["request"] = gr.Request  # what makes gradio pass the request
        return called

    def html(value: str = "", **settings: Any) -> Any:
        # Gradio's component HTML evaluates its content as JavaScript, which the page's policy forbids. HTML without an
        # empty line is shown by Markdown as it is; fragments.py escapes what visitors write.
        return gr.Markdown(value, sanitize_html=False, latex_delimiters=[], **settings)

    with gr.Blocks(title="DeepEMD: your classes, your photos", analytics_enabled=False) as blocks:
        html(_LEAD)
        box: dict[str, Any] = {"file_count": "multiple", "height": 150, "elem_classes": ["uploads"]}
        limit = f"{max_megabytes:g} MB each at most"
        camera: dict[str, Any] = {"sources": ["webcam"], "format": "jpeg", "height": 260, "buttons": []}
        with gr.Row(equal_height=False):
            with gr.Column():
                html("<h2>1. Classes</h2>")
                name = gr.Textbox(
                    label="Name of the class", placeholder="goose", max_lines=1, max_length=200, elem_id="class-name"
                )
                photos = gr.File(label=f"Photos of the class ({limit})", elem_id="class-photos", **box)
                html(fragments.too_large("class-photos"))
                with gr.Accordion("Take a photo of the class", open=False, elem_classes=["camera"]):
                    snapshot = gr.Image(label="Camera, for the class", **camera)
                add_button = gr.Button("Add to the class", variant="primary")
                with gr.Row():
                    sample_button = gr.Button("Try it with examples")
                    open_button = gr.UploadButton(
                        "Open saved classes", file_count="multiple", file_types=[".zip"], size="lg", elem_id="open"
                    )
                said = html(elem_id="said")
                classes = html(elem_id="classes")
                acted = gr.Textbox(visible="hidden", elem_id="acted")
                act_button = gr.Button("Do", visible="hidden", elem_id="act")
                chosen = gr.Textbox(visible="hidden", elem_id="chosen")
                show_button = gr.Button("Show", visible="hidden", elem_id="show")
                resume_button = gr.Button("Go on", visible="hidden", elem_id="resume")
            with gr.Column():
                html("<h2>2. Photos to classify</h2>")
                query = gr.File(label=f"Photos to classify ({limit})", elem_id="queries", **box)
                html(fragments.too_large("queries"))
                with gr.Accordion("Take a photo to classify", open=False, elem_classes=["camera"]):
                    view = gr.Image(label="Camera, to classify", **camera)
                asked = html(elem_id="asked")
                answer = html(elem_id="answer")
        shown = [said, classes, asked, answer]
        blocks.load(on(events.load), None, shown, concurrency_limit=None, **plain)
        # One event for both, so that the key Enter and a click after it do not add twice.
        boxes = [name, photos, snapshot]
        gr.on([add_button.click, name.submit], on(events.add), boxes, [*shown, *boxes], **one)
        sample_button.click(on(events.add_samples), None, shown, **one)
        open_button.upload(on(events.open), open_button, shown, **one)
        # Gradio ignores an event while the one before is not answered, unless it is "multiple".
        act_button.click(on(events.act), acted, shown, trigger_mode="multiple", **one)
        show_button.click(on(events.show), chosen, answer, trigger_mode="multiple", concurrency_limit=None, **plain)
        query.upload(on(events.ask), query, [*shown, query], trigger_mode="multiple", **one)
        view.input(on(events.ask), view, [*shown, view], trigger_mode="multiple", **one)
        resume_button.click(on(events.resume), None, shown, show_progress="hidden", **one)
    return blocks  # type: ignore[no-any-return]


def _warm(model: DeepEMD) -> None:
    """Classify a sample, so that the solver is compiled before the first visitor comes."""
    from PIL import Image

    pictures = [Image.fromarray(np.full((64, 64, 3), tone, np.uint8)) for tone in (40, 60, 200, 220)]
    visitor = Visitor(model).added("dark", pictures[:2])[0].added("light", pictures[2:])[0]
    asked = visitor.ask(pictures[0])
    asked.answer(asked.asked[0].id)


def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _theme() -> Any:
    """Return gradio's theme with local fonts (others would be downloaded) and buttons with enough contrast."""
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    shades = {"button_primary_background_fill": "#00798c", "button_primary_background_fill_hover": "#005f6e"}
    both = {f"{name}{mode}": shade for name, shade in shades.items() for mode in ("", "_dark")}
    return _gradio().themes.Default(**fonts).set(**both)


def _gradio() -> Any:
    try:
        import gradio
    except ImportError as error:
        raise InputError(f"the page needs gradio ({error}): pip install 'deepemd[app]'") from error
    return gradio
