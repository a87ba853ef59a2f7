"""An index of images: what is found, what is written, what the figures are, and every kind of bad input.

Tests deepemd.apps.retrieval.building, deepemd.apps.retrieval.page, deepemd.apps.retrieval.queries,
deepemd.apps.retrieval.ranking, deepemd.commands.retrieve.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from deepemd import FCN, DeepEMD, cli, conv4
from deepemd.apps.retrieval.building import build_index
from deepemd.apps.retrieval.index import Index, open_index
from deepemd.apps.retrieval.queries import embed_queries
from deepemd.apps.retrieval.ranking import MEASURES, evaluate_index, measures
from deepemd.data import load, prepare
from deepemd.errors import InputError
from deepemd.matching import emd_logits
from deepemd.nodes import Sampling

RNG = np.random.default_rng(0)
# Folders and their colours; the first part is the class. The name of the third is markup to a terminal.
CLASSES = {
    "rot": (200, 40, 40),
    "grün 1": (40, 200, 40),
    "it's [/red] $日本": (40, 40, 200),
    "deep/er/grau": (120, 120, 120),
}


def picture(colour: tuple[int, int, int], width: int = 40, height: int = 30) -> Image.Image:
    """Coarse noise around a colour."""
    coarse = np.clip(RNG.normal(colour, 60, (5, 5, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes of eight images, at several depths, and files that are no images."""
    root = tmp_path_factory.mktemp("photos")
    for label, colour in CLASSES.items():
        (root / label).mkdir(parents=True)
        for k in range(8):
            picture(colour).save(root / label / f"bild é {k}.png")
    picture((9, 9, 9)).save(root / "outermost.JPG")
    (root / "notes.txt").write_text("not an image, and not named like one")
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return DeepEMD(conv4(channels=8, pools=3), FCN(), image_size=32, resize=32).save(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def index(photos: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    return build_index(model, photos, tmp_path_factory.mktemp("index") / "photos")


def test_an_index_stands_alone(index, photos, model, tmp_path):
    assert index.images.classes == tuple(sorted([".", *(label.partition("/")[0] for label in CLASSES)]))
    assert len(index) == 33
    assert sorted(file.name for file in index.path.iterdir()) == [
        "checks.npy", "images", "index.json", "model", "nodes.npy", "pooled.npy",
    ]  # fmt: skip
    assert sorted(file.name for file in (index.path / "images").iterdir()) == ["all.bin", "all.npz", "store.json"]
    assert not list(index.path.parent.glob(".tmp-*"))
    assert (index.nodes.shape, index.nodes.dtype) == ((33, 16, 8), np.float16)
    moved = open_index(Path(shutil.copytree(index.path, tmp_path / "elsewhere ö")))
    for i, name in enumerate(moved.images.names):
        assert moved.images.encoded(i) == (photos / name).read_bytes()
    network = DeepEMD.load(model)
    pixels = torch.from_numpy(np.asarray(load_pixels(moved)))
    with torch.inference_mode():
        nodes = network.embed(pixels)
    assert np.abs(moved.nodes - nodes.numpy()).max() < 2e-3
    assert torch.allclose(moved.pooled, nodes.mean(1), atol=1e-3)
    assert torch.equal(moved.pooled, torch.from_numpy(moved.nodes[:].astype(np.float32)).mean(1))


def load_pixels(index: Index) -> np.ndarray:
    """Each image resized by Pillow to what the model sees."""
    some = [index.images.image(i).resize((32, 32), Image.Resampling.BILINEAR) for i in range(len(index))]
    return np.stack([np.asarray(image).transpose(2, 0, 1) for image in some])


def test_a_search_is_the_slow_search(index):
    """Cosines and distances one by one, and a sort: the same order; the same for one query or many."""
    nodes = torch.from_numpy(index.nodes[np.array([0, 5, 9])]).float() + 0.01 * torch.randn(3, 16, 8)
    every = torch.from_numpy(np.array(index.nodes)).float()
    hits = index.search(nodes, top=4, shortlist=7)
    for q, query in enumerate(nodes):
        cosines = torch.stack([torch.corrcoef(torch.stack([query.mean(0), p]))[0, 1] for p in index.pooled])
        best = cosines.argsort(descending=True)[:7].tolist()
        similar = {i: float(emd_logits(query[None], every[i][None], temperature=1.0)) for i in best}
        expected = sorted(best, key=lambda i: -similar[i])[:4]
        assert hits.images[q].tolist() == expected
        assert hits.similarity[q].tolist() == pytest.approx([similar[i] for i in expected], abs=1e-5)
        assert hits.cosine[q].tolist() == pytest.approx(cosines[expected].tolist(), abs=1e-5)
        alone = index.search(query[None], top=4, shortlist=7)
        assert alone.images[0].tolist() == expected
    assert index.search(nodes, top=1000, shortlist=3).images.shape == (3, 33)  # all there are
    assert index.search(nodes, top=5, shortlist=1).images.shape == (3, 5)  # the shortlist is never shorter than top


def test_an_image_finds_itself(index, photos):
    files = [photos / name for name in index.images.names]
    queries = embed_queries(index, files)
    assert queries.sides[0].picture.size == (40, 30)
    hits = index.search(queries.nodes, top=1)
    assert hits.images[:, 0].tolist() == list(range(33))
    assert hits.similarity.min() > 0.999


def test_queries_are_taken_by_position_and_one_image_is_no_list(index, photos):
    files = [photos / name for name in index.images.names[:3]]
    nodes = embed_queries(index, files).nodes
    for held in (
        pd.Series(files, index=[2, 0, 1]),
        map(str, files),
        [Image.open(file).convert("RGB") for file in files],
    ):
        assert torch.equal(embed_queries(index, held).nodes, nodes)
    picture = Image.open(files[0]).convert("RGB")
    for one in (files[0], str(files[0]), picture, np.asarray(picture)):
        with pytest.raises(InputError, match=r"images .* pass a list"):
            embed_queries(index, one)
    with pytest.raises(InputError, match="images is empty"):
        embed_queries(index, [])
    for bad in (nodes[0], nodes[:0], nodes[..., :-1]):
        with pytest.raises(InputError, match=r"nodes are .*, but those of the index are \(Q, "):
            index.search(bad)


def test_random_patches_of_a_query_are_those_of_its_content(photos, tmp_path):
    """Whatever other queries there are; the page draws the same patches."""
    torch.manual_seed(0)
    saved = DeepEMD(conv4(channels=8, pools=3), Sampling(4), image_size=32, resize=32).save(tmp_path / "model")
    index = build_index(saved, photos, tmp_path / "index")
    files = [photos / name for name in index.images.names]
    nodes = embed_queries(index, files).nodes
    assert torch.equal(embed_queries(index, files[::-1]).nodes, nodes.flip(0))
    assert torch.equal(embed_queries(index, files[4:5]).nodes, nodes[4:5])


def test_nodes_too_large_for_half_precision_are_kept_whole(photos, model, tmp_path):
    large = DeepEMD.load(model)
    with torch.no_grad():
        for parameter in list(large.backbone.parameters())[-2:]:
            parameter.mul_(1e6)
    index = build_index(large.save(tmp_path / "model"), photos, tmp_path / "index")
    assert index.nodes.dtype == np.float32
    assert np.abs(index.nodes).max() > 65504


def test_measures_against_a_slow_twin():
    relevant = torch.from_numpy(RNG.random((50, 12)) < 0.3)
    relevant[:, 7] = True
    found = measures(relevant)
    for q, row in enumerate(relevant.tolist()):
        places = [place for place, hit in enumerate(row, 1) if hit]
        precisions = [(k + 1) / place for k, place in enumerate(places)]
        assert found["mAP"][q].item() == pytest.approx(sum(precisions) / len(places))
        for k in (1, 2, 4, 8):
            assert found[f"Recall@{k}"][q].item() == (places[0] <= k)


def test_evaluation_against_a_slow_twin(index):
    """Every query on its own, with the library's scores but lists and sorts of Python."""
    ranking = evaluate_index(index, shortlist=5)
    labels = index.images.labels.tolist()
    every = torch.from_numpy(np.array(index.nodes)).float()
    asked = [i for i in range(33) if labels.count(labels[i]) > 1]  # not the outermost one, alone in its class
    assert len(asked) == 32
    cosine = torch.nn.functional.cosine_similarity(index.pooled[:, None], index.pooled[None], dim=-1)
    centred = torch.corrcoef(index.pooled)
    expected: dict[str, list[torch.Tensor]] = {}
    for i in asked:
        others = [j for j in range(33) if j != i]
        by_centred = sorted(others, key=lambda j: -float(centred[i, j]))
        emd = {j: float(emd_logits(every[i][None], every[j][None])) for j in by_centred[:5]}
        orders = {
            "pooled cosine": sorted(others, key=lambda j: -float(cosine[i, j])),
            "pooled centred cosine": by_centred,
            "EMD re-ranking": sorted(emd, key=lambda j: -emd[j]) + by_centred[5:],
        }
        for way, order in orders.items():
            relevant = torch.tensor([[labels[j] == labels[i] for j in order]])
            expected.setdefault(way, []).append(torch.cat(list(measures(relevant).values())))
    assert set(ranking.values) == set(expected)
    for way, rows in expected.items():
        found = np.stack([ranking.values[way][measure] for measure in MEASURES], axis=1)
        assert np.abs(found - torch.stack(rows).numpy()).max() < 1e-9


def test_images_without_a_class_are_found_but_are_no_queries(photos, model, tmp_path):
    source = Path(shutil.copytree(photos, tmp_path / "photos"))
    for k in range(3):
        picture((9, 9, 9)).save(source / f"more {k}.png")
    ranking = evaluate_index(build_index(model, source, tmp_path / "index"))
    assert (ranking.images, ranking.classes) == (36, 4)
    assert ranking.as_dict()["queries"] == 32


def test_reports_of_an_evaluation(index):
    ranking = evaluate_index(index, queries=10, seed=3)
    assert ranking.as_dict()["queries"] == 10
    same = evaluate_index(index, queries=10, seed=3)
    assert all(np.array_equal(ranking.values[w][m], same.values[w][m]) for w in ranking.values for m in MEASURES)
    report = json.loads(json.dumps(ranking.as_dict()))
    for measure in MEASURES:
        figures = {way: report["figures"][way][measure]["mean"] for way in report["figures"]}
        difference = report["EMD_minus_the_better_cosine"][measure]
        better = max(figures["pooled cosine"], figures["pooled centred cosine"])
        assert figures[difference["than"]] == better
        assert difference["mean"] == pytest.approx(figures["EMD re-ranking"] - better)
    assert ranking.table().rows[-1][0] == "EMD minus the better cosine"


def test_the_emd_raises_recall_on_colours(index):
    """Untrained, but not blind: far above the quarter that chance would give."""
    ranking = evaluate_index(index)
    assert ranking.mean("EMD re-ranking", "Recall@1").mean > 0.5


def test_a_split_of_a_prepared_set(photos, model, tmp_path):
    for split, label in (("base", "rot"), ("val", "grün 1")):
        shutil.copytree(photos / label, tmp_path / "mine" / split / label)
    store = prepare("flowers", tmp_path / "mine", root=tmp_path / "root")
    for data in ("flowers", tmp_path / "mine", store.path):
        index = build_index(model, data, tmp_path / "index", split="val", root=tmp_path / "root", force=True)
        assert index.images.classes == ("grün 1",)
        assert index.images.fingerprint.sha256 == store.splits["val"].fingerprint.sha256 or data == tmp_path / "mine"
    with pytest.raises(InputError, match="split: flowers has the splits base, val: choose one with --split"):
        build_index(model, "flowers", tmp_path / "other", root=tmp_path / "root")
    with pytest.raises(InputError, match="split: flowers has no split 'novel'; choose one of base, val"):
        build_index(model, "flowers", tmp_path / "other", split="novel", root=tmp_path / "root")
    assert load("flowers", root=tmp_path / "root").splits["val"].fingerprint == store.splits["val"].fingerprint


def test_an_index_is_not_overwritten_unless_told_to(index, photos, model, tmp_path):
    path = Path(shutil.copytree(index.path, tmp_path / "index"))
    before = (path / "nodes.npy").read_bytes()
    with pytest.raises(InputError, match="holds an index already: pass --force"):
        build_index(model, photos, path)
    with pytest.raises(InputError, match="no images in it"):  # the old one stays
        build_index(model, tmp_path / "index" / "model", path, force=True)
    assert (path / "nodes.npy").read_bytes() == before
    few = build_index(model, photos / "rot", path, force=True)
    assert len(few) == len(open_index(path)) == 8
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "x.tex").write_text("years of work")
    with pytest.raises(InputError, match="thesis: holds something other than an index"):
        build_index(model, photos, tmp_path / "thesis", force=True)


def other_model(path: Path) -> None:
    torch.manual_seed(1)
    DeepEMD(conv4(channels=8, pools=3), FCN(), image_size=32, resize=32).save(path / "model")


def other_images(path: Path) -> None:
    prepare("x", path.parent / "grey", root=path.parent / "root")
    shutil.rmtree(path / "images")
    shutil.copytree(path.parent / "root" / "x", path / "images")


def cut(name: str):
    def spoil(path: Path) -> None:
        content = (path / name).read_bytes()
        (path / name).write_bytes(content[: len(content) // 2])

    return spoil


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (other_model, r"model: not the model that the index was made with .* make the index again with --force"),
        (other_images, r"images: not the images that the index was made with"),
        (cut("nodes.npy"), "the index is damaged"),
        (cut("pooled.npy"), "the index is damaged"),
        (cut("index.json"), "the index is damaged"),
        (cut("images/all.bin"), r"all\.bin: [\d,]+ bytes, but its index says"),
        (cut("model/model.safetensors"), "not the model that the index was made with"),
        (lambda p: np.save(p / "nodes.npy", np.zeros((3, 16, 8))), r"33 images, but nodes of shape \(3, 16, 8\)"),
        (lambda p: np.save(p / "nodes.npy", np.zeros(3)), r"33 images, but nodes of shape \(3,\)"),
        (lambda p: np.save(p / "nodes.npy", np.full((33, 16, 8), None), allow_pickle=True), "the index is damaged"),
        (lambda p: (p / "index.json").write_text("[]"), "the index is damaged"),
        (lambda p: (p / "index.json").write_text('{"format": 7}'), "an index of format 7, but this version reads 1"),
        (lambda p: (p / "nodes.npy").unlink(), r"no index, .*nodes\.npy is missing"),
        (lambda p: (p / "index.json").unlink(), r"no index, .*index\.json is missing"),
    ],
)
def test_damaged_indexes_are_refused(index, tmp_path, spoil, says):
    path = Path(shutil.copytree(index.path, tmp_path / "index"))
    (tmp_path / "grey" / "a").mkdir(parents=True)
    picture((1, 2, 3)).save(tmp_path / "grey" / "a" / "1.png")
    spoil(path)
    with pytest.raises(InputError, match=says):
        open_index(path)


def rewrite(name: str, change):
    """Replace an array by another whole one."""

    def spoil(path: Path) -> None:
        np.save(path / name, change(np.load(path / name)))

    return spoil


def one_nan(array: np.ndarray) -> np.ndarray:
    array.flat[5] = np.nan
    return array


def older(path: Path) -> None:
    """Make an index one of an earlier version, without check sums."""
    description = json.loads((path / "index.json").read_text())
    del description["files"]
    (path / "index.json").write_text(json.dumps(description))
    (path / "checks.npy").unlink()


WHOLE_BUT_WRONG = {
    "reversed nodes": rewrite("nodes.npy", lambda a: a[::-1]),
    "two nodes of an image exchanged": rewrite("nodes.npy", lambda a: np.concatenate([a[:1, ::-1], a[1:]])),
    "zeros": rewrite("nodes.npy", lambda a: a * 0),
    "a NaN": rewrite("nodes.npy", one_nan),
    "nodes of float32": rewrite("nodes.npy", lambda a: a.astype(np.float32)),
    "nodes of float64": rewrite("nodes.npy", lambda a: a.astype(np.float64)),
    "nodes of whole numbers": rewrite("nodes.npy", lambda a: a.astype(np.int16)),
    "reversed means": rewrite("pooled.npy", lambda a: a[::-1]),
    "a NaN mean": rewrite("pooled.npy", one_nan),
    "another check sum": rewrite("checks.npy", lambda a: a[::-1]),
    "check sums of another type": rewrite("checks.npy", lambda a: a.astype(np.float64)),
}


@pytest.mark.parametrize("spoil", WHOLE_BUT_WRONG.values(), ids=WHOLE_BUT_WRONG)
def test_whole_files_that_are_not_those_that_were_written_are_refused(index, tmp_path, spoil):
    path = Path(shutil.copytree(index.path, tmp_path / "index"))
    spoil(path)
    with pytest.raises(InputError, match=r"damaged.*make the index again with --force"):
        open_index(path)


def test_other_channels_are_refused(index, tmp_path):
    path = Path(shutil.copytree(index.path, tmp_path / "index"))
    older(path)
    rewrite("nodes.npy", lambda a: a[..., :4])(path)
    rewrite("pooled.npy", lambda a: a[..., :4])(path)
    with pytest.raises(InputError, match="16 nodes of 4 channels, which are not those of its model"):
        open_index(path)


@pytest.mark.parametrize("what", ["reversed nodes", "zeros", "a NaN", "reversed means", "a NaN mean"])
def test_an_index_without_check_sums_is_read_and_its_nodes_compared_with_their_means(index, tmp_path, what):
    path = Path(shutil.copytree(index.path, tmp_path / "index"))
    older(path)
    nodes = index.rows(np.array([3, 30]))
    assert torch.equal(open_index(path).search(nodes).similarity, index.search(nodes).similarity)
    WHOLE_BUT_WRONG[what](path)
    with pytest.raises(InputError, match="damaged"):
        open_index(path)


def test_a_large_index_is_verified_where_it_is_read(index, tmp_path, monkeypatch):
    path = Path(shutil.copytree(index.path, tmp_path / "index"))
    monkeypatch.setattr("deepemd.apps.retrieval.checksums._MAX_ROWS", 2)  # only the ends
    rewrite("nodes.npy", lambda a: np.concatenate([a[:5], a[5:6] + np.float16(1), a[6:]]))(path)
    found = open_index(path)
    found.rows(np.array([[0, 4], [6, 32]]))
    with pytest.raises(InputError, match="the nodes of image 5 are not those that were written"):
        found.search(index.rows(np.array([5])))


def test_images_and_names_of_an_index_are_verified(index, tmp_path):
    path = Path(shutil.copytree(index.path, tmp_path / "index"))
    with np.load(path / "images" / "all.npz") as found:
        arrays = dict(found)
    np.savez(path / "images" / "all.npz", **{**arrays, "names": arrays["names"][::-1]})
    with pytest.raises(InputError, match=r"all\.npz: changed since the store was written"):
        open_index(path)


OTHERS = ["thesis.tex", "images/notes.txt", "model/README.md", "model/sub/x.txt", "nodes.npy.bak", "empty/a/b"]


@pytest.mark.parametrize("name", OTHERS)
def test_an_index_with_other_files_is_not_replaced(index, model, photos, tmp_path, name):
    path = Path(shutil.copytree(index.path, tmp_path / "index"))
    (path / name).parent.mkdir(exist_ok=True, parents=True)
    (path / name).write_text("years of work")
    with pytest.raises(InputError, match="which is not of an index: move it away"):
        build_index(model, photos, path, force=True)
    assert (path / name).read_text() == "years of work"


def test_what_cannot_be_searched_or_ranked(index, photos, model, tmp_path):
    nodes = torch.zeros(1, 16, 8)
    for options, says in (({"top": 0}, "top is 0"), ({"shortlist": 0}, "shortlist is 0"), ({"top": -3}, "top is -3")):
        with pytest.raises(InputError, match=f"{says}: it must be at least 1"):
            index.search(nodes, **options)
        with pytest.raises(InputError, match="it must be at least 1"):
            evaluate_index(index, **({"queries": 0} if "top" in options else options))
    one_class = build_index(model, photos / "rot", tmp_path / "one")
    with pytest.raises(InputError, match="8 images in 0 classes: an evaluation needs at least two folders"):
        evaluate_index(one_class)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no images in it \(\.jpg"):
        build_index(model, tmp_path / "empty", tmp_path / "other")
    assert not (tmp_path / "other").exists()
    assert not list(tmp_path.glob(".tmp-*"))


def run(capsys, *words: object) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in words])
    return code, *capsys.readouterr()


