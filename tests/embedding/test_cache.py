"""The cache of embeddings: only its own files are removed, and only what was stored in a place is believed there."""

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from deepemd import FCN, DeepEMD, conv4
from deepemd.embedding import cache
from deepemd.embedding.cache import _warn_of_no_home, default_cache, load, model_folder, prune, rounded, store
from deepemd.embedding.splits import embed
from deepemd.embedding.stream import Embedder


@pytest.fixture(scope="module")
def model() -> DeepEMD:
    torch.manual_seed(0)
    return DeepEMD(conv4(channels=8, pools=2), FCN(), image_size=20, resize=24).eval()


@pytest.fixture
def filled(model, tmp_path) -> Path:
    """The folder of a model in a cache in a folder that holds other things, named like those of a cache."""
    digest = "ab" * 32
    for place in (
        "notes.txt",
        f"0123456789abcdef/fedcba9876543210/{digest}.npz",
        "photos/2019/a.jpg",
        "0123456789abcdef/fedcba9876543210/000000.npz",
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(bytes(100))
    own = model_folder(tmp_path, model)
    assert own is not None
    for place in (f"ab/{digest}.npz", "0123456789abcdef/000000.npz"):
        (own / place).parent.mkdir(parents=True)
        store(own / place, torch.ones(1, 2, 3))
    return own


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and not p.is_symlink()}


def test_only_files_that_the_cache_has_written_are_removed(filled, tmp_path):
    others = [
        "deepemd-embeddings/mine.txt",
        "deepemd-embeddings/0123456789abcdef/thesis.docx",
        f"deepemd-embeddings/{filled.name}/ab/thesis.docx",
        f"deepemd-embeddings/{filled.name}/ab/{'cd' * 32}.npz",  # of another folder
        f"deepemd-embeddings/{filled.name}/ab/000000.npz",
        f"deepemd-embeddings/{filled.name}/0123456789abcdef/00.npz",
        f"deepemd-embeddings/{filled.name}/0123456789abcdef/000000.npz.bak",
        f"deepemd-embeddings/backup/ab/{'ab' * 32}.npz",
        f"deepemd-embeddings/{filled.name}/ab/deeper/{'ab' * 32}.npz",
    ]
    for place in others:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("mine")
    before = snapshot(tmp_path)
    prune(tmp_path, 0)
    gone = set(before) - set(snapshot(tmp_path))
    assert gone == {
        str((filled / p).relative_to(tmp_path)) for p in (f"ab/{'ab' * 32}.npz", "0123456789abcdef/000000.npz")
    }
    assert (tmp_path / "deepemd-embeddings" / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d17")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names, which are POSIX")
def test_a_pipe_in_the_place_of_the_tag_is_not_read(model, tmp_path):
    own = tmp_path / "deepemd-embeddings"
    own.mkdir()
    os.mkfifo(own / "CACHEDIR.TAG")
    assert model_folder(tmp_path, model) is None
    prune(tmp_path, 0)
    assert os.listdir(own) == ["CACHEDIR.TAG"]


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_links_are_neither_followed_nor_removed(filled, tmp_path):
    outside = tmp_path / "outside" / filled.name
    shutil.move(filled, outside)
    filled.symlink_to(outside)
    prune(tmp_path, 0)
    assert len(snapshot(outside)) == 2
    filled.unlink()
    shutil.copytree(outside, filled)
    (filled / "ab").rename(outside / "ab2")
    (filled / "ab").symlink_to(outside / "ab2")
    file = filled / "0123456789abcdef" / "000001.npz"
    file.symlink_to(outside / "ab2" / f"{'ab' * 32}.npz")
    prune(tmp_path, 0)
    assert (outside / "ab2" / f"{'ab' * 32}.npz").is_file()
    assert file.is_symlink()
    own = tmp_path / "deepemd-embeddings"
    shutil.move(own, tmp_path / "elsewhere")
    own.symlink_to(tmp_path / "elsewhere")
    prune(tmp_path, 0)
    assert snapshot(tmp_path / "elsewhere")


