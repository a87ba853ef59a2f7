"""Damage every kind of file that the program reads, and read it: a right answer or an InputError, and nothing else.

A case is a function of (seed, number): `Fuzzer(folder, seed).case(number)` repeats it.
"""

import contextlib
import io
import json
import pickle
import random
import re
import resource
import shutil
import signal
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from deepemd import FCN, DeepEMD, FewShotClassifier, cli, conv4
from deepemd.apps.photos.corrections import read_corrections
from deepemd.apps.retrieval.building import build_index
from deepemd.apps.retrieval.index import open_index
from deepemd.data import load
from deepemd.data.archives import open_archive
from deepemd.data.benchmarks.cifar import cifar_fs
from deepemd.data.benchmarks.cub import cub
from deepemd.data.benchmarks.miniimagenet import miniimagenet
from deepemd.data.benchmarks.omniglot import omniglot
from deepemd.data.benchmarks.tieredimagenet import tieredimagenet
from deepemd.data.decoding import decode, measure, read_image, thumbnail
from deepemd.data.pickles import unpickle
from deepemd.data.sources import PhotoSources
from deepemd.data.store import open_store
from deepemd.embedding.splits import embed
from deepemd.errors import InputError
from deepemd.model.checkpoints import read_checkpoint
from deepemd.training.checkpoint import STATE
from deepemd.training.folder import RunFolder

SECONDS, GROWTH = 20, 400_000  # of a case, and kilobytes of memory
LONGEST = 20_000  # characters of a message; a file that holds a long name has it in its message
LONG = 10**30
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 7, 2**31, 2**63, LONG, -LONG, 10**400, 0.5, -0.0, 1e308, 1e-308, float("nan")),
    *(float("inf"), "", "0", "text", "\udc80", "a\0b", "../x", [], {}, [[]], [None], [0] * 50, ["a"], {"a": {"b": []}}),
]


class WrongAnswerError(Exception):
    """The damaged file was read, and the answer is another one although a check sum covers it."""


@dataclass
class Target:
    """One kind of file.

    Attributes:
        folder: undamaged files.
        files: file to damage -> whether a check sum covers it, so that the answer must be exactly that without damage.
        read: function that reads the folder and returns something to compare.
        weight: how often it is chosen.
    """

    folder: Path
    files: dict[str, bool]
    read: Callable[[Path], Any]
    weight: int = 10
    answer: Any = None


def digest(*tensors: torch.Tensor) -> list[bytes]:
    return [tensor.contiguous().numpy().tobytes() for tensor in tensors]


def write_workbook(path: Path, rows: list[list[str]]) -> None:
    """Write an Excel workbook with one sheet of texts."""
    cells = "".join(
        "<row>" + "".join(f'<c t="inlineStr"><is><t>{cell}</t></is></c>' for cell in row) + "</row>" for row in rows
    )
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("xl/workbook.xml", '<workbook xmlns:r="r"><sheets><sheet name="a" r:id="i"/></sheets></workbook>')
        file.writestr("xl/_rels/workbook.xml.rels", '<links><link Id="i" Target="sheet.xml"/></links>')
        file.writestr("xl/sheet.xml", f"<worksheet><sheetData>{cells}</sheetData></worksheet>")