def test_the_command_line(photos, model, tmp_path, capsys):
    bad = photos.parent / "with bad"
    shutil.copytree(photos, bad, dirs_exist_ok=True)
    (bad / "rot" / "bad.png").write_text("milk")
    code, _, err = run(capsys, "retrieve", "index", model, bad, tmp_path / "index")
    assert (code, "rot/bad.png: not an image" in err, "or pass --skip-bad" in err) == (2, True, True)
    code, out, err = run(capsys, "retrieve", "index", model, bad, tmp_path / "index", "--skip-bad")
    assert "rot/bad.png: not an image" in err
    assert "1 bad images were left out" in err
    assert (code, "33 images of 4 classes, 16 nodes of 8 channels each" in out) == (0, True)
    queries = [tmp_path / "a 'query' é.png", tmp_path / "[bold] $2$.jpg"]
    for query in queries:
        picture(CLASSES["rot"], 64, 48).save(query)
    code, out, _ = run(
        capsys, "retrieve", "query", tmp_path / "index", *queries, "--top", 6, "--out", tmp_path / "p" / "r.html"
    )
    assert code == 0
    assert out.count("1 - EMD") == 2
    assert "Most similar to" in out
    assert "[bold]$2$.jpg" in "".join(out.split())  # a long title is folded at spaces
    page = (tmp_path / "p" / "r.html").read_text()
    assert "a &#x27;query&#x27; é.png" in page
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["r.html"]  # the page needs no other file
    assert page.count('<svg class="match"') == 2 * 4
    assert page.count("<tr>") == 2 * 7
    code, out, _ = run(capsys, "retrieve", "evaluate", tmp_path / "index", "--out", tmp_path / "report.json")
    assert code == 0
    assert json.loads((tmp_path / "report.json").read_text())["queries"] == 32


