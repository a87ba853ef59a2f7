"""Omniglot: all of the real set, the forms it comes in, and what must be refused.

Tests deepemd.data.benchmarks.omniglot.
"""

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepemd.data import EpisodeSampler, Store, prepare, verify
from deepemd.data.benchmarks.published import class_list
from deepemd.errors import InputError


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return prepare("omniglot", shared_data / "omniglot", root=tmp_path_factory.mktemp("root"))


def test_real_splits(real):
    expected = {"base": (813, 16260), "val": (151, 3020), "novel": (659, 13180)}
    assert list(real.splits) == list(expected)
    for split, images in real.splits.items():
        f = images.fingerprint
        assert (f.classes, f.images) == expected[split]
        assert (f.per_class_min, f.per_class_max, f.median_width, f.median_height) == (20, 20, 105, 105)
    alphabets = [{name.split("/")[0] for name in images.classes} for images in real.splits.values()]
    assert [len(names) for names in alphabets] == [25, 5, 20]
    assert len(set.union(*alphabets)) == 50  # no alphabet is in two splits
    assert verify(real) == []


def test_real_drawings_are_the_original_files(real, shared_data):
    for split, tree in (("val", "images_background"), ("novel", "images_evaluation")):
        images = real.splits[split]
        with zipfile.ZipFile(shared_data / "omniglot" / f"{tree}.zip") as original:
            for i in range(0, len(images), 251):
                assert images.names[i].startswith(f"{tree}/{images.classes[images.labels[i]]}/")
                encoded = original.read(images.names[i])
                assert images.encoded(i) == encoded
                assert np.array_equal(
                    np.asarray(images.image(i)), np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
                )
                assert np.asarray(images.image(i)).mean() > 127  # black strokes on white
    for episode in EpisodeSampler(images.labels, n_way=20, n_query=5, n_episodes=20, seed=3):
        assert np.array_equal(images.labels[episode.query], episode.classes[episode.query_labels])


TREES = {
    "images_background": ("Greek/character01", "Greek/character02", "Hebrew/character01"),
    "images_evaluation": ("Tibetan/character01", "Angelic/character07"),
}


def small(folder: Path) -> Path:
    """A little Omniglot, unpacked: two drawings a character, each of its own size."""
    for tree, characters in TREES.items():
        for k, character in enumerate(characters):
            (folder / tree / character).mkdir(parents=True)
            for drawer in (1, 2):
                Image.new("1", (10 * k + drawer, 9), 1).save(folder / tree / character / f"070{k}_0{drawer}.png")
    return folder


def zipped(folder: Path, tree: str) -> None:
    shutil.make_archive(str(folder / tree), "zip", folder, tree)
    shutil.rmtree(folder / tree)


@pytest.mark.parametrize("form", ["trees", "zips", "one of each", "one zip", "wrapped"])
def test_forms(tmp_path, form):
    source = small(tmp_path / "omniglot")
    if form in ("zips", "one of each"):
        zipped(source, "images_background")
    if form == "zips":
        zipped(source, "images_evaluation")
    if form == "one zip":
        source = Path(shutil.make_archive(str(source), "zip", tmp_path, "omniglot"))
    if form == "wrapped":
        (tmp_path / "outer").mkdir()
        source = source.rename(tmp_path / "outer" / "omniglot").parent
    store = prepare("omniglot", source, root=tmp_path / "root", strict=False)
    assert {split: images.classes for split, images in store.splits.items()} == {
        "base": ("Greek/character01", "Greek/character02"),
        "val": ("Hebrew/character01",),
        "novel": ("Angelic/character07", "Tibetan/character01"),
    }
    assert store.splits["novel"].names[0] == "images_evaluation/Angelic/character07/0701_01.png"
    assert [store.splits["base"].image(i).width for i in range(4)] == [1, 2, 11, 12]


@pytest.mark.parametrize("zip_it", [True, False])
def test_one_tree_alone_gives_its_splits(tmp_path, zip_it):
    source = small(tmp_path / "omniglot")
    if zip_it:
        zipped(source, "images_evaluation")
    path = source / ("images_evaluation.zip" if zip_it else "images_evaluation")
    assert list(prepare("omniglot", path, root=tmp_path / "root", strict=False).splits) == ["novel"]


def test_other_characters_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"not the base split of omniglot, which has 813 given classes of 20"):
        prepare("omniglot", small(tmp_path / "omniglot"), root=tmp_path / "root")
    assert not list((tmp_path / "root").iterdir())


def test_a_missing_drawing_is_refused(tmp_path):
    drawings = [f"{name}/{k}.png" for name in class_list("omniglot", "novel") for k in range(20)]
    with zipfile.ZipFile(tmp_path / "images_evaluation.zip", "w") as file:
        for drawing in drawings[:-13] + drawings[-12:]:
            file.writestr(f"images_evaluation/{drawing}", b"")
    with pytest.raises(InputError, match="found 659 classes of 19 to 20 images, 13,179 in all"):
        prepare("omniglot", tmp_path, root=tmp_path / "root")


def test_ambiguous_and_empty_sources(tmp_path):
    source = small(tmp_path / "omniglot")
    shutil.make_archive(str(source / "images_background"), "zip", source, "images_background")
    with pytest.raises(InputError, match=r"omniglot: has images_background\.zip and its files unpacked: keep one"):
        prepare("omniglot", source, root=tmp_path / "root", strict=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no Omniglot found: expected images_background and images_evaluation"):
        prepare("omniglot", tmp_path / "empty", root=tmp_path / "root")


def test_without_a_source_it_says_what_to_get(tmp_path):
    with pytest.raises(InputError, match=r"_evaluation\.zip from .*brendenlake/omniglot.* --source PATH"):
        prepare("omniglot", root=tmp_path / "root")