class Fuzzer:
    """Builds the files of all kinds in a folder, and reads them damaged."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder, self.seed = folder, seed
        torch.manual_seed(0)
        self.model = DeepEMD(conv4(channels=4, pools=2), FCN((2,), dense=False), image_size=16, resize=16).eval()
        self.photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8))
        self._photos(folder / "photos")
        self.store = load(folder / "photos", root=folder / "stores")
        makers = [self._model, self._classifier, self._index, self._store, self._cache, self._run, self._recipe]
        makers += [self._archives, self._csv, self._pickle, self._weights, self._birds, self._tiered, self._cifar]
        makers += [self._tables, self._letters, self._pictures, self._labels]
        self.targets = [maker() for maker in makers]
        for target in self.targets:
            target.answer = target.read(target.folder)

    def case(self, number: int) -> str:
        """Run one case; return what was done, for a message.

        Raises:
            WrongAnswerError: the answer is another one.
            Exception: whatever the reader raised beside InputError.
        """
        rng = random.Random(f"{self.seed} {number}")
        target = rng.choices(self.targets, [t.weight for t in self.targets])[0]
        name = rng.choice(list(target.files))
        place = self.folder / "case"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(target.folder, place)
        done = damage(place / name, rng)
        what = f"case {number}: {target.folder.name}/{name}, {done}"
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            with limited(), quiet():
                found = target.read(place)
        except InputError as error:
            message, found = str(error), target.answer
            if not 0 < len(message) < LONGEST:
                raise AssertionError(f"{what}, {len(message)} characters: {message[:200]}") from error
        except Exception as error:
            error.add_note(what)
            raise
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        if grown > GROWTH * (1024 if sys.platform == "darwin" else 1):
            raise MemoryError(f"{what}: {grown:,} more kilobytes of memory")
        if target.files[name] and found != target.answer:
            raise WrongAnswerError(what)
        return what

    def _photos(self, folder: Path) -> None:
        rng = np.random.default_rng(1)
        for label in "ab":
            (folder / label).mkdir(parents=True)
            for k in range(3):
                Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(folder / label / f"{k}.png")

    def _model(self) -> Target:
        def read(folder: Path) -> list[bytes]:
            found = DeepEMD.load(folder)
            if found.image_size > 256:
                return []
            with torch.no_grad():
                side = max(16, found.image_size)
                return digest(found.embed(torch.full((1, 3, side, side), 0.5)))

        return Target(self.model.save(self.folder / "model"), {"config.json": False, "model.safetensors": True}, read)

    def _classifier(self) -> Target:
        made = FewShotClassifier(self.model, cache=False, unknown=0.3).fit_folder(self.folder / "photos")

        def read(folder: Path) -> Any:
            found = FewShotClassifier.load(folder, cache=False)
            if found.model_.image_size > 256 or found.model_.resize > 256:
                return []
            explained = found.explain(self.photo)
            return [
                found.predict([self.photo]).tolist(),
                found.predict_proba([self.photo]).tolist(),
                str(explained.prediction.label),
            ]

        saved = made.save(self.folder / "classifier")
        return Target(saved, {"config.json": False, "model.safetensors": True}, read)

    def _index(self) -> Target:
        made = build_index(self.folder / "model", self.folder / "photos", self.folder / "index", whiten="classes")
        nodes = made.rows(np.array([2]))

        def read(folder: Path) -> Any:
            found = open_index(folder)
            hits = found.search(nodes, top=6)
            names = [(found.images.names[i], int(found.images.labels[i])) for i in hits.images[0].tolist()]
            found_nodes = [*digest(hits.similarity, hits.cosine, found.whitening(nodes[..., :-1])), names]
            return [*found_nodes, len(found.images.image(0).tobytes())]

        exact = ["nodes.npy", "pooled.npy", "checks.npy", "whitening.npy", "images/all.npz", "model/model.safetensors"]
        files = dict.fromkeys(exact, True) | dict.fromkeys(["index.json", "images/store.json"], False)
        return Target(made.path, files | {"images/all.bin": False, "model/config.json": True}, read, 14)

    def _store(self) -> Target:
        images = self.store.splits["all"]
        pixels = images.pixels(8)

        def read(folder: Path) -> Any:
            found = open_store(folder).splits["all"]
            sums = [found.pixels(8).shape, found.pixels(8).dtype.str]
            return [
                found.names,
                found.classes,
                found.labels.tolist(),
                found.offsets.tolist(),
                found.image(1).size,
                sums,
            ]

        decoded = Path(str(pixels.filename)).name
        return Target(
            self.store.path, {"store.json": False, "all.npz": True, "all.bin": False, decoded: False}, read, 12
        )

    def _cache(self) -> Target:
        images, folder = self.store.splits["all"], self.folder / "cache"
        embed(self.model, images, cache=folder)
        (piece,) = folder.glob("*/*/*/*.npz")

        def read(place: Path) -> list[bytes]:
            return digest(embed(self.model, images, cache=place))

        return Target(
            folder, {piece.relative_to(folder).as_posix(): True, "deepemd-embeddings/CACHEDIR.TAG": True}, read
        )

    def _run(self) -> Target:
        folder = RunFolder(self.folder / "run")
        settings = {"command": "pretrain", "recipe": {"lr": 0.1, "sizes": [1, 2]}, "seed": 0}
        folder.begin(settings)
        state = {"best": {"accuracy": 0.5, "ci95": 0.1, "step": 2.0}, "rows": [], "seconds": 1.0}
        content = {"global_step": 2, "state_dict": self.model.state_dict(), "callbacks": {STATE: state}}
        torch.save({**content, "optimizer_states": [], "loops": {}}, folder.last)
        folder.finish(state["best"], 4)

        def read(place: Path) -> Any:
            run = RunFolder(place)
            result, found = run.open(settings, resume=True), run.checkpoint(self.model)
            return [result and result.accuracy, found and digest(*found.content["state_dict"].values())]

        return Target(folder.path, {"config.yaml": False, "last.ckpt": False, "result.json": False}, read, 12)

    def _recipe(self) -> Target:
        folder = self.folder / "recipe"
        folder.mkdir()
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
            cli.main(["pretrain", "--print_config"])
        (folder / "recipe.yaml").write_text(out.getvalue())

        def read(place: Path) -> str:
            with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors:
                try:
                    code = cli.main(["pretrain", "--config", str(place / "recipe.yaml"), "--print_config"])
                except SystemExit as stop:  # the configuration was printed
                    code = stop.code
            if code == 2 and "Traceback" not in errors.getvalue():
                raise InputError("refused")
            assert code == 0, errors.getvalue()
            return out.getvalue()

        return Target(folder, {"recipe.yaml": False}, read, 2)

    def _archives(self) -> Target:
        folder = self.folder / "archives"
        folder.mkdir()
        shutil.make_archive(str(folder / "a"), "zip", self.folder / "photos")
        for kind in ("", ":gz", ":xz"):
            with tarfile.open(folder / f"a{kind.replace(':', '.')}.tar", f"w{kind}") as tar:
                tar.add(self.folder / "photos", "photos")

        def read(place: Path) -> Any:
            found = []
            for path in sorted(place.iterdir()):
                with closing(open_archive(path, self.folder)) as archive:
                    found.append({name: archive.read(name) for name in archive.sizes})
            return found

        return Target(folder, dict.fromkeys([path.name for path in folder.iterdir()], False), read)

    def _labels(self) -> Target:
        folder = self.folder / "labels"
        shutil.copytree(self.folder / "photos", folder / "photos")
        names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
        rows = "".join(f'"{name}";{Path(name).parent.name}\r\n' for name in names)
        for name, encoding in (("a.csv", "utf-8-sig"), ("a.tsv", "utf-16")):
            (folder / name).write_bytes(f"Photo;Class\r\n{rows}".encode(encoding))
        shutil.make_archive(str(folder / "a"), "zip", folder / "photos")
        cells = [["Photo", "Class"], *([name, Path(name).parent.name] for name in names)]
        write_workbook(folder / "a.xlsx", cells)
        head = "image,label,probability,runner_up,correct_label\n"
        lines = (f"{name},{'b' if k == 1 else 'a'},0.5,b,{'c' * (k == 2)}\n" for k, name in enumerate(names))
        (folder / "predictions.csv").write_text(head + "".join(lines))
        before = {"predictions": [{"image": name, "label": "a"} for name in names]}
        (folder / "predictions.json").write_text(json.dumps(before))

        def read(place: Path) -> Any:
            found = []
            with PhotoSources.opened() as sources:
                for name in ("a.csv", "a.tsv", "a.xlsx", "a.zip"):
                    photos = sources.support(place / name)
                    found.append((photos.labels, [Path(file).read_bytes() for file in photos.files]))
                corrections = read_corrections(place / "predictions.csv", sources, ["a", "b"])
            return found, [(row.line, row.label) for row in corrections.rows]

        damaged = ("a.csv", "a.tsv", "a.xlsx", "a.zip", "predictions.csv", "predictions.json")
        return Target(folder, dict.fromkeys(damaged, False), read)

    def _csv(self) -> Target:
        folder = self.folder / "mini"
        (folder / "images").mkdir(parents=True)
        rows = ["filename,label"]
        for k in range(6):
            rows.append(f"n0153282900{k:06}.jpg,n0153282{k // 3}")
            self.photo.save(folder / "images" / f"n0153282900{k:06}.jpg")
        for split in ("train", "val"):
            (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")

        return Target(folder, {"train.csv": False, "val.csv": False}, self._reads(miniimagenet))

    def _tables(self) -> Target:
        folder = self.folder / "tables"
        folder.mkdir()
        images = np.zeros((4, 4, 4, 3), np.uint8)
        cache = {"image_data": images, "class_dict": {"n01532829": [0, 1], "n01558993": [2, 3]}}
        (folder / "mini-imagenet-cache-train.pkl").write_bytes(pickle.dumps(cache))
        named = {"data": images, "labels": [0, 1, 1, 0], "catname2label": {"n01855672": 0, "n02091244": 1}}
        (folder / "miniImageNet_category_split_val.pickle").write_bytes(pickle.dumps(named))
        return Target(folder, {path.name: False for path in folder.iterdir()}, self._reads(miniimagenet), 6)

    def _birds(self) -> Target:
        folder = self.folder / "birds"
        images, boxes = [], []
        for k, label in enumerate(["003.Sooty_Albatross", "001.Black_footed_Albatross"] * 2, 1):
            path = folder / "images" / label / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            self.photo.save(path)
            images.append(f"{k} {label}/{k}.png\n")
            boxes.append(f"{k} 1.0 2.0 8.5 9.0\n")
        (folder / "images.txt").write_text("".join(images))
        (folder / "bounding_boxes.txt").write_text("".join(boxes))
        return Target(folder, {"images.txt": False, "bounding_boxes.txt": False}, self._reads(cub))

    def _tiered(self) -> Target:
        folder, file = self.folder / "tiered", io.BytesIO()
        folder.mkdir()
        self.photo.save(file, "PNG")
        pixels = np.frombuffer(file.getvalue(), np.uint8)
        labels = {
            "labels": np.array([0, 0, 1]),
            "label_specific": np.array([0, 0, 1]),
            "label_specific_str": ["a", "b"],
        }
        for split in ("train", "val"):
            (folder / f"{split}_images_png.pkl").write_bytes(pickle.dumps([pixels] * 3))
            (folder / f"{split}_labels.pkl").write_bytes(pickle.dumps(labels))
        return Target(folder, {path.name: False for path in folder.iterdir()}, self._reads(tieredimagenet))

    def _cifar(self) -> Target:
        folder = self.folder / "cifar"
        folder.mkdir()
        part = {"fine_labels": [0, 1, 1], "data": np.arange(3 * 3072, dtype=np.uint8).reshape(3, 3072)}
        meta = {"fine_label_names": ["apple", "beaver"]}
        for name, content in (("train", part), ("test", part), ("meta", meta)):
            (folder / name).write_bytes(pickle.dumps(content))
        return Target(folder, dict.fromkeys(("train", "test", "meta"), False), self._reads(cifar_fs))

    def _letters(self) -> Target:
        folder = self.folder / "letters"
        folder.mkdir()
        with zipfile.ZipFile(folder / "images_background.zip", "w") as archive:
            for k in range(4):
                name = f"images_background/Alphabet_of_the_Magi/character0{k // 2 + 1}/{k}.png"
                archive.write(self.folder / "photos" / "a" / "0.png", name)
        return Target(folder, {"images_background.zip": False}, self._reads(omniglot))

    def _reads(self, benchmark: Callable[..., dict]) -> Callable[[Path], Any]:
        """Return a function that prepares a benchmark's files and returns what is stored of each split."""

        def read(place: Path) -> Any:
            with ExitStack() as opened:
                drafts = benchmark(place, self.folder, opened, strict=False)
                return {
                    split: (draft.names, draft.classes, draft.names and draft.read(0))
                    for split, draft in drafts.items()
                }

        return read

    def _pictures(self) -> Target:
        folder = self.folder / "pictures"
        folder.mkdir()
        exif = Image.Exif()
        exif[0x0112] = 6
        photo, deep = self.photo, Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 16)
        frames = {"save_all": True, "append_images": [self.photo.rotate(90)]}
        for name in ("a.bmp", "a.jp2", "a.ppm", "a.tga", "a.ico", "a.pcx", "a.dds", "a.avif", "a.qoi", "a.sgi"):
            with contextlib.suppress(OSError, KeyError, ValueError):  # not every Pillow writes every format
                photo.save(folder / name)
        photo.convert("CMYK").save(folder / "a.jpg", exif=exif)
        photo.save(folder / "b.jpg", quality=70, exif=exif, progressive=True)
        photo.convert("P").save(folder / "a.png", exif=exif)
        deep.save(folder / "b.png")
        deep.save(folder / "a.tif", tiffinfo={0x0112: 6})
        photo.save(folder / "b.tif", compression="tiff_lzw", **frames)
        photo.save(folder / "a.gif", **frames)
        photo.convert("RGBA").save(folder / "a.webp", exif=exif, **frames)
        photo.save(folder / "a.mpo", **frames)

        def read(place: Path) -> Any:
            found = []
            for path in sorted(place.iterdir()):
                data = path.read_bytes()
                size, image = measure(data, path.name), decode(path, path.name)
                assert size == image.size, f"{path.name}: {size} and {image.size}"
                found.append([image.mode, image.tobytes(), read_image(data, path.name, 8)[1], thumbnail(image, 8)])
            return found

        return Target(folder, {path.name: False for path in folder.iterdir()}, read, 20)

    def _pickle(self) -> Target:
        folder = self.folder / "pickles"
        folder.mkdir()
        table = {"data": np.arange(24, dtype=np.uint8).reshape(2, 3, 4), "labels": [1, 2], b"names": [b"a", "b"]}
        for protocol in (0, 2, 5):
            (folder / f"{protocol}.pkl").write_bytes(pickle.dumps(table, protocol))

        def read(place: Path) -> Any:
            with closing(open_archive(place, self.folder)) as archive:
                return [str(unpickle(archive, name))[:1000] for name in archive.sizes]

        return Target(folder, {f"{protocol}.pkl": False for protocol in (0, 2, 5)}, read)

    def _weights(self) -> Target:
        folder = self.folder / "weights"
        folder.mkdir()
        torch.save({"params": self.model.state_dict(), "epoch": 3}, folder / "a.pth")
        save_file({k: v.contiguous() for k, v in self.model.state_dict().items()}, folder / "a.safetensors")

        def read(place: Path) -> Any:
            return [sorted(read_checkpoint(place / name)) for name in ("a.pth", "a.safetensors")]

        return Target(folder, {"a.pth": False, "a.safetensors": False}, read)


