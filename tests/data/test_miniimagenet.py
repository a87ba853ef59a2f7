"""miniImageNet: the real validation split, every form of source, and what must be refused.

Tests deepemd.data.benchmarks.miniimagenet.
"""

import csv
import io
import pickle
import shutil
import tarfile
import zipfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepemd.data import EpisodeSampler, Store, decode, load, prepare, verify
from deepemd.data.benchmarks.miniimagenet import miniimagenet
from deepemd.data.benchmarks.published import FILES, class_list
from deepemd.errors import InputError


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("root")
    return prepare("miniimagenet", shared_data / "miniimagenet" / "val.zip", root=root)  # val.csv lies beside


def test_real_split(real, shared_data):
    assert list(real.splits) == ["val"]
    images = real.splits["val"]
    fingerprint = images.fingerprint.as_dict()
    assert fingerprint.pop("sha256").startswith("745ebbe2d72a")
    assert fingerprint == {
        "name": "miniimagenet/val", "classes": 16, "images": 9600, "per_class_min": 600, "per_class_max": 600,
        "median_width": 84, "median_height": 84, "order": "sorted",
    }  # fmt: skip
    rows = (shared_data / "miniimagenet" / "val.csv").read_text().split()[1:]
    labels = dict(row.split(",") for row in rows)
    assert all(images.classes[k] == labels[name] for k, name in zip(images.labels, images.names, strict=True))
    assert list(zip(images.labels, images.names, strict=True)) == sorted(zip(images.labels, images.names, strict=True))


def test_real_note(real):
    assert real.notes["note"] == "84 x 84 copy: weights trained on the original resolution lose 1-2 % or more on it"


def test_real_classes_are_in_the_lists(shared_data):
    for split in ("base", "val"):
        with (shared_data / "miniimagenet" / f"{FILES[split]}.csv").open() as file:
            assert class_list("miniimagenet", split) == tuple(
                sorted({label for _, label in list(csv.reader(file))[1:]})
            )
    lists = [class_list("miniimagenet", split) for split in FILES]
    assert [len(names) for names in lists] == [64, 16, 20]
    assert len(set(sum(lists, ()))) == 100


def test_real_arrays_come_back_as_they_are(real, tmp_path):
    """The real images as a commonly distributed pickle: the same pixels come back, through PNG."""
    images = real.splits["val"]
    chosen = range(0, len(images), 400)
    arrays = np.stack([np.asarray(images.image(i)) for i in chosen])
    classes = {}
    for k, i in enumerate(chosen):
        classes.setdefault(images.classes[images.labels[i]], []).append(k)
    (tmp_path / "mini-imagenet-cache-val.pkl").write_bytes(pickle.dumps({"image_data": arrays, "class_dict": classes}))
    found = prepare("miniimagenet", tmp_path, root=tmp_path / "root", strict=False).splits["val"]
    assert found.classes == images.classes
    assert all(np.array_equal(np.asarray(found.image(k)), array) for k, array in enumerate(arrays))


def test_real_images_are_the_original_files(real, shared_data):
    images, pixels = real.splits["val"], real.splits["val"].pixels(84)
    with zipfile.ZipFile(shared_data / "miniimagenet" / "val.zip") as original:
        for i in range(0, len(images), 97):
            encoded = original.read(images.names[i])
            assert images.encoded(i) == encoded
            expected = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
            assert np.array_equal(np.asarray(images.image(i)), expected)
            assert np.array_equal(pixels[i].transpose(1, 2, 0), expected)  # 84 is their own size: not resampled
    assert verify(real) == []
    assert load("miniimagenet", root=real.path.parent).splits["val"].fingerprint == images.fingerprint


