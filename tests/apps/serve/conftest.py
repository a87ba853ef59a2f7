"""A small saved classifier, photos to send, and a server that answers."""

import pytest

pytest.importorskip("fastapi", reason="needs FastAPI: pip install 'deepemd[serve]'")

from endpoint import running

from deepemd.apps.samples import sample_classes, sample_queries
from deepemd.apps.serve.limits import Limits
from deepemd.classifier.classifier import PhotoClassifier


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A folder that FewShotClassifier.save wrote."""
    photos = {name: some[:3] for name, some in sample_classes().items()}
    classifier = PhotoClassifier(cache=False).fit(
        [one for some in photos.values() for one in some], [name for name, some in photos.items() for _ in some]
    )
    return classifier.save(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture(scope="session")
def classifier(model):
    return PhotoClassifier.load(model, cache=False)


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Files to send, all different."""
    folder = tmp_path_factory.mktemp("photos")
    pictures = [*(one for some in sample_classes().values() for one in some[3:]), *sample_queries()]
    files = [folder / f"{k}.jpg" for k in range(len(pictures))]
    for picture, file in zip(pictures, files, strict=True):
        picture.save(file, quality=92)
    return files


@pytest.fixture(scope="session")
def own(classifier, photos):
    """The classifier's own prediction for each file."""
    return dict(zip(photos, classifier.stream(photos), strict=True))


@pytest.fixture(scope="module")
def server(classifier):
    """The port of a server, and what answers there."""
    with running(classifier, Limits(megabytes=1, megapixels=2, photos=4, seconds=5)) as one:
        yield one