@contextmanager
def limited() -> Iterator[None]:
    """Raise TimeoutError after some seconds, on POSIX systems."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def quiet() -> Iterator[None]:
    """Raise an error where more than five warnings are given."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        yield
    assert len(given) <= 5, [str(one.message) for one in given[:6]]


def damage(path: Path, rng: random.Random) -> str:
    """Damage a file, by its bytes or by the values that it holds; return what was done."""
    by_value = {".json": _json, ".npz": _npz, ".npy": _npy, ".safetensors": _tensors, ".yaml": _yaml, ".ckpt": _saved}
    by_value |= {
        ".pth": _saved,
        ".csv": _csv,
        ".pkl": _pickled,
        ".pickle": _pickled,
        ".zip": _zipped,
        "": _pickled,
        ".txt": _words,
    }
    spoil = by_value.get(path.suffix)
    if spoil is not None and rng.random() < 0.6:
        return spoil(path, rng)
    return _bytes(path, rng)


def _bytes(path: Path, rng: random.Random) -> str:
    data = bytearray(path.read_bytes())
    how = rng.choice(
        ["flip", "flip", "flips", "set", "cut", "drop", "double", "insert", "zero", "ones", "empty", "noise"]
    )
    at, length = rng.randrange(len(data) + 1), rng.choice([1, 2, 4, 8, 64, 1000])
    begin = rng.choice([at, rng.randrange(min(200, len(data) + 1)), max(0, len(data) - rng.randrange(1, 200))])
    if how in ("flip", "flips"):
        for _ in range(1 if how == "flip" else 20):
            data[rng.choice([begin, rng.randrange(len(data))]) % len(data)] ^= 1 << rng.randrange(8)
    elif how == "set":
        data[begin % len(data)] = rng.randrange(256)
    elif how == "cut":
        del data[begin:]
    elif how == "drop":
        del data[begin : begin + length]
    elif how == "double":
        data[begin:begin] = data[begin : begin + length]
    elif how == "insert":
        data[begin:begin] = rng.choice([rng.randbytes(length), b"[" * 10_000, b"\xef\xbb\xbf", b"\0" * length])
    elif how in ("zero", "ones"):
        data[begin : begin + length] = (b"\0" if how == "zero" else b"\xff") * len(data[begin : begin + length])
    elif how == "noise":
        data = bytearray(rng.randbytes(len(data)))
    path.write_bytes(b"" if how == "empty" else bytes(data))
    return f"{how} at {begin}, {length}"