def test_bad_queries_of_the_command_line(index, photos, tmp_path, capsys):
    (tmp_path / "list.png").write_text("milk")
    good = photos / "outermost.JPG"
    for words, says in (
        ([tmp_path / "list.png"], "list.png: not an image that Pillow can read"),
        ([good, tmp_path / "gone.png"], "gone.png: there is no such file: check the path"),
        ([tmp_path], "list.png: not an image that Pillow can read"),
        ([photos / "rot", tmp_path / "none" / "none"], "there is no such file"),
        ([good, "--top", 0], "top is 0: it must be at least 1"),
        ([good, "--shortlist", 0], "shortlist is 0: it must be at least 1"),
        ([good, "--out", tmp_path], "is a folder; name a file in it"),
        ([], "required: images"),
    ):
        code, _, err = run(capsys, "retrieve", "query", index.path, *words)
        assert (code, says in err, "Traceback" in err) == (2, True, False), err
    for command, *words in (("query", tmp_path / "none", good), ("evaluate", tmp_path / "none")):
        code, _, err = run(capsys, "retrieve", command, *words)
        assert (code, "no index" in err) == (2, True)


def test_of_several_queries_the_good_ones_are_answered(index, photos, tmp_path, capsys):
    """One that cannot be read is reported, also inside of a folder, and the exit code is 2."""
    folder = Path(shutil.copytree(photos / "rot", tmp_path / "folder"))
    (folder / "bad.png").write_text("milk")
    (folder / "notes.txt").write_text("no image")
    out = tmp_path / "r.html"
    code, printed, err = run(capsys, "retrieve", "query", index.path, folder, tmp_path / "gone.png", "--out", out)
    assert code == 2
    assert printed.count("Most similar to ") == 8
    assert "bad.png" not in printed
    assert f"{folder / 'bad.png'}: not an image that Pillow can read" in err
    assert f"{tmp_path / 'gone.png'}: there is no such file" in err
    assert str(folder / "notes.txt") in err
    assert "2 of 10 images could not be read, as listed above" in err
    assert out.read_text().count('<svg class="match"') == 8 * 4
    assert len(embed_queries(index, [folder / "bad.png", photos / "outermost.JPG"], skip_bad=True).bad) == 1
    with pytest.raises(InputError, match=r"bad\.png: not an image"):
        embed_queries(index, [photos / "outermost.JPG", folder / "bad.png"])
    with pytest.raises(InputError, match=r"no image can be read:\n.*bad\.png"):
        embed_queries(index, [folder / "bad.png"], skip_bad=True)


