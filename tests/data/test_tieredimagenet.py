"""tieredImageNet in its three layouts, with made-up images.

Tests deepemd.data.benchmarks.tieredimagenet.
"""

import io
import pickle
import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepemd.data import prepare
from deepemd.data.benchmarks.published import FILES, class_list
from deepemd.data.benchmarks.tieredimagenet import tieredimagenet
from deepemd.errors import InputError

LISTS = {split: class_list("tieredimagenet", split) for split in FILES}
IMAGES = {"base": 448_695, "val": 124_261, "novel": 206_209}
ELSEWHERE = "n01704323"  # a class of ILSVRC, of miniImageNet too, that is in no split


def test_the_lists():
    assert [len(names) for names in LISTS.values()] == [351, 97, 160]
    assert len(set().union(*LISTS.values())) == 608
    assert ELSEWHERE not in set().union(*LISTS.values())
    assert sum(IMAGES.values()) == 779_165


def tree(folder: Path, divided: bool) -> Path:
    """Two classes of each split, two images each, and one of no split."""
    classes = [(label, FILES[split]) for split, names in LISTS.items() for label in names[-2:]]
    for k, (label, stem) in enumerate([*classes, (ELSEWHERE, "train")]):
        place = folder / stem / label if divided else folder / "train" / label
        place.mkdir(parents=True)
        for number in (5, 12):
            Image.new("RGB", (k + 1, number)).save(place / f"{label}_{number}.JPEG")
    return folder


@pytest.mark.parametrize("form", ["ilsvrc", "classes alone", "divided", "zip"])
def test_class_folders(tmp_path, form):
    source = tree(tmp_path / "imagenet", divided=form in ("divided", "zip"))
    if form == "classes alone":
        source = source / "train"
    if form == "zip":
        source = Path(shutil.make_archive(str(source), "zip", tmp_path, "imagenet"))
    store = prepare("tieredimagenet", source, root=tmp_path / "root", strict=False)
    for s, (split, images) in enumerate(store.splits.items()):
        assert images.classes == LISTS[split][-2:]
        assert [images.image(i).size for i in range(4)] == [(2 * s + 1 + k, n) for k in (0, 1) for n in (12, 5)]
    assert store.notes["note"] == ""


def test_strict_refuses_what_is_not_whole(tmp_path):
    message = (
        "not the base split of tieredimagenet, which has 351 given classes of 732 to 1300 images, 448,695 in all: "
        r"found 2 classes of 2 images, 4 in all; n\d{8} is absent"
    )
    with pytest.raises(InputError, match=message):
        prepare("tieredimagenet", tree(tmp_path / "imagenet", divided=True), root=tmp_path / "root")


def test_other_divisions_are_refused(tmp_path):
    """A class in the folder of another split: another division, or ILSVRC's own validation images."""
    source = tree(tmp_path / "imagenet", divided=True)
    (source / "test" / LISTS["novel"][-1]).rename(source / "val" / LISTS["novel"][-1])
    with pytest.raises(
        InputError, match=rf"class {LISTS['novel'][-1]} is not in the val split of tieredImageNet: this"
    ):
        prepare("tieredimagenet", source, root=tmp_path / "root", strict=False)
    source = tree(tmp_path / "ilsvrc", divided=False)
    shutil.copytree(source / "train", source / "val")
    with pytest.raises(InputError, match="or ILSVRC's own validation images: give the folder of its training images"):
        prepare("tieredimagenet", source, root=tmp_path / "root", strict=False)


def encoded(value: int) -> np.ndarray:
    """As cv2.imencode gives it to the file: uint8 (bytes, 1)."""
    file = io.BytesIO()
    Image.new("RGB", (84, 84), (value, 1, 2)).save(file, "PNG")
    return np.frombuffer(file.getvalue(), np.uint8)[:, None]


def pickles(folder: Path, numbers: list[int], images: object, table: dict, protocol: int = 2) -> Path:
    folder.mkdir(exist_ok=True)
    for stem in FILES.values():
        (folder / f"{stem}_images_png.pkl").write_bytes(pickle.dumps(images, protocol))
        (folder / f"{stem}_labels.pkl").write_bytes(pickle.dumps(table or {"labels": numbers}, protocol))
    return folder