def _change(tree: Any, rng: random.Random) -> str:
    """Change one value of nested lists and dicts, in place."""
    spots: list[tuple[Any, Any, str]] = []

    def walk(node: Any, where: str) -> None:
        for key, value in list(node.items()) if isinstance(node, dict) else list(enumerate(node)):
            spots.append((node, key, f"{where}.{key}"))
            if isinstance(value, dict | list):
                walk(value, f"{where}.{key}")

    walk(tree, "")
    node, key, where = rng.choice(spots)
    how = rng.choice(["replace", "replace", "replace", "remove", "add", "near"])
    if how == "remove":
        del node[key]
    elif how == "add":
        value = rng.choice(VALUES)
        node.update({"extra": value}) if isinstance(node, dict) else node.append(value)
    elif how == "near" and isinstance(node[key], int | float):
        node[key] = rng.choice([-node[key], node[key] + 1, node[key] * 10, str(node[key]), [node[key]]])
    else:
        node[key] = rng.choice(VALUES)
        return f"{where} = {str(type(node[key])) if node[key] == 10**400 else repr(node[key])}"
    return f"{how} {where}"


def _json(path: Path, rng: random.Random) -> str:
    content = json.loads(path.read_text(encoding="utf-8"))
    done = _change(content, rng)
    text = json.dumps(content)
    how = rng.choice(["", "", "", "deep", "twice", "bom", "utf-16", "list"])
    if how == "deep":
        text = text.replace(": ", ": " + "[" * 3000 + "]" * 3000 + ', "x": ', 1)
    elif how == "twice":
        text = text.replace("{", '{"format": 3, ', 1)
    elif how == "list":
        text = f"[{text}]"
    encoding = {"bom": "utf-8-sig", "utf-16": "utf-16"}.get(how, "utf-8")
    sys.set_int_max_str_digits(0)
    path.write_text(text, encoding=encoding)
    sys.set_int_max_str_digits(4300)
    return f"{done} {how}"


