"""Batches of what waits: deepemd.apps.serve.worker."""

import threading
import zlib
from concurrent.futures import CancelledError

import pytest
from pictures import encoded, photo, png
from PIL import Image

from deepemd.apps.serve.body import Photo
from deepemd.apps.serve.limits import Limits, Refused
from deepemd.apps.serve.worker import Worker, measure
from deepemd.errors import InputError

JPEG = encoded(photo(40, 30))


class Classifier:
    """Answers with the width of each picture; one of 13 pixels breaks it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()

    def stream_embedded(self, pictures):
        self.go.wait(60)
        self.batches.append([picture.width for picture in pictures])
        if 13 in self.batches[-1]:
            raise RuntimeError("no")
        return iter([(None, picture.width) for picture in pictures])


@pytest.fixture
def classifier():
    return Classifier()


@pytest.fixture
def worker(classifier):
    one = Worker(classifier, Limits(megapixels=1), batch=4)
    yield one
    classifier.go.set()
    one.stop()


def of_width(*widths: int, pixels: int = 100) -> list[Photo]:
    return [
        Photo(f"{width}.png", encoded(Image.new("RGB", (width, 5), "red"), "PNG"), pixels=pixels) for width in widths
    ]


def begin(worker) -> None:
    """Let the worker wait in a batch of its own, so that the next photos wait together."""
    worker.submit(of_width(1))
    while worker._waiting:
        pass


def test_what_waits_is_classified_together_and_in_order(worker, classifier):
    begin(worker)
    futures = [*worker.submit(of_width(2, 3)), *worker.submit(of_width(4)), *worker.submit(of_width(5, 6))]
    classifier.go.set()
    assert [one.result(60) for one in futures] == [2, 3, 4, 5, 6]
    assert classifier.batches == [[1], [2, 3, 4, 5], [6]]


def test_large_photos_are_classified_in_smaller_batches(worker, classifier):
    begin(worker)
    futures = worker.submit(
        [*of_width(2, 3, pixels=600_000), *of_width(4, pixels=300_000), *of_width(5, pixels=900_000)]
    )
    classifier.go.set()
    assert [one.result(60) for one in futures] == [2, 3, 4, 5]
    assert classifier.batches == [[1], [2], [3, 4], [5]]


def test_photos_of_clients_that_have_left_are_not_classified(worker, classifier):
    begin(worker)
    gone, here = worker.submit(of_width(2, 3))
    assert gone.cancel()
    classifier.go.set()
    assert here.result(60) == 3
    assert classifier.batches == [[1], [3]]
    with pytest.raises(CancelledError):
        gone.result(60)


def test_a_photo_that_breaks_the_model_does_no_harm_to_the_others(worker, classifier, caplog):
    begin(worker)
    first, bad, last = worker.submit(of_width(2, 13, 4))
    classifier.go.set()
    assert (first.result(60), last.result(60)) == (2, 4)
    with pytest.raises(RuntimeError):
        bad.result(60)
    assert "13.png could not be classified" in caplog.text
    assert worker.alive


def test_a_photo_that_cannot_be_decoded_has_an_error(worker, classifier):
    classifier.go.set()
    cut, good = worker.submit([Photo("cut.jpg", JPEG[:400]), *of_width(2)])
    assert isinstance(cut.result(60), InputError)
    assert str(cut.result()).startswith("cut.jpg: truncated or damaged image")
    assert good.result(60) == 2


def test_stopping_finishes_what_waits(worker, classifier):
    futures = worker.submit(of_width(*range(20, 30)))
    classifier.go.set()
    worker.stop()
    assert [one.result(0) for one in futures] == list(range(20, 30))
    with pytest.raises(Refused, match="stopping"):
        worker.submit(of_width(2))


def large(width: int, height: int) -> bytes:
    """A PNG file of some kilobytes."""
    return png(width, height, 1, 0, zlib.compress(bytes((width // 8 + 1) * height), 9))


def gif(frames: int) -> bytes:
    first, *rest = [Image.new("L", (100, 100), k) for k in range(frames)]
    return encoded(first, "GIF", save_all=True, append_images=rest)


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (JPEG, None, ""),
        (encoded(photo(40, 30), "WEBP"), None, ""),
        (gif(3), None, ""),
        (gif(9), 413, "a.jpg: 9 frames of 100 x 100 pixels: send one of them"),
        (encoded(photo(200, 200)), 413, "a.jpg: 200 x 200 pixels, at most 0.02 million are read: scale it down"),
        (large(20_000, 10_000), 413, "a.jpg: too many pixels to be decoded"),
        (large(9_000, 10_000), 413, "a.jpg: too many pixels to be decoded"),
        (b"<!doctype html>", 422, "a.jpg: not an image but a web page: download the image itself"),
        (b"\x00" * 100, 422, "a.jpg: not an image that Pillow can read"),
        (JPEG[:20], 422, "a.jpg"),
    ],
)
def test_size_and_kind_are_known_before_anything_is_decoded(content, status, message, recwarn):
    one = Photo("a.jpg", content)
    measure(one, Limits(megapixels=0.02))
    assert (one.error and one.error.status) == status
    assert message in str(one.error)
    assert (one.pixels > 0) == (status is None or "at most" in message or "frames" in message)
    assert not recwarn.list