def test_results_are_replaced_only_with_force(index, photos, tmp_path, capsys):
    page, report = tmp_path / "r.html", tmp_path / "r.json"
    for words in (
        ["query", index.path, photos / "outermost.JPG", "--out", page],
        ["evaluate", index.path, "--out", report],
    ):
        assert run(capsys, "retrieve", *words)[0] == 0
        before = words[-1].read_bytes()
        words[-1].write_text("notes of a person")
        code, _, err = run(capsys, "retrieve", *words)
        assert (code, "already exists: choose another place with --out, or pass --force" in err) == (2, True)
        assert words[-1].read_text() == "notes of a person"
        assert run(capsys, "retrieve", *words, "--force")[0] == 0
        assert words[-1].read_bytes()[:100] == before[:100]


def test_every_encoder_of_predict_makes_an_index(photos, tmp_path, capsys):
    """By name, and that of a saved classifier, whose classes play no part."""
    from deepemd import FewShotClassifier

    code, out, _ = run(capsys, "retrieve", "index", "efficientnet-lite0", photos, tmp_path / "index")
    assert (code, "33 images of 4 classes" in out) == (0, True)
    files = sorted((photos / "rot").iterdir()) + sorted((photos / "grün 1").iterdir())
    saved = (
        FewShotClassifier(cache=False).fit(files, [file.parent.name for file in files]).save(tmp_path / "classifier")
    )
    run(capsys, "retrieve", "index", saved, photos, tmp_path / "other")
    one, other = open_index(tmp_path / "index"), open_index(tmp_path / "other")
    assert torch.equal(one.pooled, other.pooled)
    hits = one.search(embed_queries(one, files[:3]).nodes, top=1)
    assert [one.images.names[i] for i in hits.images[:, 0]] == [f"rot/{file.name}" for file in files[:3]]
    code, _, err = run(capsys, "retrieve", "index", "no-such-model", photos, tmp_path / "third")
    assert (code, "no-such-model: neither a folder here, nor installed" in err) == (2, True)
    assert not (tmp_path / "third").exists()