def _array(array: np.ndarray, rng: random.Random) -> np.ndarray:
    how = rng.randrange(12)
    if how == 0:
        return array[::-1]
    if how == 1:
        return array[:-1]
    if how == 2:
        return array[:0]
    if how == 3:
        return array.reshape(-1)
    if how == 4:
        return array[None]
    if how == 5 and array.dtype.kind in "iuf":
        return array * 0
    if how == 6:
        return array.astype(object)
    if how == 7:
        return array.astype(str)
    if how == 8 and array.dtype.kind in "iuf":
        with np.errstate(all="ignore"):
            return array.astype(rng.choice(["<f8", ">f4", "<i2", "<u8", "<f2", "?"]))
    if how == 9 and array.dtype.kind == "f" and array.size:
        spoiled = array.copy()
        spoiled.flat[rng.randrange(array.size)] = rng.choice([np.nan, np.inf, -1, 6e4])
        return spoiled
    if how == 10 and array.dtype.kind in "iu" and array.size:
        spoiled = array.copy()
        spoiled.flat[rng.randrange(array.size)] = rng.choice([0, 1, 100, np.iinfo(array.dtype).max])
        return spoiled
    return np.concatenate([array, array])


def _npz(path: Path, rng: random.Random) -> str:
    with np.load(path) as found:
        arrays = dict(found)
    name = rng.choice(list(arrays))
    arrays[name] = _array(np.atleast_1d(arrays[name]), rng)
    if rng.random() < 0.1:
        del arrays[name]
    (np.savez_compressed if rng.random() < 0.1 else np.savez)(path, **arrays)
    return f"array {name}"


