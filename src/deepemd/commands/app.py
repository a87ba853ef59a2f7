"""``deepemd app``: serve a page for classifying photos on this machine."""

from contextlib import ExitStack

from deepemd.progress import Progress

__all__ = ["app"]


def app(
    host: str = "127.0.0.1",
    port: int | None = None,
    backbone: str = "efficientnet-lite0",
    max_megabytes: float = 20,
    allowed_hosts: str | None = None,
) -> None:
    """Serve a page for your browser: drop photos of each class, drop a photo, and see its class and why.

    Nothing leaves this machine. Each visitor has their own classes, in memory until an hour after they leave. Ctrl-C
    ends the server. Needs `pip install 'deepemd[app]'`.

    Args:
        host: address to listen on. By default only this machine can reach the page; 0.0.0.0 opens it to everybody in
            your network, without a password.
        port: port to listen on; by default the first free one from 7860.
        backbone: encoder of the photos: efficientnet-lite0, which is installed; the folder of a model;
            or a name on the Hugging Face Hub.
        max_megabytes: size limit of an uploaded photo.
        allowed_hosts: further names, with commas between them, by which browsers may reach the page, such as that of a
            proxy in front of it; by default the names and addresses of this machine, at this port, if `host` opens the
            page to them. A name without a port stands for all ports.
    """
    with ExitStack() as running:
        with Progress("starting the page"):
            from deepemd.apps.web.app import ending_in_order, serving, wait
            from deepemd.device import keep_freed_memory
            from deepemd.model.pretrained import pretrained

            keep_freed_memory()
            model = pretrained(backbone)
            page = serving(model, host=host, port=port, max_megabytes=max_megabytes, allowed_hosts=allowed_hosts)
            running.enter_context(ending_in_order())
            address = running.enter_context(page)
        print(f"page: {address}\nCtrl-C ends it.", flush=True)
        wait()
