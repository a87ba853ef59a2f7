"""Indexes whose nodes are whitened: a better order, the same map for queries, and every kind of damage."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deepemd import FCN, DeepEMD, cli, conv4
from deepemd.apps.retrieval.building import build_index
from deepemd.apps.retrieval.index import Index, open_index
from deepemd.apps.retrieval.queries import embed_queries
from deepemd.apps.retrieval.ranking import evaluate_index, measures
from deepemd.apps.retrieval.whitening import _neighbours, fit_whitening
from deepemd.errors import InputError
from deepemd.files import file_sha256

RNG = np.random.default_rng(0)
GROUPS = ("classes", "neighbours")


def scene(label: int, light: float) -> Image.Image:
    """A small square whose place is the class, under light that differs from image to image."""
    pixels = np.full((32, 32, 3), 60.0) + RNG.normal(0, 8, (32, 32, 3))
    top, left = divmod(label, 2)
    pixels[8 + 12 * top : 14 + 12 * top, 8 + 12 * left : 14 + 12 * left] += 40
    return Image.fromarray((pixels + light).clip(0, 255).astype(np.uint8))


def write(folder: Path, count: int) -> Path:
    for label in range(4):
        (folder / f"class {label}").mkdir(parents=True)
        for k in range(count):
            scene(label, RNG.uniform(0, 140)).save(folder / f"class {label}" / f"{k}.png")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    return DeepEMD(conv4(channels=16, pools=3), FCN(), image_size=32, resize=32).save(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def gallery(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("photos") / "gallery", 12)


@pytest.fixture(scope="module")
def indexes(model, gallery, tmp_path_factory) -> dict[str | None, Index]:
    folder = tmp_path_factory.mktemp("indexes")
    return {groups: build_index(model, gallery, folder / f"{groups}", whiten=groups) for groups in (None, *GROUPS)}


def test_cartons_of_one_shop_are_told_apart(shared_data, tmp_path):
    """Photos that are not in the index find those of their product among others of the same brands."""
    products = sorted((shared_data / "grocery").glob("A*-*/"))[:8]
    queries = []
    for product in products:
        files = sorted(product.glob("*.jpg"))[:8]
        queries += files[1::2]
        (tmp_path / "gallery" / product.name).mkdir(parents=True)
        for file in files[::2]:
            shutil.copyfile(file, tmp_path / "gallery" / product.name / file.name)
    precision = {}
    for groups in (None, *GROUPS):
        index = build_index("efficientnet-lite0", tmp_path / "gallery", tmp_path / "index", whiten=groups, force=True)
        hits = index.search(embed_queries(index, queries).nodes, top=32)
        names = np.array(index.images.classes)[index.images.labels[hits.images.numpy()]]  # (Q, N)
        relevant = torch.from_numpy(names == np.array([file.parent.name for file in queries])[:, None])
        precision[groups] = float(measures(relevant)["mAP"].mean())
    assert precision["classes"] > precision[None] + 0.1
    assert precision["neighbours"] > precision[None]


@pytest.mark.parametrize("groups", GROUPS)
def test_an_index_holds_whitened_nodes_and_a_query_is_whitened_alike(indexes, gallery, groups, tmp_path):
    plain, index = indexes[None], indexes[groups]
    path = Path(shutil.copytree(index.path, tmp_path / "moved"))
    moved = open_index(path)
    assert moved.groups == groups
    raw = torch.from_numpy(plain.nodes[:].astype(np.float32))
    expected = moved.whitening(raw)
    assert np.abs(moved.nodes - expected.numpy()).max() < 1e-2 * expected.abs().max()
    assert torch.allclose(moved.pooled, expected.mean(1), atol=1e-2 * float(expected.abs().max()))
    files = [gallery / name for name in index.images.names]
    hits = moved.search(embed_queries(moved, files).nodes, top=1)
    assert hits.images[:, 0].tolist() == list(range(len(files)))
    assert hits.similarity.min() > 0.99
    assert json.loads((path / "index.json").read_text())["format"] == 2  # programs that cannot whiten refuse it
    assert json.loads((plain.path / "index.json").read_text())["format"] == 1


def test_neighbours_are_those_of_a_slow_search(indexes):
    nodes = torch.from_numpy(indexes[None].nodes[:].astype(np.float32))
    chosen = _neighbours(nodes)
    assert chosen.shape == (48, 3)
    cosines = torch.corrcoef(nodes.mean(1))
    for i, *others in chosen.tolist():
        order = [k for k in cosines[i].argsort(descending=True).tolist() if k != i]
        assert others == order[:2]
    assert _neighbours(nodes[:2]).tolist() == [[0, 1], [1, 0]]
    assert _neighbours(nodes[:1]).tolist() == [[0]]


def test_a_large_index_is_fitted_to_evenly_spaced_images(monkeypatch, indexes):
    nodes = torch.from_numpy(indexes[None].nodes[:].astype(np.float32))
    labels = indexes[None].images.labels
    monkeypatch.setattr("deepemd.apps.retrieval.whitening._MAX_NODES", 24 * nodes.shape[1])
    assert len(_neighbours(nodes)) == 8
    some = np.linspace(0, 47, 24).astype(int)
    fitted, expected = fit_whitening(nodes, labels, "classes"), fit_whitening(nodes[some], labels[some], "classes")
    assert torch.equal(fitted.root, expected.root)


def test_images_without_a_class_take_no_part_and_one_class_is_none(indexes, model, gallery, tmp_path):
    nodes = torch.from_numpy(indexes[None].nodes[:].astype(np.float32))
    labels = indexes[None].images.labels.copy()
    labels[::2] = -1
    fitted = fit_whitening(nodes, labels, "classes")
    assert torch.equal(fitted.root, fit_whitening(nodes[1::2], labels[1::2], "classes").root)
    for bad in (labels * 0, np.arange(48), labels * 0 - 1):
        with pytest.raises(InputError, match="whiten is 'classes', which needs at least two folders"):
            fit_whitening(nodes, bad, "classes")
    with pytest.raises(InputError, match="whiten is 'all': choose one of classes, neighbours"):
        fit_whitening(nodes, labels, "all")
    with pytest.raises(InputError, match="needs at least two folders"):
        build_index(model, gallery / "class 0", tmp_path / "one", whiten="classes")
    assert not (tmp_path / "one").exists()
    assert len(build_index(model, gallery / "class 0", tmp_path / "one", whiten="neighbours")) == 12


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def edited(change):
    """Change index.json."""

    def spoil(path: Path) -> None:
        about = json.loads((path.parent / "index.json").read_text())
        change(about)
        (path.parent / "index.json").write_text(json.dumps(about))

    return spoil


def unsummed(array: np.ndarray):
    """Replace the map, and its check sum too."""

    def spoil(path: Path) -> None:
        np.save(path, array)
        edited(lambda about: about["files"].update({path.name: file_sha256(path)}))(path)

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        cut,
        Path.unlink,
        lambda path: np.save(path, np.load(path)[:, ::-1]),
        unsummed(np.zeros((17, 16), np.float32)),
        unsummed(np.zeros((18, 16))),
        unsummed(np.full((18, 16), np.nan, np.float32)),
        edited(lambda about: about.update(whiten="everything")),
        edited(lambda about: about.update(whiten=["classes"])),
        edited(lambda about: about.pop("whiten")),
        edited(lambda about: about.pop("files")),
        edited(lambda about: about["files"].pop("whitening.npy")),
        edited(lambda about: about.update(format=1)),
    ],
)
def test_a_damaged_map_is_refused(indexes, tmp_path, spoil):
    """Queries that are not whitened, or whitened in another way, would be compared with other nodes."""
    path = Path(shutil.copytree(indexes["classes"].path, tmp_path / "index"))
    spoil(path / "whitening.npy")
    with pytest.raises(InputError, match=r"damaged|no index|missing"):
        open_index(path)


def test_the_command_line(model, gallery, tmp_path, capsys):
    words = ["retrieve", "index", str(model), str(gallery), str(tmp_path / "index"), "--whiten"]
    assert cli.main([*words, "neighbours"]) == 0
    assert cli.main([*words, "classes", "--force"]) == 0  # replaces the map too
    assert open_index(tmp_path / "index").groups == "classes"
    assert cli.main([*words[:-1], "--force"]) == 0
    assert not (tmp_path / "index" / "whitening.npy").exists()
    assert cli.main([*words, "everything", "--force"]) == 2
    capsys.readouterr()
    assert cli.main([*words, "classes", "--force"]) == 0
    photo = str(next(gallery.rglob("*.png")))
    page = tmp_path / "r.html"
    assert cli.main(["retrieve", "query", str(tmp_path / "index"), photo, "--out", str(page)]) == 0
    assert "whitened by the classes" in page.read_text()
    capsys.readouterr()
    assert cli.main(["retrieve", "evaluate", str(tmp_path / "index")]) == 0
    assert "the figures are too high for other images" in capsys.readouterr().err
    assert evaluate_index(open_index(tmp_path / "index")).as_dict()["whiten"] == "classes"
