"""miniImageNet: the real validation split, every form of source, and what must be refused."""

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepemd.data import EpisodeSampler, Store, decode, load, prepare, verify
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
    with pytest.raises(InputError, match=r"train\.csv: not the base split .* found 2 classes of 3 to 3 images.* timm"):
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
    with pytest.raises(InputError, match="found 16 classes of 600 to 600 images, some of them other classes"):
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
