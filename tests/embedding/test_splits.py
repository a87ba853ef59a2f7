"""Embeddings of a split: the same bits whichever images are asked for, stored or not; kills, damage, a full disk."""

import hashlib
import logging
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from deepemd import FCN, DeepEMD, Grid, Sampling, conv4
from deepemd.data import Images, Store
from deepemd.embedding import splits as embedding
from deepemd.embedding.cache import load as load_nodes
from deepemd.embedding.cache import rounded
from deepemd.embedding.splits import embed
from deepemd.training.recipes import Validation
from deepemd.training.validation import Validator


@pytest.fixture
def base(patterns: Store) -> Images:
    """192 images: two pieces of whole images."""
    return patterns.splits["base"]


@pytest.fixture
def model() -> DeepEMD:
    torch.manual_seed(0)
    return DeepEMD(conv4(channels=8, pools=2), FCN(), image_size=20, resize=24).eval()


def pieces(cache: Path) -> list[Path]:
    return sorted(cache.glob("deepemd-embeddings/*/*/*"))


@pytest.mark.parametrize("regions", [FCN(), Grid((2,)), Sampling(3)])
def test_nodes_are_the_same_bits_on_every_path(base, model, regions, tmp_path):
    """Threads, the order and the number of images, written and read: none of it shows."""
    model.regions = regions
    asked = np.array([150, 3, 150, 64, 130])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        nodes = embed(model, base)
        torch.set_num_threads(2)
        for cache in (None, tmp_path, tmp_path):
            assert torch.equal(embed(model, base, cache=cache), nodes)
            assert torch.equal(embed(model, base, asked, cache=cache), nodes[asked])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(nodes, nodes.half().float())
    assert nodes.std() > 0.01
    with torch.no_grad():  # the plain way, all at once
        seen, boxes = embedding.view(model, base, np.arange(len(base)))
        torch.testing.assert_close(nodes, model.embed(seen, boxes), rtol=1e-3, atol=1e-4)


def test_training_validates_on_nodes_that_are_rounded_alike(base, model):
    validator = Validator(base, Validation(n_episodes=4, n_query=3))
    with torch.no_grad():
        validator.embed(model, np.arange(40))
    torch.testing.assert_close(validator._nodes[0], embed(model, base, np.arange(40)), rtol=1e-3, atol=1e-6)
    assert torch.equal(validator._nodes[0], rounded(validator._nodes[0]))


def test_what_is_stored_is_read_and_nothing_else_is(base, model, tmp_path, monkeypatch):
    encoded = []
    encode = embedding._encode
    monkeypatch.setattr(embedding, "_encode", lambda *a, **k: encoded.append(1) or encode(*a, **k))

    def new(**settings) -> int:
        encoded.clear()
        embed(model, base, cache=tmp_path, **settings)
        return len(encoded)

    assert new() == 2
    assert new() == new(seed=7) == 0  # only Sampling draws
    assert new(bf16=True) == 2
    model.temperature, model.weights = 3.0, "uniform"  # of the matching
    assert new() == 0
    model.regions = Sampling(64)  # pieces of two images
    assert (new(), new(), new(seed=7)) == (96, 0, 96)
    model.regions = FCN()
    assert new() == 0
    with torch.no_grad():
        next(model.parameters())[0] += 1
    assert new() == 2


def test_the_cache_is_pruned_only_after_something_was_written(base, model, tmp_path, monkeypatch):
    pruned = []
    monkeypatch.setattr(embedding, "prune", pruned.append)
    for _ in range(3):
        embed(model, base, cache=tmp_path)
    assert pruned == [tmp_path]


def test_a_damaged_piece_is_found_and_made_again_with_a_warning(base, model, tmp_path, caplog):
    nodes = embed(model, base, cache=tmp_path)
    piece = pieces(tmp_path)[1]
    whole = piece.read_bytes()
    rng = np.random.default_rng(0)
    flips = []
    for place in rng.integers(0, len(whole), 12):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        flips.append(bytes(flipped))
    for damaged in (whole[: len(whole) // 2], whole[:-1], b"", b"\x93NUMPY", bytes(len(whole)), *flips):
        piece.write_bytes(damaged)
        with caplog.at_level(logging.WARNING):
            assert torch.equal(embed(model, base, cache=tmp_path), nodes)
        assert pieces(tmp_path)[1] == piece
        assert torch.equal(load_nodes(piece), nodes[128:])
    assert f"{piece}: damaged (" in caplog.text
    assert "embedding these images again" in caplog.text


SCRIPT = """
import hashlib, os, resource, signal, sys, torch
from pathlib import Path
from deepemd import DeepEMD
from deepemd.data import load
from deepemd.embedding import cache
from deepemd.embedding.splits import embed
if __name__ == "__main__":
    torch.set_num_threads(1)
    what, images = sys.argv[1], load(sys.argv[3]).splits["base"]
    images.pixels(24)
    if what == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
    if what == "kill":  # within the write of the second piece, half of its bytes in the file
        savez = cache.np.savez
        def killed(file, **arrays):
            if "000001" in file.name:
                file.write(bytes(3000)), file.flush(), os.kill(os.getpid(), signal.SIGKILL)
            savez(file, **arrays)
        cache.np.savez = killed
    nodes = embed(DeepEMD.load(sys.argv[2]), images, cache=Path(sys.argv[4]))
    print(hashlib.sha256(nodes.numpy().tobytes()).hexdigest())
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_killed_within_a_write_the_next_goes_on(patterns, base, model, tmp_path, monkeypatch, forks):
    cache = tmp_path / "c"
    saved = model.save(tmp_path / "model")
    assert forks.run(SCRIPT, "kill", saved, patterns.path, cache).returncode == -signal.SIGKILL
    left = pieces(cache)
    assert len(left) == 2
    assert sum(path.name.startswith(".tmp-") for path in left) == 1
    encoded = []
    encode = embedding._encode
    monkeypatch.setattr(embedding, "_encode", lambda *a, **k: encoded.append(1) or encode(*a, **k))
    assert torch.equal(embed(model, base, cache=cache), embed(model, base))
    assert len(encoded) == 1 + 2  # the second piece, and both without the cache
    assert [path.name for path in pieces(cache)] == ["000000.npz", "000001.npz"]  # the leftover is gone


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_full_disk_costs_the_cache_only(patterns, base, model, tmp_path, forks):
    done = forks.run(SCRIPT, "full", model.save(tmp_path / "model"), patterns.path, tmp_path / "c")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("embeddings cannot be stored (File too large)") == 1
    assert done.stdout.strip() == hashlib.sha256(embed(model, base).numpy().tobytes()).hexdigest()
    assert pieces(tmp_path / "c") == []