def test_real_truncated_images_are_found(real):
    """Cut anywhere before its last bytes, a real JPEG is refused."""
    encoded = real.splits["val"].encoded(123)
    for length in (0, 1, 100, len(encoded) // 2, len(encoded) - 20):
        with pytest.raises(InputError, match=r"x\.jpg: (truncated or damaged|not an) image"):
            decode(encoded[:length], "x.jpg")


def test_real_episodes(real):
    images = real.splits["val"]
    for episode in EpisodeSampler(images.labels, n_episodes=20, seed=3):
        assert np.array_equal(images.labels[episode.query], episode.classes[episode.query_labels])


def small(folder: Path, stems: tuple[str, ...] = ("train", "val", "test"), inner: str = "images") -> Path:
    """A little set in the benchmark's form: two classes of three images a split."""
    (folder / inner).mkdir(parents=True, exist_ok=True)
    for s, stem in enumerate(stems):
        rows = []
        for k in range(6):
            pixels = np.full((9, 8, 3), 40 * s + k, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / inner / f"{stem}{k}.png")
            rows.append(f"{stem}{k}.png,{stem}-{'ba'[k % 2]}")
        (folder / f"{stem}.csv").write_text("\n".join(["filename,label", *rows]))
    return folder


def pack(folder: Path, form: str) -> Path:
    if form == "zip":
        return Path(shutil.make_archive(str(folder), "zip", folder.parent, folder.name))
    path = folder.with_name(f"{folder.name}.{form}")
    with tarfile.open(path, "w:gz" if form == "tar.gz" else "w") as file:
        file.add(folder, ".")
    return path


@pytest.mark.parametrize("form", ["folder", "zip", "tar", "tar.gz", "split zips", "csv beside"])
def test_forms(tmp_path, form):
    source = small(tmp_path / "mini")
    if form == "split zips":
        for stem in ("train", "val", "test"):
            with zipfile.ZipFile(source / f"{stem}.zip", "w") as file:
                for path in sorted((source / "images").glob(f"{stem}*")):
                    file.write(path, path.name)
        shutil.rmtree(source / "images")
    elif form == "csv beside":
        source = pack(source / "images", "zip")
    elif form != "folder":
        source = pack(source, form)
    store = prepare("miniimagenet", source, root=tmp_path / "root", strict=False)
    for s, (split, stem) in enumerate({"base": "train", "val": "val", "novel": "test"}.items()):
        images = store.splits[split]
        assert images.classes == (f"{stem}-a", f"{stem}-b")
        assert images.names == tuple(f"{stem}{k}.png" for k in (1, 3, 5, 0, 2, 4))
        assert [images.image(i).getpixel((0, 0))[0] for i in range(6)] == [40 * s + k for k in (1, 3, 5, 0, 2, 4)]


def test_absent_splits_are_absent(tmp_path):
    store = prepare("miniimagenet", small(tmp_path / "mini", ("val",)), root=tmp_path / "root", strict=False)
    assert list(store.splits) == ["val"]
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"none: no miniImageNet found: expected train\.csv, val\.csv or test\.csv"):
        prepare("miniimagenet", tmp_path / "none", root=tmp_path / "root", force=True)


def test_other_splits_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"train\.csv: not the base split .* found 2 classes of 3 images.* timm"):
        prepare("miniimagenet", small(tmp_path / "mini"), root=tmp_path / "root")