def test_shards_of_a_gallery_answer_as_one_index(index: Index) -> None:
    """The function that docs/scale.md shows, over three parts of the index."""
    page = (Path(__file__).parents[3] / "docs" / "scale.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    shown: dict = {}
    exec(snippet, shown)
    bounds = [0, 5, 20, len(index)]
    shards = [  # of the images a search takes the number only
        Index(index.path, index.model, range(end - begin), index.nodes[begin:end], index.pooled[begin:end])
        for begin, end in pairwise(bounds)
    ]
    for query in torch.from_numpy(index.nodes[[3, 30]]).float():
        whole = index.search(query[None], top=6, shortlist=9)
        owner, image, similarity = shown["search"](shards, query[None], top=6, shortlist=9)
        assert (torch.tensor(bounds)[owner] + image).tolist() == whole.images[0].tolist()
        torch.testing.assert_close(similarity, whole.similarity[0])


KILLED = """
import os, signal, sys
from pathlib import Path
from deepemd.apps.retrieval import building as retrieval
save = retrieval.np.save
def killed(path, array):
    if path.name == "pooled.npy":
        path.write_bytes(bytes(1000)), os.kill(os.getpid(), signal.SIGKILL)
    save(path, array)
retrieval.np.save = killed
model, photos, index, cache = map(Path, sys.argv[1:])
retrieval.build_index(model, photos, index, force=True, cache=cache)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("before", [False, True])
def test_an_index_that_is_killed_is_not_there_and_soon_made(photos, model, index, tmp_path, monkeypatch, before):
    path, cache = tmp_path / "index", tmp_path / "cache"
    if before:  # another index, which stays
        shutil.copytree(index.path, path)
    command = [sys.executable, "-c", KILLED, *map(str, (model, photos, path, cache))]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".tmp-*"))) == 1
    if before:
        assert len(open_index(path)) == len(index)
    else:
        with pytest.raises(InputError, match="no index"):
            open_index(path)
    monkeypatch.setattr(DeepEMD, "embed", lambda *_: pytest.fail("embedded again"))
    made = build_index(model, photos, path, force=True, cache=cache)
    np.testing.assert_array_equal(made.nodes, index.nodes)
    assert torch.equal(made.pooled, index.pooled)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cache", "index"]
