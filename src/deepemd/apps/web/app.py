"""The page: drop photos to add classes, drop a photo, see its class and why. It needs the extra package gradio."""

import errno
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepemd.apps.reports.drawing import Drawings
from deepemd.apps.reports.page import drawing_style
from deepemd.apps.samples import sample_classes, sample_queries
from deepemd.apps.web import fragments
from deepemd.apps.web.session import Visitor
from deepemd.errors import InputError
from deepemd.model import DeepEMD

if TYPE_CHECKING:
    import gradio
    from PIL.Image import Image

__all__ = ["free_port", "page", "serving", "wait"]

_PORT = 7860  # the first port that is tried by default
_PORTS = 100
_MAX_VISITORS = 50  # visitors whose classes are in memory; for more, the oldest visit is forgotten
_AGE = 600  # seconds after which an unused upload is removed; a used one is removed immediately
# Turn off reporting and sharing, whatever the user's environment says.
_PRIVATE = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_SHARE": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}

_LEAD = """<h1>Your classes, your photos</h1>
<p>Drop a few photos of each class, then a photo to classify: it is matched, part by part, with yours. Everything stays
on the computer that runs this page; your photos are forgotten within an hour after you leave.</p>"""


@contextmanager
def serving(
    model: DeepEMD, *, host: str = "127.0.0.1", port: int | None = None, max_megabytes: float = 20
) -> Iterator[str]:
    """Serve the page inside a ``with`` block; afterwards the port is free and all uploads are removed.

    Args:
        model: the model that encodes the photos of all visitors.
        host: address to listen on; by default only this machine can reach the page.
        port: port to listen on; by default the first free one from 7860.
        max_megabytes: size limit of an uploaded photo.

    Yields:
        The address of the page.

    Raises:
        InputError: gradio is not installed, or the host or port cannot be used.
    """
    if not max_megabytes > 0:
        raise InputError(f"max_megabytes is {max_megabytes}: it must be above 0")
    free = free_port(host, port)
    with tempfile.TemporaryDirectory(prefix="deepemd-app-") as uploads, _environment(uploads):
        blocks = page(model, max_megabytes)
        _warm(model)
        max_bytes = int(max_megabytes * 2**20)
        try:
            _, address, _ = blocks.launch(
                server_name=host,
                server_port=free,
                prevent_thread_lock=True,
                quiet=True,
                inline=False,
                share=False,
                ssr_mode=False,
                enable_monitoring=False,
                run_history=False,
                pwa=False,
                mcp_server=False,
                footer_links=[],
                max_file_size=max_bytes,
                state_session_capacity=_MAX_VISITORS,
                theme=_theme(),
                css=_asset("app.css") + drawing_style(),
                head=f"<script>{_asset('app.js').replace('MAX_BYTES', str(max_bytes))}</script>",
            )
            yield address
        finally:
            blocks.close(verbose=False)


@contextmanager
def _environment(uploads: str) -> Iterator[None]:
    """Set the environment variables that gradio reads."""
    before = dict(os.environ)
    os.environ.update({**_PRIVATE, "GRADIO_TEMP_DIR": uploads})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def wait() -> None:
    """Sleep until Ctrl-C or SIGTERM; both end the program in an orderly way."""

    def leave(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, leave)
    while True:
        threading.Event().wait(3600)


@dataclass(frozen=True)
class _Events:
    """The actions of the page when a button is pressed or photos are dropped."""

    model: DeepEMD

    def add(self, visitor: Visitor | None, name: str, files: list[str] | None) -> tuple[Any, ...]:
        """Add photos to a class; return the visitor, messages, and the two emptied boxes."""
        visitor = visitor or Visitor(self.model)
        with _taken(files) as photos:
            try:
                visitor, done, wrong = visitor.added(name or "", photos)
            except InputError as error:
                return visitor, fragments.messages(wrong=[str(error)]), name, None
        return visitor, fragments.messages(done, wrong), "", None

    def add_samples(self, visitor: Visitor | None) -> Iterator[tuple[Any, ...]]:
        """Add the sample classes, then answer the sample queries."""
        visitor = visitor or Visitor(self.model)
        try:
            for name, pictures in sample_classes().items():
                visitor = visitor.without(name).added(name, pictures)[0]
            done, wrong = ["Three classes were added: cuts of a temple, of a flower and of a portrait."], list[str]()
        except InputError as error:
            done, wrong = [], [str(error)]
        yield visitor, fragments.messages(done, wrong), ""
        if not wrong:
            for shown in _answers(visitor, sample_queries()):
                yield visitor, fragments.messages(done, wrong), shown

    def ask(self, visitor: Visitor | None, files: list[str] | None) -> Iterator[tuple[Any, ...]]:
        """Classify photos, one after the other, and empty the box."""
        with _taken(files) as photos:
            for shown in _answers(visitor or Visitor(self.model), photos):
                yield shown, None