def test_other_classes_in_the_right_number_are_refused(tmp_path):
    (tmp_path / "mini").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "mini" / "0.png")
    content = (tmp_path / "mini" / "0.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "mini" / "val.zip", "w") as file:
        for k in range(9600):
            file.writestr(f"{k}.png", content)
    rows = "\n".join(f"{k}.png,class-{k % 16:02}" for k in range(9600))
    (tmp_path / "mini" / "val.csv").write_text(f"filename,label\n{rows}\n")
    with pytest.raises(InputError, match="found 16 classes of 600 images, 9,600 in all, 16 of them other classes"):
        prepare("miniimagenet", tmp_path / "mini" / "val.zip", root=tmp_path / "root")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\nval0.png,a", r"val\.csv:1: the header must be filename,label, but it is file,label"),
        ("", r"val\.csv:1: the header must be filename,label, but it is nothing"),
        ("filename,label\n", r"val\.csv: has a header but no rows"),
        ("filename,label\nval0.png,a\nval1.png", r"val\.csv:3: expected a file name and a label, but found"),
        ("filename,label\nval0.png,a\nval1.png, ", r"val\.csv:3: expected a file name and a label"),
        ("filename,label\nval0.png,a\nval1.png,a\nval0.png,b", r"val\.csv:4: val0\.png is already in line 2: remove"),
        (
            "filename,label\nval0.png,a\ngone.png,a\nlost.png,b",
            r"val\.csv:3: names gone\.png, which is not in .*mini \(2 of 3 rows name absent files\)",
        ),
        ("filename,label\n\xff\xfe", r"val\.csv: not a CSV file in UTF-8"),
    ],
)
def test_bad_tables(tmp_path, text, message):
    source = small(tmp_path / "mini", ("val",))
    (source / "val.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message):
        prepare("miniimagenet", source, root=tmp_path / "root", strict=False)
    assert not list((tmp_path / "root").glob("*"))


def test_ambiguous_sources(tmp_path):
    source = small(tmp_path / "mini", ("val",))
    shutil.copytree(source / "images", source / "copy")
    with pytest.raises(InputError, match=r"val\.csv:\d: val\d\.png could be copy/val\d\.png or images/val\d\.png"):
        prepare("miniimagenet", source, root=tmp_path / "root", strict=False)
    shutil.copy(source / "val.csv", source / "copy" / "val.csv")
    with pytest.raises(InputError, match=r"has 2 files val\.csv \(copy/val\.csv, val\.csv\): keep one"):
        prepare("miniimagenet", source, root=tmp_path / "root", strict=False)


def test_damaged_archives(tmp_path):
    source = small(tmp_path / "mini")
    archive = pack(source, "tar")
    archive.write_bytes(archive.read_bytes()[:6000])
    with pytest.raises(InputError, match=r"mini\.tar: (not a zip or tar file, or a truncated one|no miniImageNet)"):
        prepare("miniimagenet", archive, root=tmp_path / "root", strict=False)
    archive = pack(source, "zip")
    content = bytearray(archive.read_bytes())
    place = content.index(b"val3.png") + 40
    content[place : place + 4] = b"\0\0\0\0"
    archive.write_bytes(content)
    with pytest.raises(InputError, match=r"mini\.zip: mini/images/val3\.png in it cannot be read .*get the zip again"):
        prepare("miniimagenet", archive, root=tmp_path / "root", strict=False)


def arrays(side: int, n: int = 6) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("form", ["cache", "cache, bytes", "categories", "tar"])
def test_pickles(tmp_path, form, protocol):
    """Two classes of three images a split, mixed."""
    folder = tmp_path / "mini"
    folder.mkdir()
    images = arrays(84)
    for stem in ("train", "val", "test"):
        names = [f"{stem}-b", f"{stem}-a"]
        table = {"image_data": images, "class_dict": {names[0]: [0, 2, 4], names[1]: np.array([1, 3, 5])}}
        path = folder / f"mini-imagenet-cache-{stem}.pkl"
        if form == "cache, bytes":
            table = {key.encode(): value for key, value in table.items()}
        if form == "categories":
            table = {"data": images, "labels": [7, 9] * 3, "catname2label": {names[0]: 7, names[1]: 9}}
            path = folder / f"miniImageNet_category_split_{'train_phase_train' if stem == 'train' else stem}.pickle"
        path.write_bytes(pickle.dumps(table, protocol))
    source = pack(folder, "tar") if form == "tar" else folder
    store = prepare("miniimagenet", source, root=tmp_path / "root", strict=False)
    for split, stem in FILES.items():
        found = store.splits[split]
        assert found.classes == (f"{stem}-a", f"{stem}-b")
        assert found.names[:2] == (f"{stem}-a/000001.png", f"{stem}-a/000003.png")
        for i, k in enumerate((1, 3, 5, 0, 2, 4)):
            assert np.array_equal(np.asarray(found.image(i)), images[k])
    assert "84 x 84 copy" in store.notes["note"]


def test_whole_pickles_are_accepted_and_others_refused(tmp_path):
    """What strict compares: classes, and 600 images of each."""
    names = class_list("miniimagenet", "val")
    labels = np.repeat(np.arange(16), 600)
    table = {"data": np.zeros((9600, 1, 1, 3), np.uint8), "labels": labels.tolist(), "catname2label": {}}
    table["catname2label"] = {name: k for k, name in enumerate(names)}
    path = tmp_path / "miniImageNet_category_split_val.pickle"
    path.write_bytes(pickle.dumps(table))
    with ExitStack() as opened:
        assert len(miniimagenet(tmp_path, tmp_path, opened)["val"].names) == 9600
    table["labels"][0] = 1
    path.write_bytes(pickle.dumps(table))
    with pytest.raises(InputError, match="found 16 classes of 599 to 601 images, 9,600 in all"):
        prepare("miniimagenet", tmp_path, root=tmp_path / "root")
    table["catname2label"] = {f"n{k:08}": k for k in range(16)}
    path.write_bytes(pickle.dumps(table))
    with pytest.raises(InputError, match=r"16 of them other classes .*timm/mini-imagenet"):
        prepare("miniimagenet", tmp_path, root=tmp_path / "root")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"image_data": arrays(4), "class_dict": {"a": [0, 1, 2], "b": [3, 4]}}, "image 5 of 6 has no class"),
        ({"image_data": arrays(4), "class_dict": {"a": [0, 6]}}, "class a names image 6, which is absent or of two"),
        ({"image_data": arrays(4), "class_dict": {"a": [0], "b": [0]}}, "class b names image 0, which is absent or"),
        ({"image_data": arrays(4), "class_dict": {"a": 3}}, "class a names image no list"),
        ({"image_data": arrays(4), "class_dict": [1]}, "'class_dict' is not a dict, but list"),
        ({"image_data": arrays(4)}, "expected a pickled dict with 'class_dict', but found image_data"),
        ({"image_data": arrays(4).astype(float), "class_dict": {"a": range(6)}}, "would call builtins.range"),
        ({"image_data": arrays(4) / 2, "class_dict": {"a": [*range(6)]}}, "image 0 is float64 .* not uint8"),
    ],
)
def test_bad_pickles(tmp_path, table, message):
    (tmp_path / "mini-imagenet-cache-val.pkl").write_bytes(pickle.dumps(table))
    with pytest.raises(InputError, match=message):
        prepare("miniimagenet", tmp_path, root=tmp_path / "root", strict=False)