def test_a_folder_without_the_tag_is_neither_used_nor_pruned(model, tmp_path, caplog):
    own = tmp_path / "deepemd-embeddings"
    place = own / "0123456789abcdef" / "ab" / f"{'ab' * 32}.npz"
    place.parent.mkdir(parents=True)
    place.write_text("mine")
    assert model_folder(tmp_path, model) is None
    assert "holds other files than embeddings" in caplog.text
    prune(tmp_path, 0)
    (own / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n# of another program\n")
    prune(tmp_path, 0)
    assert place.read_text() == "mine"
    shutil.rmtree(own)
    own.mkdir()  # a process was killed before it wrote the tag
    assert model_folder(tmp_path, model) is not None


def test_the_oldest_go_first_and_no_more_than_needed(filled, tmp_path):
    sizes = []
    for k in range(5):
        path = filled / "0123456789abcdef" / f"{k:06}.npz"
        store(path, torch.full((1, 2, 3), float(k)))
        os.utime(path, (1000 - k, 1000 - k))
        sizes.append(path.stat().st_size)
    (filled / "ab" / f"{'ab' * 32}.npz").unlink()
    prune(tmp_path, 2 * sizes[0])
    assert sorted(p.name for p in (filled / "0123456789abcdef").iterdir()) == ["000000.npz", "000001.npz"]


def test_a_cache_of_an_earlier_version_stays_where_it_is(model, patterns, tmp_path):
    old = tmp_path / cache.fingerprint(model)[:16] / "ab" / f"{'ab' * 32}.npz"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    embed(model, patterns.splits["base"], np.arange(3), cache=tmp_path)
    prune(tmp_path, 0)
    assert old.read_bytes() == b"old"


@pytest.mark.parametrize("value", [1e6, 1e-3])
def test_nodes_that_float16_cannot_hold_are_stored_as_they_are(tmp_path, value):
    nodes = torch.tensor([[[value, 1.0]]])
    store(tmp_path / "a.npz", rounded(nodes))
    assert torch.equal(load(tmp_path / "a.npz"), rounded(nodes))


def test_nodes_that_are_not_finite_are_never_stored(tmp_path):
    for bad in (float("nan"), float("inf")):
        store(tmp_path / "a.npz", torch.tensor([[[bad, 1.0]]]))
        assert not (tmp_path / "a.npz").exists()


def spoiled(path: Path, how: str, other: Path) -> None:
    """Replace a stored file by a whole .npz file that does not fit."""
    with np.load(path) as found:
        nodes, check = found["nodes"], found["check"]
    if how == "swapped":
        shutil.copy(other, path)
    elif how == "no check sum":
        np.savez(path, nodes=nodes)
    elif how == "compressed":
        np.savez_compressed(path, nodes=nodes, check=check)
    elif how == "objects":
        np.savez(path, nodes=nodes.astype(object), check=check)
    else:
        changed = {
            "zeroed": nodes * 0,
            "NaN": nodes * np.nan,
            "reversed": nodes[::-1],
            "another shape": nodes.reshape(-1),
            "fewer images": nodes[:-1],
            "no images": nodes[:0],
            "other channels": nodes.swapaxes(-1, -2),
            "of float64": nodes.astype(np.float64),
            "text": nodes.astype(str),
        }[how]
        np.savez(path, nodes=changed, check=check)


KINDS = ["swapped", "no check sum", "compressed", "objects", "zeroed", "NaN", "reversed", "another shape"]
KINDS += ["fewer images", "no images", "other channels", "of float64", "text"]


@pytest.mark.parametrize("how", KINDS)
def test_a_piece_that_does_not_fit_is_made_again(model, patterns, tmp_path, caplog, how):
    base = patterns.splits["base"]
    nodes = embed(model, base, cache=tmp_path)
    one, other = sorted(tmp_path.glob("deepemd-embeddings/*/*/*"))
    whole = one.read_bytes()
    spoiled(one, how, other)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(embed(model, base, cache=tmp_path), nodes)
    assert f"{one}: damaged" in caplog.text
    assert one.read_bytes() == whole
    caplog.clear()
    assert torch.equal(embed(model, base, cache=tmp_path), nodes)
    assert not caplog.text


@pytest.mark.parametrize("how", ["swapped", "zeroed", "NaN", "other channels"])
def test_the_nodes_of_a_photo_that_do_not_fit_are_made_again(model, patterns, tmp_path, how):
    base = patterns.splits["base"]
    photos = []
    for i in range(2):
        photos.append(tmp_path / f"{i}.png")
        photos[i].write_bytes(base.encoded(i))
    embedder = Embedder(model, tmp_path)
    nodes = [one.nodes for one in embedder.stream(photos)]
    one, other = sorted(tmp_path.glob("deepemd-embeddings/*/*/*.npz"))
    spoiled(one, how, other)
    for again, expected in zip(embedder.stream(photos), nodes, strict=True):
        assert torch.equal(again.nodes, expected)


def test_a_cache_of_another_decoding_or_model_is_not_read(model, tmp_path, monkeypatch):
    here = model_folder(tmp_path, model)
    monkeypatch.setattr(cache, "DECODING", cache.DECODING + 1)
    assert model_folder(tmp_path, model) != here


def test_a_cache_that_cannot_be_made_costs_a_warning_only(model, patterns, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    base = patterns.splits["base"]
    assert torch.equal(embed(model, base, cache=tmp_path / "file"), embed(model, base))
    assert "embeddings cannot be stored" in caplog.text


def test_without_a_home_nothing_is_cached(monkeypatch, caplog):
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert default_cache() == Path(os.environ["DEEPEMD_CACHE"])
    monkeypatch.delenv("DEEPEMD_CACHE")
    _warn_of_no_home.cache_clear()
    assert default_cache() is default_cache() is None
    assert caplog.text.count("there is no home folder, so embeddings are not stored: set DEEPEMD_CACHE") == 1