def page(model: DeepEMD, max_megabytes: float = 20) -> "gradio.Blocks":
    """Build the page as gradio's Blocks.

    Raises:
        InputError: gradio is not installed.
    """
    gr, events = _gradio(), _Events(model)
    one = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private"}  # photos wait in one queue

    with gr.Blocks(
        title="DeepEMD: your classes, your photos", analytics_enabled=False, delete_cache=(60, _AGE)
    ) as blocks:
        visitor = gr.State(None)
        gr.HTML(_LEAD)
        box: dict[str, Any] = {"file_count": "multiple", "height": 150, "elem_classes": ["uploads"]}
        limit = f"{max_megabytes:g} MB each at most"
        with gr.Row(equal_height=False):
            with gr.Column():
                gr.HTML("<h2>1. Classes</h2>")
                name = gr.Textbox(label="Name of the class", placeholder="goose", max_lines=1, max_length=200)
                photos = gr.File(label=f"Photos of the class ({limit})", elem_id="class-photos", **box)
                gr.HTML(fragments.too_large("class-photos"))
                with gr.Row():
                    add_button = gr.Button("Add to the class", variant="primary")
                    sample_button = gr.Button("Try it with examples")
                said = gr.HTML()

                @gr.render(inputs=visitor, triggers=[visitor.change])
                def classes_so_far(visitor: Visitor | None) -> None:
                    for known in visitor.classes if visitor else []:
                        _card(gr, known, outputs)

            with gr.Column():
                gr.HTML("<h2>2. A photo to classify</h2>")
                query = gr.File(label=f"Photos to classify ({limit})", elem_id="queries", **box)
                gr.HTML(fragments.too_large("queries"))
                answers = gr.HTML(elem_id="answers")
        outputs = (visitor, said)
        add_event: dict[str, Any] = {"inputs": [visitor, name, photos], "outputs": [visitor, said, name, photos]}
        add_button.click(events.add, **add_event, **one)
        name.submit(events.add, **add_event, **one)
        sample_button.click(events.add_samples, visitor, [visitor, said, answers], **one)
        query.upload(events.ask, [visitor, query], [answers, query], **one)
    return blocks  # type: ignore[no-any-return]


def _card(gr: Any, known: Any, outputs: Sequence[Any]) -> None:
    """Show a class, with the button that removes it."""
    with gr.Row(elem_classes=["card"]):
        with gr.Column(scale=4):
            gr.HTML(fragments.known_class(known))
        button = gr.Button(f"Remove {known.name}", size="sm", scale=1, min_width=100)

    def remove(visitor: Visitor | None) -> tuple[Visitor | None, str]:
        return visitor and visitor.without(known.name), fragments.messages([f"'{known.name}' was removed."])

    button.click(remove, outputs[0], list(outputs), concurrency_id="model", api_visibility="private")


def _answers(visitor: Visitor, photos: "Sequence[Path | Image]") -> Iterator[str]:
    """Yield the answers so far, each time another photo is done."""
    shown, drawings = "", Drawings()
    try:
        for one in visitor.ask(photos):
            shown += fragments.answer(one, drawings)
            yield shown
    except InputError as error:
        yield shown + fragments.messages(wrong=[str(error)])


@contextmanager
def _taken(files: list[str] | None) -> Iterator[list[Path]]:
    """Yield the paths of uploaded files, which are removed after use."""
    paths = [Path(file) for file in files or []]
    try:
        yield paths
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def _warm(model: DeepEMD) -> None:
    """Classify a sample, so that the solver is compiled before the first visitor comes."""
    from PIL import Image

    pictures = [Image.fromarray(np.full((64, 64, 3), tone, np.uint8)) for tone in (40, 60, 200, 220)]
    visitor = Visitor(model).added("dark", pictures[:2])[0].added("light", pictures[2:])[0]
    for _ in visitor.ask(pictures[:1]):
        pass


def free_port(host: str, port: int | None) -> int:
    """Return a free port, or raise an error before anything is loaded."""
    if port is not None and not 0 < port < 65536:
        raise InputError(f"port is {port}: choose one from 1024 to 65535")
    reason = ""
    for candidate in [port] if port is not None else range(_PORT, _PORT + _PORTS):
        try:
            socket.getaddrinfo(host, candidate, socket.AF_INET)
            with socket.create_server((host, candidate)):
                return candidate
        except OSError as error:
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                raise InputError(
                    f"host is {host!r}, which is not an address of this machine: leave it out, or pass 0.0.0.0 to open "
                    "the page to everybody in your network"
                ) from error
            reason = os.strerror(error.errno or 0)
    if port is None:
        raise InputError(f"no free port from {_PORT} to {_PORT + _PORTS - 1} of {host} ({reason}): pass --port")
    raise InputError(f"port {port} of {host} cannot be used ({reason}): pass another --port, or leave it out")


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