def _npy(path: Path, rng: random.Random) -> str:
    spoiled = _array(np.array(np.load(path)), rng)
    np.save(path, spoiled)
    return f"array {spoiled.dtype}{spoiled.shape}"


def _tensors(path: Path, rng: random.Random) -> str:
    tensors = load_file(path)
    name = rng.choice(list(tensors))
    array = _array(np.atleast_1d(tensors[name].numpy()), rng).copy()
    if array.dtype.kind in "OU" or array.dtype.byteorder == ">" or rng.random() < 0.2:
        del tensors[name]
    else:
        tensors[name] = torch.from_numpy(array)
    save_file(tensors, path)
    return f"tensor {name}"


def _yaml(path: Path, rng: random.Random) -> str:
    content = yaml.safe_load(path.read_text())
    done = _change(content, rng)
    sys.set_int_max_str_digits(0)
    text = yaml.safe_dump(content)
    how = rng.choice(["", "", "", "bomb", "tag", "deep"])
    if how == "bomb":
        levels = "".join(f"l{k}: &l{k} [{', '.join([f'*l{k - 1}'] * 9)}]\n" for k in range(1, 12))
        text += "l0: &l0 [x]\n" + levels
    elif how == "tag":
        text += "x: !!python/object/apply:os.getcwd []\n"
    elif how == "deep":
        text += "x: " + "[" * 2000 + "]" * 2000 + "\n"
    path.write_text(text, errors="replace")
    sys.set_int_max_str_digits(4300)
    return f"{done} {how}"


