"""Class folders as people have them: check, predict, the store and the index find the same classes and photos."""

import logging
import os
import tarfile
import zipfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deepemd import FCN, DeepEMD, conv4
from deepemd.apps.retrieval.building import build_index
from deepemd.data import load, prepare
from deepemd.data.archives import open_archive
from deepemd.data.catalog import messages
from deepemd.data.folders import LOOSE, class_drafts, class_folders, find_images, index_draft
from deepemd.data.photos import class_photos, query_photos
from deepemd.errors import InputError


def picture(path: Path, form: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = list(path.name.encode())
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path, form)
    return path


def pictures(root: Path, *names: str) -> Path:
    for name in names:
        picture(root / name)
    return root


PHOTOS = {  # class -> its photos
    "rose": ["1.jpg", "2.JPG", "s1/3.jpeg", "s1/May/4.png"],
    "tulip": ["1.jfif", "2.jpe"],
    "no ending": ["IMG_1", "IMG_2.dat", "IMG_3.txt"],
    "train": ["1.webp", "2.tiff"],
    "日本": ["1.gif", "2.bmp", "3.ppm", "4.avif", "5.jp2"],
    "Rose": ["1.png"],
    "linked": ["3.jpeg", "May/4.png"],  # a link to rose/s1
}
FORMS = {"jpg": "JPEG", "jpeg": "JPEG", "jfif": "JPEG", "jpe": "JPEG", "png": "PNG", "webp": "WEBP", "tiff": "TIFF"}
FORMS |= {"gif": "GIF", "bmp": "BMP", "ppm": "PPM", "avif": "AVIF", "jp2": "JPEG2000"}


