"""The endpoint as a FastAPI application: its paths, and how they answer."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from fastapi import FastAPI, Request, Response, Security
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from deepemd.apps.serve.answers import Answer, ErrorAnswer, Health, Model, answer, error_answer, model_answer
from deepemd.apps.serve.body import Photo, Receive, read_photos
from deepemd.apps.serve.limits import Limits, Memory, Refused
from deepemd.apps.serve.page import policy, render
from deepemd.apps.serve.worker import Outcome, Worker, measure
from deepemd.classifier.classifier import PhotoClassifier
from deepemd.classifier.prediction import Prediction
from deepemd.errors import InputError
from deepemd.json_files import json_text
from deepemd.versions import versions

__all__ = ["STATUSES", "Service", "application"]

_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_FILES = {
    "type": "object",
    "properties": {"photo": {"type": "array", "items": {"type": "string", "format": "binary"}}},
    "required": ["photo"],
}
_BODY = {
    "requestBody": {
        "required": True,
        "description": "One image as it is, or one or several as files of a form, whose field names do not matter.",
        "content": {"multipart/form-data": {"schema": _FILES}, "image/*": _IMAGE, "application/octet-stream": _IMAGE},
    }
}
_DONE = "at least one photo has a result"
STATUSES = {
    400: "the request is empty, cut off or not well formed",
    401: "the token is missing or wrong",
    403: "the server is not known under that name, or a web page elsewhere asks",
    408: "the request took too long to arrive",
    413: "too many bytes, pixels or photos",
    415: "the content type holds no photo",
    422: "no photo of the request can be decoded",
    500: "the server failed; its log says why",
    503: "the server is busy or stopping: try again after the seconds in Retry-After",
}
"""The statuses of answers without a result, and when they are given."""


class Service:
    """Answers requests with the classifier's predictions.

    Args:
        classifier: a fitted classifier.
        limits: the limits of the server.
    """

    def __init__(self, classifier: PhotoClassifier, limits: Limits) -> None:
        self.classifier, self.limits = classifier, limits
        self.worker = Worker(classifier, limits)
        self.memory = Memory(limits.memory_bytes)
        self.waiting = 0

    async def classify(self, request: Request) -> Response:
        """Classify the photos of a request.

        Raises:
            Refused: the request as a whole has no result.
        """
        self._refuse_if_busy()  # before its body is read
        with self.memory.lease() as lease:
            photos = await read_photos(request.headers, request.receive, self.limits, lease)
            self._refuse_if_busy()
            self.waiting += 1
            try:
                outcomes = await self._outcomes(photos, request.receive)
            finally:
                self.waiting -= 1
        rows = [
            error_answer(photo.name, str(outcome))
            if isinstance(outcome, Refused)
            else answer(photo.name, outcome, self.classifier)
            for photo, outcome in zip(photos, outcomes, strict=True)
        ]
        errors = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
        if len(errors) == len(photos):  # nothing has a result, so the request has none
            return _json({"error": str(errors[0]), "photos": rows}, errors[0].status)
        return _json({"photos": rows})

    def health(self) -> Response:
        """Say whether photos are classified."""
        alive = self.worker.alive
        return _json({"status": "ok" if alive else "failed", "waiting": self.waiting}, 200 if alive else 503)

    def model(self) -> Response:
        """Describe what the server classifies."""
        limits = {
            **{"megabytes": self.limits.megabytes, "megapixels": self.limits.megapixels, "photos": self.limits.photos},
            **{"waiting": self.limits.waiting, "seconds": self.limits.seconds},
        }
        return _json(model_answer(self.classifier, limits))

    def _refuse_if_busy(self) -> None:
        if self.waiting >= self.limits.waiting:
            wait = str(self.worker.seconds_to_wait)
            raise Refused(503, f"The server is busy: {self.waiting:,} requests wait. Try again", retry_after=wait)

    async def _outcomes(self, photos: Sequence[Photo], receive: Receive) -> "list[Prediction | Refused]":
        """Return the prediction for each photo, or why it has none."""
        await asyncio.gather(*(asyncio.to_thread(measure, one, self.limits) for one in photos if one.error is None))
        good = [photo for photo in photos if photo.error is None]
        found = iter(await _results(self.worker.submit(good), receive) if good else ())
        return [_outcome(photo, photo.error or next(found)) for photo in photos]


def application(service: Service, *, has_token: bool) -> FastAPI:
    """Return the application.

    Args:
        service: what answers its requests.
        has_token: whether the description says that requests need a token; :class:`Guard` asks for it.
    """
    api = FastAPI(
        title="deepemd",
        summary="Classify photos by a few examples of each class.",
        version=versions()["deepemd"],
        docs_url=None,  # the usual pages load their scripts from elsewhere
        redoc_url=None,
        dependencies=[Security(HTTPBearer(auto_error=False))] if has_token else [],
    )
    known = STATUSES if has_token else {status: why for status, why in STATUSES.items() if status != 401}
    wrong: dict[int | str, Any] = {status: {"model": ErrorAnswer, "description": why} for status, why in known.items()}

    @api.post("/classify", response_model=Answer, response_description=_DONE, responses=wrong, openapi_extra=_BODY)
    async def classify(request: Request) -> Response:
        """Classify one photo or several."""
        return await service.classify(request)

    @api.get("/model", response_model=Model, response_description="always")
    async def model() -> Response:
        """Describe the classes, the settings and the limits."""
        return service.model()

    @api.get("/health", response_model=Health, response_description="photos are classified; otherwise 503")
    async def health() -> Response:
        """Say whether the server works."""
        return service.health()

    api.add_api_route("/health", health, methods=["HEAD"], include_in_schema=False)

    @api.get("/", include_in_schema=False)
    async def start() -> Response:
        return RedirectResponse("docs")

    @api.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        page = render(api.openapi(), has_token=has_token)
        return HTMLResponse(page, headers={"content-security-policy": policy(page)})

    async def as_json(_: Request, error: Exception) -> Response:
        if isinstance(error, Refused):
            return _json({"error": str(error)}, error.status, error.headers)
        if isinstance(error, HTTPException):
            text = f"{error.detail}: there are POST /classify, GET /model, GET /health and GET /docs"
            return _json({"error": text}, error.status_code, error.headers)
        return _json({"error": "The server failed; its log says why. Try again"}, 500)

    for kind in (Refused, HTTPException, Exception):
        api.add_exception_handler(kind, as_json)
    return api


async def _results(futures: "Sequence[Future[Outcome]]", receive: Receive) -> list[Outcome | BaseException]:
    """Wait for the worker; if the client leaves, cancel what has not begun.

    Raises:
        Refused: the client has left, so nobody reads this.
    """

    async def left() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    work = asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
    gone = asyncio.create_task(left())
    both: list[asyncio.Future[Any]] = [work, gone]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise Refused(400, "The client has left")
        return await work
    finally:
        gone.cancel()
        work.cancel()


def _outcome(photo: Photo, found: Outcome | BaseException) -> "Prediction | Refused":
    if isinstance(found, Refused | Prediction):
        return found
    if isinstance(found, InputError):
        return Refused(422, str(found))
    return Refused(500, f"{photo.name}: could not be classified; the server's log says why")


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    text = json_text(content, "the answer", indent=None)
    return Response(text, status, headers, media_type="application/json")