def _saved(path: Path, rng: random.Random) -> str:
    content = torch.load(path, weights_only=True)
    done = _change(content, rng)
    with contextlib.suppress(UnicodeEncodeError):
        torch.save(content, path)
    return done


def _csv(path: Path, rng: random.Random) -> str:
    rows = [line.split(",") for line in path.read_text().splitlines()]
    row = rng.choice(rows)
    new = rng.choice(["", "label", "a\nb", '"', "../x", "n01532829", "\0", "ü" * 300, "=1+1", ";", "x" * 200_000])
    row[rng.randrange(len(row))] = new
    if rng.random() < 0.2:
        row.append("more")
    if rng.random() < 0.2:
        rows.append(rng.choice(rows))
    encoding = rng.choice(["utf-8", "utf-8-sig", "utf-16", "cp1252"])
    path.write_text("\n".join(",".join(row) for row in rows), encoding=encoding, errors="replace")
    return f"{new[:20]!r} as {encoding}"


def _words(path: Path, rng: random.Random) -> str:
    words = re.split(r"(\s)", path.read_text())
    at = rng.randrange(len(words))
    new = [
        "",
        "1",
        "-1",
        "0",
        "1e9",
        "nan",
        "9" * 400,
        "9" * 20,
        "1.5",
        "٣",
        "../x",
        "a/b.png",
        "\x85",
        "\n",
        " ",
        "ü" * 300,
    ]
    words[at] = rng.choice(new)
    path.write_text("".join(words))
    return f"word {at} = {words[at][:20]!r}"


def _pickled(path: Path, rng: random.Random) -> str:
    content = pickle.loads(path.read_bytes())
    done = _change(content, rng)
    path.write_bytes(pickle.dumps([content] if rng.random() < 0.1 else content, rng.randrange(6)))
    return done


def _zipped(path: Path, rng: random.Random) -> str:
    with zipfile.ZipFile(path) as archive:
        entries = [[info.filename, archive.read(info)] for info in archive.infolist()]
    entry = rng.choice(entries)
    entry[0] = rng.choice(["../x.png", "/x.png", "a/\0.png", "C:/x.png", entries[0][0], "a\\x.png", "ü/x.png", "a/"])
    if rng.random() < 0.3:
        entry[1] = bytes(2_000_000)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", rng.choice([0, 8, 12, 14])) as archive:
        warnings.simplefilter("ignore")
        for name, data in entries:
            archive.writestr(name, data)
    return f"{entry[0]!r}"