@pytest.fixture
def nasty(tmp_path: Path) -> Path:
    """Photos of every kind, among all that cameras, systems and network drives put there."""
    root = tmp_path / "nasty"
    for label, names in PHOTOS.items():
        for name in names if label != "linked" else ():
            picture(root / label / name, FORMS.get(name.rpartition(".")[2].lower(), "JPEG"))
    (root / "linked").symlink_to("rose/s1")
    for folder in ("", "rose", "rose/s1"):
        for name in ("@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "__MACOSX", ".Trash-1000", ".thumbnails"):
            pictures(root / folder / name, "1.jpg/SYNOPHOTO_THUMB_XL.jpg", "x/thumb.png", "thumb.png")
        picture(root / folder / "._1.jpg")
        for name in ("Thumbs.db", "desktop.ini", ".DS_Store"):
            (root / folder / name).write_bytes(b"x")
    for name in ("notes.txt", "1.xmp", "1.json", "1.aae", "film.mp4", "paper.pdf"):
        (root / "rose" / name).write_bytes(b"something else")
    (root / "rose" / "folder.jpg").mkdir()
    (root / "tulip" / "again.jfif").symlink_to("1.jfif")  # the same photo of the same class
    (root / "documents").mkdir()
    (root / "documents" / "paper.pdf").write_bytes(b"%PDF-1.7")
    (root / "empty").mkdir()
    pictures(root / "hidden only" / "@eaDir", "1.png")
    (root / "LICENSE").write_text("free")
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return DeepEMD(conv4(channels=4, pools=3), FCN(), image_size=16, resize=16).save(tmp_path_factory.mktemp("model"))


def stored(images) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, label in zip(images.names, images.labels.tolist(), strict=True):
        found.setdefault(images.classes[label], []).append(name.partition("/")[2] if "/" in name else name)
    return found


@pytest.mark.skipif(os.name != "posix", reason="links need no rights on POSIX")
@pytest.mark.parametrize("loose", [False, True])
def test_all_commands_find_the_same(nasty, model, tmp_path, loose):
    if loose:
        picture(nasty / "loose.png")
    photos = class_photos(nasty)
    found: dict[str, list[str]] = {}
    for file, label in zip(photos.files, photos.labels, strict=True):
        found.setdefault(label, []).append(file.relative_to(nasty / label).as_posix())
    assert found == PHOTOS
    others = {file.relative_to(nasty).as_posix() for file in photos.others}
    assert others == {
        *(f"rose/{name}" for name in ("notes.txt", "1.xmp", "1.json", "1.aae", "film.mp4", "paper.pdf", "folder.jpg")),
        *("documents/paper.pdf", "LICENSE", *["loose.png"] * loose),
    }
    assert photos.empty == ["documents", "empty", "hidden only"]
    assert len(photos.warnings) == 1  # of Rose and rose
    store = load(nasty, root=tmp_path / "root")
    assert stored(store.splits["all"]) == PHOTOS
    index = build_index(model, nasty, tmp_path / "index", cache=tmp_path / "cache")
    assert stored(index.images) == {**PHOTOS, **({LOOSE: ["loose.png"]} if loose else {})}
    queries = query_photos([nasty])
    repeated = ["tulip/again.jfif"]  # for queries, every name counts
    assert {file.relative_to(nasty).as_posix() for file in queries.files} == {
        *(f"{label}/{name}" for label, names in PHOTOS.items() for name in names),
        *repeated,
        *["loose.png"] * loose,
    }


def test_what_is_left_out_is_reported_by_the_store_and_each_time_it_is_used(nasty, tmp_path, caplog):
    store = prepare(nasty, root=tmp_path / "root")
    assert [line.partition(":")[0] for line in messages(store)] == [
        "3 class folders hold no images",
        "9 files are no images, and ignored",
        "the classes 'Rose' and 'rose' are different, but look alike",
    ]
    for _ in range(2):
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            load(nasty, root=tmp_path / "root")
        assert "3 class folders hold no images: documents, empty, hidden only" in caplog.text


def test_an_emptied_class_is_seen_although_no_file_has_changed(tmp_path):
    source = pictures(tmp_path / "mine", "a/1.png", "b/1.png")
    assert messages(load(source, root=tmp_path / "root")) == []
    (source / "c").mkdir()
    assert messages(load(source, root=tmp_path / "root")) == ["1 class folder holds no image: c"]


CLASSES = ("cat/1.png", "cat/2.png", "dog/1.png")


def spread(root: Path, *folders: str) -> Path:
    return pictures(root, *(f"{folder}/{name}" for folder in folders for name in CLASSES))


def refusals(folder: Path, model: Path, tmp_path: Path) -> dict[str, str]:
    """What each way to read a folder says when it refuses it."""
    ways = {
        "photos": lambda: class_photos(folder),
        "store": lambda: load(folder, root=tmp_path / "root"),
        "index": lambda: build_index(model, folder, tmp_path / "index"),
    }
    said = {}
    for name, way in ways.items():
        with pytest.raises(InputError) as caught:
            way()
        said[name] = str(caught.value)
    return said


@pytest.mark.parametrize("folders", [("train", "val"), ("Training", "Testing"), ("train", "valid", "test")])
def test_splits_are_no_classes(tmp_path, model, folders):
    root = spread(tmp_path / "mine", *folders)
    said = refusals(root, model, tmp_path)
    for way in ("photos", "index"):
        assert "are splits, not classes: pass one of them, such as" in said[way]
        assert f"{root}/{folders[0]}; if they are classes, rename them" in said[way]
    assert "class 'cat' is in both" in said["store"]  # which reads splits, of other classes each
    assert class_photos(root / folders[0]).classes == ["cat", "dog"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_alone_is_named_as_one(tmp_path, split):
    root = spread(tmp_path / "mine", split)
    with pytest.raises(
        InputError, match=f"its only folder {split} is a split, not a class: pass {root}/{split}; if it"
    ):
        class_photos(root)


def test_an_index_among_the_classes_is_none(tmp_path, model):
    root = pictures(tmp_path / "mine", *CLASSES)
    build_index(model, root, root / "index")  # whose file of images begins like one of them
    prepare(root, root=root / "stores")
    photos = class_photos(root)
    assert (photos.classes, len(photos.files)) == (["cat", "dog"], 3)
    assert photos.empty == ["index", "stores"]
    assert build_index(model, root, root / "index", force=True).images.classes == ("cat", "dog")
    assert len(query_photos([root]).files) == 3


@pytest.mark.parametrize(
    ("folders", "remedy"),
    [
        (("support", "query"), "pass one of them, such as {root}/support"),
        (("photos",), "if these are the classes, pass {root}/photos;"),
        (("my/photos",), "if these are the classes, pass {root}/my/photos;"),
        (("data/support", "data/query"), "pass one of them, such as {root}/data/support"),
    ],
)
def test_a_folder_that_is_a_level_too_high(tmp_path, model, folders, remedy):
    root = spread(tmp_path / "mine", *folders)
    said = refusals(root, model, tmp_path)
    for way in ("photos", "index"):
        assert remedy.format(root=root) in said[way]
    remedy = remedy.replace(
        "pass one of them, such as {root}/data/support", "if these are the splits, pass {root}/data"
    )
    assert remedy.format(root=root) in said["store"] or "none of them: expected <class>/<image>" in said["store"]


def test_splits_below_one_folder_are_a_data_set(tmp_path):
    root = pictures(tmp_path / "mine", "data/train/cat/1.png", "data/test/dog/1.png")
    with pytest.raises(InputError, match=r"folders test and train in it: if these are the splits, pass .*mine/data;"):
        load(root, root=tmp_path / "root")
    assert list(load(root / "data", root=tmp_path / "root").splits) == ["base", "novel"]
    spread(root / "data" / "val", "wrapped")
    with pytest.raises(InputError, match=r"cat and dog in it: if these are the classes, move them to .*data/val;"):
        load(root / "data", root=tmp_path / "root")


def test_splits_without_class_folders(tmp_path, model):
    root = pictures(tmp_path / "mine", "train/1.png", "train/2.png", "test/1.png")
    said = refusals(root, model, tmp_path)
    assert "put each class into a folder of its own" in said["photos"]
    assert "put each class into a folder of its own" in said["index"]
    assert "has no class folders" in said["store"]


def test_the_class_train_beside_others(tmp_path):
    root = pictures(tmp_path / "mine", "train/1.png", "bus/s1/1.png", "car/1.png")
    assert class_photos(root).labels == ["bus", "car", "train"]
    assert class_photos(root).warnings == []
    assert load(root, root=tmp_path / "root").splits["all"].classes == ("bus", "car", "train")


def test_photos_beside_one_folder_can_be_indexed(tmp_path):
    root = pictures(tmp_path / "mine", "1.png", "album/2023/2.png", "album/2024/3.png")
    with closing(open_archive(root, tmp_path)) as archive:
        draft, found = index_draft(archive)
        assert draft.classes == (LOOSE, "album")
        assert found.messages("has no class") == ["1 image is in no class folder, and has no class: 1.png"]
        with pytest.raises(InputError, match="one folder holds all images"):
            class_folders(archive)


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz"])
def test_archives_follow_the_same_rules(nasty, tmp_path, form):
    path = tmp_path / f"x.{form}"
    (nasty / "linked").unlink()  # archives hold no links
    (nasty / "tulip" / "again.jfif").unlink()
    if form == "zip":
        with zipfile.ZipFile(path, "w") as file:
            for name in sorted(nasty.rglob("*")):
                file.write(name, Path("wrapped") / name.relative_to(nasty))
    else:
        with tarfile.open(path, f"w:{form[4:]}") as file:
            file.add(nasty, "./wrapped")
    with closing(open_archive(path, tmp_path)) as archive:
        drafts, found = class_drafts(archive)
        rows: dict[str, list[str]] = {}
        for label, name in found.rows:
            rows.setdefault(label, []).append(name.removeprefix(f"wrapped/{label}/"))
        assert rows == {label: names for label, names in PHOTOS.items() if label != "linked"}
        assert drafts["all"].classes == tuple(sorted(rows))
        assert found.empty == ["wrapped/documents", "wrapped/empty", "wrapped/hidden only"]
        others = find_images(archive)[1]
        assert "wrapped/rose/notes.txt" in others
        assert not any("@eaDir" in name or "Thumbs" in name for name in others)


def test_empty_splits_and_classes_of_splits_are_named(tmp_path):
    root = spread(tmp_path / "mine", "train")
    (root / "test").mkdir()
    (root / "train" / "bird").mkdir()
    picture(root / "train" / "loose.png")
    store = prepare(root, root=tmp_path / "root")
    assert store.splits["base"].classes == ("cat", "dog")
    assert messages(store) == [
        "2 class folders hold no images: train/bird, test",
        "1 image is in no class folder, and ignored: train/loose.png",
    ]


def test_a_class_whose_folder_is_a_link_that_leads_nowhere_is_named(tmp_path):
    root = pictures(tmp_path / "mine", "a/1.png", "b/1.png")
    (root / "c").symlink_to(tmp_path / "not mounted")
    (root / ".NET").mkdir()
    assert class_photos(root).warnings == [
        "c is a link that leads nowhere: restore what it leads to, or remove the link",
        "the hidden folder .NET is left out: rename it if it is a class",
    ]