@pytest.mark.parametrize("form", ["words", "bytes", "numbers", "object array"])
def test_pickles(tmp_path, form):
    images, numbers = [encoded(10 * k) for k in range(6)], [1, 0, 1, 0, 2, 2]
    table: dict = {"label_specific": np.array(numbers, np.int32), "label_specific_str": ["crane", "Yorkshire", "crane"]}
    if form == "bytes":
        table = {key.encode(): value for key, value in table.items()}
    if form == "object array":
        rows, images = images, np.empty(6, dtype=object)
        images[:] = rows
    source = pickles(tmp_path / "tiered", numbers, images, {} if form == "numbers" else table)
    store = prepare("tieredimagenet", source, root=tmp_path / "root", strict=False)
    assert list(store.splits) == list(FILES)
    found = store.splits["val"]
    assert found.classes == (
        ("000", "001", "002") if form == "numbers" else ("000 crane", "001 Yorkshire", "002 crane")
    )
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert [found.image(i).getpixel((7, 7)) for i in range(6)] == [(10 * k, 1, 2) for k in (1, 3, 0, 2, 4, 5)]
    assert found.encoded(0) == encoded(10).tobytes()
    assert "84 x 84 copy" in store.notes["note"]


def test_whole_pickles_are_accepted_and_others_refused(tmp_path):
    """As many classes and images as were published; every image is the same array, which a pickle holds once."""
    image = encoded(0)

    def write(classes: int, images: int) -> None:
        numbers = np.arange(images) % classes
        (tmp_path / "val_images_png.pkl").write_bytes(pickle.dumps([image] * images))
        table = {"label_specific": numbers, "label_specific_str": [f"word {k}" for k in range(classes)]}
        (tmp_path / "val_labels.pkl").write_bytes(pickle.dumps(table))

    write(97, IMAGES["val"])
    with ExitStack() as opened:
        assert [len(draft.names) for draft in tieredimagenet(tmp_path, tmp_path, opened).values()] == [IMAGES["val"]]
    write(97, IMAGES["val"] - 1)
    with (
        ExitStack() as opened,
        pytest.raises(InputError, match=r"124,261 in all: found 97 .* 124,260 in all"),
    ):
        tieredimagenet(tmp_path, tmp_path, opened)
    write(96, 96 * 1290)
    with (
        ExitStack() as opened,
        pytest.raises(InputError, match=r"found 96 classes .* 96 of them other classes"),
    ):
        tieredimagenet(tmp_path, tmp_path, opened)


@pytest.mark.parametrize(
    ("images", "table", "message"),
    [
        ([encoded(1)], {"labels": [0, 1]}, "1 images, but 2 labels"),
        ([encoded(1)], {"labels": ["a"]}, "its labels are not the numbers of classes"),
        ([encoded(1)], {"label_specific": [1], "label_specific_str": ["a"]}, "has class 1, but words for 1 classes"),
        ([encoded(1)], {"label": [1]}, "expected a pickled dict with 'labels', but found label"),
        ({"a": 1}, {"labels": [0]}, "expected a list of images"),
        ([encoded(1).astype(float)], {"labels": [0]}, r"image 0 is float64 .* not the bytes of a PNG file"),
        ([encoded(1)[:99]], {"labels": [0]}, r"truncated or damaged image"),
        (["text"], {"labels": [0]}, r"image 0 is <U4 \(\), not the bytes"),
    ],
)
def test_bad_pickles(tmp_path, images, table, message):
    with pytest.raises(InputError, match=message):
        prepare("tieredimagenet", pickles(tmp_path / "t", [], images, table), root=tmp_path / "root", strict=False)


def test_nothing_and_half(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no tieredImageNet found: expected class folders such as n01530575"):
        prepare("tieredimagenet", tmp_path / "empty", root=tmp_path / "root")
    (tmp_path / "empty" / "val_images_png.pkl").write_bytes(pickle.dumps([encoded(1)]))
    with pytest.raises(InputError, match=r"has val_images_png\.pkl, but no val_labels\.pkl: put it in the same folder"):
        prepare("tieredimagenet", tmp_path / "empty", root=tmp_path / "root")
