"""CUB-200-2011 in its true layout, with made-up images.

Tests deepemd.data.benchmarks.cub.
"""

import io
import shutil
import tarfile
import zipfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepemd.data import prepare
from deepemd.data.benchmarks.cub import cub
from deepemd.data.benchmarks.published import FILES, class_list
from deepemd.errors import InputError

BIRDS = ("019.Gray_Catbird", "005.Crested_Auklet", "159.Black_and_white_Warbler", "133.White_throated_Sparrow")
BOXES = ["3.0 2.0 20.0 10.0", "30.0 0.0 100.0 100.0"]  # one within the image, one that reaches out of it


def official(folder: Path, mode: str = "RGB") -> Path:
    """The four birds, two images each, 40 wide and 30 high; each pixel holds its column and row."""
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(40)[None, :], np.arange(30)[:, None]
    images, boxes, number = [], [], 0
    for label in BIRDS:
        (folder / "images" / label).mkdir(parents=True)
        for k, box in enumerate(BOXES):
            number += 1
            name = f"{label}/{label[4:]}_{k:04}.png"
            Image.fromarray(pixels).convert(mode).save(folder / "images" / name)
            images.append(f"{number} {name}")
            boxes.append(f"{number} {box}")
    (folder / "images.txt").write_text("\n".join(images) + "\n")
    (folder / "bounding_boxes.txt").write_text("\n".join(boxes) + "\n")
    return folder


def test_the_lists():
    lists = [class_list("cub", split) for split in FILES]
    assert [len(names) for names in lists] == [100, 50, 50]
    assert sorted(int(name[:3]) for names in lists for name in names) == list(range(1, 201))
    assert tuple(
        next(split for split in FILES if label in class_list("cub", split)) for label in (BIRDS[0], BIRDS[2], BIRDS[3])
    ) == ("base", "val", "novel")


def pack(folder: Path) -> Path:
    with tarfile.open(folder.with_suffix(".tgz"), "w:gz") as file:
        file.add(folder, "CUB_200_2011")
        info = tarfile.TarInfo("attributes.txt")
        file.addfile(info, io.BytesIO())
    return folder.with_suffix(".tgz")


@pytest.mark.parametrize("form", ["folder", "tgz"])
def test_birds_are_cropped(tmp_path, form):
    source = official(tmp_path / "CUB_200_2011")
    store = prepare("cub", pack(source) if form == "tgz" else source, root=tmp_path / "root", strict=False)
    assert store.notes["note"] == "cropped to the bounding boxes; the crops are PNG"
    assert [images.classes for images in store.splits.values()] == expected_classes()
    for images in store.splits.values():
        within, clipped = np.asarray(images.image(0)), np.asarray(images.image(1))
        assert within.shape == (10, 20, 3)
        assert within[0, 0].tolist() == [3, 2, 0]
        assert within[-1, -1].tolist() == [22, 11, 0]
        assert clipped.shape == (30, 10, 3)
        assert clipped[0, 0].tolist() == [30, 0, 0]
        assert clipped[-1, -1].tolist() == [39, 29, 0]


def expected_classes() -> list[tuple[str, ...]]:
    return [tuple(sorted(name for name in BIRDS if name in class_list("cub", split))) for split in FILES]


def test_whole_images_are_another_data_set(tmp_path):
    source = official(tmp_path / "CUB_200_2011")
    store = prepare("cub-whole", source, root=tmp_path / "root", strict=False)
    assert store.path.name == "cub-whole"
    assert store.notes["note"] == "whole images, not cropped to the bounding boxes"
    images = store.splits["novel"]
    assert images.image(0).size == (40, 30)
    assert images.encoded(0) == (source / "images" / images.names[0]).read_bytes()


def test_grey_birds(tmp_path):
    """A few of the published images are grey."""
    store = prepare("cub", official(tmp_path / "CUB_200_2011", "L"), root=tmp_path / "root", strict=False)
    assert np.asarray(store.splits["val"].image(0)).shape == (10, 20, 3)


def test_the_published_numbers_are_accepted_and_others_refused(tmp_path):
    """All 200 classes with as many images as were published; the drafts alone, as nothing is decoded for them."""
    numbers = {"base": (5891, 41, 60), "val": (2932, 49, 60), "novel": (2965, 45, 60)}
    assert sum(images for images, _, _ in numbers.values()) == 11788
    names = []
    for split, (images, fewest, most) in numbers.items():
        classes = class_list("cub", split)
        each = [fewest, most, *[most] * (len(classes) - 2)]
        k = 2
        while sum(each) > images:
            each[k] = max(fewest, each[k] - (sum(each) - images))
            k += 1
        names += [f"{label}/{i}.jpg" for label, n in zip(classes, each, strict=True) for i in range(n)]

    def pack_list(path: Path, listed: list[str]) -> Path:
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(f"images/{name}", b"")
            file.writestr("images.txt", "\n".join(f"{i} {name}" for i, name in enumerate(listed, 1)))
            file.writestr("bounding_boxes.txt", "\n".join(f"{i} 1.0 1.0 9.0 9.0" for i in range(1, 11789)))
        return path

    with ExitStack() as opened:
        drafts = cub(pack_list(tmp_path / "whole.zip", names), tmp_path, opened)
        assert [len(draft.names) for draft in drafts.values()] == [5891, 2932, 2965]
    with pytest.raises(InputError, match=r"not the novel split of cub.* 2,965 in all: found 50 .* 2,964 in all"):
        prepare("cub", pack_list(tmp_path / "less.zip", names[:-1]), root=tmp_path / "root")


def test_a_part_of_the_birds_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"not the base split of cub, which has 100 given classes of 41 to 60 images"):
        prepare("cub", official(tmp_path / "CUB_200_2011"), root=tmp_path / "root")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "images.txt",
            "1 019.Gray_Catbird/a.jpg\n",
            r"images\.txt: names images/019\.Gray_Catbird/a\.jpg, which",
        ),
        ("images.txt", "1 a b\n", r"images\.txt:1: expected 2 columns"),
        ("images.txt", "1 x/a.png\n", r"images\.txt: none of its classes is one of CUB's"),
        ("images.txt", None, r"CUB_200_2011: no CUB-200-2011 found: expected CUB_200_2011\.tgz"),
        ("bounding_boxes.txt", None, r"bounding_boxes\.txt: there is no such file"),
        ("bounding_boxes.txt", "1 1 1 1 1\n", r"bounding_boxes\.txt: has no box of 019\.Gray_Catbird/"),
        ("bounding_boxes.txt", "1 1 1 1 1\n1 1 1 1 1", r"bounding_boxes\.txt:2: expected 5 columns and a new number"),
        ("bounding_boxes.txt", "1 a 1 1 1\n", r"the box of image 1 is not four numbers"),
        ("bounding_boxes.txt", "\n".join(f"{i} 50 1 9 9" for i in range(1, 9)), "lies outside of the image"),
        ("bounding_boxes.txt", "\n".join(f"{i} nan 1 9 9" for i in range(1, 9)), "the box of image 1 is not four num"),
    ],
)
def test_bad_sources(tmp_path, file, content, message):
    source = official(tmp_path / "CUB_200_2011")
    (source / "images" / "x").mkdir()
    shutil.copy(next((source / "images" / "019.Gray_Catbird").iterdir()), source / "images" / "x" / "a.png")
    (source / file).unlink() if content is None else (source / file).write_text(content)
    with pytest.raises(InputError, match=message):
        prepare("cub", source, root=tmp_path / "root", strict=False)
    assert not list((tmp_path / "root").iterdir())