def test_labels_without_a_name(tmp_path):
    table = {"data": arrays(4), "labels": [0, 0, 1, 1, 2, 2], "catname2label": {"a": 0, "b": 1}}
    (tmp_path / "miniImageNet_category_split_test.pickle").write_bytes(pickle.dumps(table))
    with pytest.raises(InputError, match="label 2 has no name in catname2label"):
        prepare("miniimagenet", tmp_path, root=tmp_path / "root", strict=False)


def ilsvrc(folder: Path) -> Path:
    """Class folders of ILSVRC, whose numbers have gaps and whose names do not sort as the numbers do; and a CSV."""
    for label, numbers in {"n01532829": (9, 10, 33, 100, 1200), "n01558993": (4, 17)}.items():
        (folder / "train" / label).mkdir(parents=True)
        for number in numbers:
            Image.new("RGB", (number % 250, 7)).save(folder / "train" / label / f"{label}_{number}.JPEG")
    (folder / "train.csv").write_text(
        "filename,label\nn0153282900000005.jpg,n01532829\nn0153282900000002.jpg,n01532829\n"
        "n0153282900000001.jpg,n01532829\nn0155899300000002.jpg,n01558993\n"
    )
    return folder


def test_images_of_ilsvrc_are_found_by_their_numbers(tmp_path):
    store = prepare("miniimagenet", ilsvrc(tmp_path / "imagenet"), root=tmp_path / "root", strict=False)
    images = store.splits["base"]
    assert images.names == (*(f"n01532829{k:08}.jpg" for k in (1, 2, 5)), "n0155899300000002.jpg")
    assert [images.image(i).width for i in range(4)] == [9, 10, 200, 17]
    assert "ILSVRC's class folders" in store.notes["note"]


def test_a_class_folder_that_lacks_an_image_is_refused(tmp_path):
    source = ilsvrc(tmp_path / "imagenet")
    (source / "train" / "n01532829" / "n01532829_33.JPEG").unlink()
    with pytest.raises(InputError, match=r"train\.csv:2: names n0153282900000005\.jpg, which is not in .* \(1 of 4"):
        prepare("miniimagenet", source, root=tmp_path / "root", strict=False)


def test_files_named_as_in_the_tree_are_found_by_name(tmp_path):
    source = ilsvrc(tmp_path / "imagenet")
    (source / "train.csv").write_text("filename,label\nn01532829_33.JPEG,n01532829\n")
    images = prepare("miniimagenet", source, root=tmp_path / "root", strict=False).splits["base"]
    assert (images.names, images.image(0).width) == (("n01532829_33.JPEG",), 33)
