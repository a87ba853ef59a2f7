"""``deepemd serve``: answer HTTP requests with the predictions of a saved classifier."""

import os
from contextlib import ExitStack
from pathlib import Path

from deepemd.errors import InputError
from deepemd.progress import Progress

__all__ = ["serve"]

_TOKEN = "DEEPEMD_TOKEN"


def serve(
    model: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    allowed_hosts: str | None = None,
    unknown: float | None = None,
    coverage: float | None = None,
    threshold: float | None = None,
    max_megabytes: float = 20,
    max_megapixels: float = 64,
    max_photos: int = 32,
    max_waiting: int = 200,
    timeout: float = 60,
) -> None:
    """Classify photos that other programs send over HTTP: `deepemd serve my-model`, then `curl -F photo=@1.jpg ...`.

    The model is a folder that `deepemd predict --save` or FewShotClassifier.save wrote. Photos are sent to /classify,
    one as the body of a request or several as a form, and the answer is JSON. /docs describes it all and lets you try
    it, /openapi.json is for programs, /health for whatever watches the server. Photos are not stored.

    Ctrl-C or SIGTERM stops the server: requests that have begun are answered, for up to 30 seconds, and the exit code
    is 0. Needs `pip install 'deepemd[serve]'`.

    Args:
        model: folder of a saved classifier.
        host: address to listen on. By default only this machine can reach the server; 0.0.0.0 opens it to everybody in
            your network, and needs a token.
        port: port to listen on.
        token: a secret of 16 or more characters that requests must carry, in the header Authorization: Bearer TOKEN.
            Other users of this machine can see the command line, so better set the variable DEEPEMD_TOKEN instead.
        allowed_hosts: names, with commas between them, by which the server may be reached, besides the names and
            addresses of this machine at this port, such as that of a proxy. A name without a port stands for all ports.
            With a token every name is allowed, unless you name some here.
        unknown: share of photos of the known classes that may be labelled "unknown" by mistake, such as 0.05; by
            default as the classifier was saved.
        coverage: share of photos whose own class is in their prediction set, such as 0.95; by default as it was saved.
        threshold: probability below which a photo is labelled "unsure", such as 0.8; by default as it was saved.
        max_megabytes: size limit of a photo.
        max_megapixels: limit of the pixels of a photo, in millions; at most 89.
        max_photos: limit of the photos in a request.
        max_waiting: limit of the requests that wait; more are refused with status 503, to be sent again.
        timeout: seconds in which a request must arrive.
    """
    if not 0 < port < 65536:
        raise InputError(f"port is {port}: choose one from 1024 to 65535")
    try:
        from deepemd.apps.serve.limits import Limits
        from deepemd.apps.serve.server import serve as run
        from deepemd.device import return_freed_memory
    except ImportError as error:
        raise InputError(f"serve needs FastAPI and uvicorn ({error}): pip install 'deepemd[serve]'") from error

    return_freed_memory()
    with ExitStack() as starting:
        starting.enter_context(Progress("starting the server"))

        def ready(address: str) -> None:
            starting.close()
            print(f"serving: {address}docs\nCtrl-C stops the server.", flush=True)

        run(
            model,
            Limits(max_megabytes, max_megapixels, max_photos, max_waiting, timeout),
            host=host,
            port=port,
            token=token if token is not None else os.environ.get(_TOKEN),
            allowed_hosts=allowed_hosts,
            settings={"unknown": unknown, "coverage": coverage, "threshold": threshold},
            ready=ready,
        )
    print("stopped", flush=True)
