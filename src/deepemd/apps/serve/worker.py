"""One thread that classifies the photos of all requests, in batches of what is waiting."""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deepemd.apps.serve.body import Photo
from deepemd.apps.serve.limits import Limits, Refused
from deepemd.classifier.classifier import PhotoClassifier
from deepemd.classifier.prediction import Prediction
from deepemd.data.decoding import decode
from deepemd.data.images import WORKERS
from deepemd.data.opening import image_size
from deepemd.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Outcome", "Worker", "measure"]

Outcome = Prediction | InputError

_BATCH = 8  # photos that are classified together
_MAX_FRAMES_PIXELS = 4  # pixels of all frames of an animation, in multiples of those of one photo


@dataclass
class _Job:
    """A photo on its way through the worker."""

    photo: Photo
    result: "Future[Outcome]" = field(default_factory=Future)


class Worker:
    """Classifies photos in one thread, so that requests share the model and are answered in their order.

    Args:
        classifier: a fitted classifier.
        limits: the limits; a batch has no more pixels than one photo may have.
        batch: the number of photos that are classified together.
    """

    def __init__(self, classifier: PhotoClassifier, limits: Limits, batch: int = _BATCH) -> None:
        self.classifier, self.limits, self.batch = classifier, limits, batch
        self.pace = 0.05  # seconds for a photo, lately
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="classify", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether photos are being classified."""
        return self._thread.is_alive()

    @property
    def seconds_to_wait(self) -> int:
        """Estimate, in whole seconds, the time until the photos that wait now are classified; at least 1."""
        return max(1, round(len(self._waiting) * self.pace))

    def submit(self, photos: Sequence[Photo]) -> "list[Future[Outcome]]":
        """Add photos to those that wait; a future that is cancelled in time is not worked on.

        Returns:
            For each photo its future prediction, or the error if it cannot be decoded.

        Raises:
            Refused: the worker is stopped.
        """
        jobs = [_Job(photo) for photo in photos]
        with self._changed:
            if self._stopped:
                raise Refused(503, "The server is stopping: ask another one", retry_after="10")
            self._waiting.extend(jobs)
            self._changed.notify()
        return [job.result for job in jobs]

    def stop(self) -> None:
        """Finish what waits, and end the thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        with ThreadPoolExecutor(WORKERS, "decode") as pool:
            while jobs := self._next():
                began = time.perf_counter()
                self._classify(jobs, pool)
                self.pace += 0.2 * ((time.perf_counter() - began) / len(jobs) - self.pace)

    def _next(self) -> list[_Job]:
        """Wait for photos, and return the next batch; an empty one at the end."""
        jobs: list[_Job] = []
        pixels = 0
        with self._changed:
            while not jobs:
                while not self._waiting and not self._stopped:
                    self._changed.wait()
                if not self._waiting:
                    break
                while self._waiting and len(jobs) < self.batch:
                    pixels += self._waiting[0].photo.pixels
                    if jobs and pixels > self.limits.pixels:
                        break
                    job = self._waiting.popleft()
                    if job.result.set_running_or_notify_cancel():
                        jobs.append(job)
        return jobs

    def _classify(self, jobs: list[_Job], pool: ThreadPoolExecutor) -> None:
        """Classify a batch; if that fails, each of its photos alone, so that one does no harm to the others."""
        try:
            predictions = self._predictions([job.photo for job in jobs], pool)
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    self._classify([job], pool)
                return
            logging.getLogger(__name__).exception("%s could not be classified", jobs[0].photo.name)
            jobs[0].result.set_exception(error)
            return
        for job, prediction in zip(jobs, predictions, strict=True):
            job.result.set_result(prediction)

    def _predictions(self, photos: Sequence[Photo], pool: ThreadPoolExecutor) -> list[Outcome]:
        pictures = list(pool.map(_decoded, photos))
        found = self.classifier.stream_embedded([one for one in pictures if not isinstance(one, InputError)])
        return [one if isinstance(one, InputError) else next(found)[1] for one in pictures]


def measure(photo: Photo, limits: Limits) -> None:
    """Set the number of pixels of a photo, or its error if it is no image or has too many."""
    from PIL import Image

    try:
        width, height, frames = image_size(photo.content, photo.name)
    except InputError as error:
        too_many = isinstance(error.__cause__, Image.DecompressionBombError | Image.DecompressionBombWarning)
        photo.error = Refused(413 if too_many else 422, str(error))
        return
    photo.pixels = width * height
    if photo.pixels > limits.pixels:
        size = f"{width:,} x {height:,} pixels, at most {limits.megapixels:g} million are read"
        photo.error = Refused(413, f"{photo.name}: {size}: scale it down")
    elif photo.pixels * frames > _MAX_FRAMES_PIXELS * limits.pixels:
        photo.error = Refused(413, f"{photo.name}: {frames} frames of {width:,} x {height:,} pixels: send one of them")


def _decoded(photo: Photo) -> "Image | InputError":
    try:
        return decode(photo.content, photo.name)
    except InputError as error:
        return error
