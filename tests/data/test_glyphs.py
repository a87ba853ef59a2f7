"""The built-in set: its letters obey the rule, its pixels are frozen, it is neither trivial nor noise.

Tests deepemd.data.letters.
"""

import io
import os
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from deepemd.data import EpisodeSampler, Store, glyphs, load, prepare
from deepemd.data.letters import FACES, LETTERS, NOVEL_FACES, SCRIPTS, face_files, likeness, select
from deepemd.errors import InputError


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return prepare("glyphs", root=tmp_path_factory.mktemp("root"))


def test_letters_are_those_that_the_rule_keeps():
    selected = select()
    if features.version("freetype2") == "2.14.3":
        assert selected == LETTERS
    else:  # it may draw a little differently: letters on the edge of a threshold are excused
        fewer, more = select(-0.01), select(0.01)
        assert all(set(LETTERS[s]) ^ set(selected[s]) <= set(fewer[s]) ^ set(more[s]) for s in selected)


def test_no_letter_twice():
    letters = list(chain.from_iterable(LETTERS.values()))
    assert len(set(letters)) == len(letters)
    assert set(chain.from_iterable(SCRIPTS.values())) == set(LETTERS)


def test_no_letter_of_one_split_looks_like_a_letter_of_another():
    pairs = [(split, letter) for split, scripts in SCRIPTS.items() for s in scripts for letter in LETTERS[s]]
    alike = likeness([letter for _, letter in pairs])
    for i, (split, _) in enumerate(pairs):
        for j, (other, _) in enumerate(pairs[:i]):
            assert split == other or alike[i, j] < 0.81


def test_every_face_has_every_letter():
    from matplotlib.ft2font import FT2Font

    for face, path in face_files().items():
        have = set(map(chr, FT2Font(str(path)).get_charmap()))
        scripts = [script for script in LETTERS if face in NOVEL_FACES or script not in ("armenian", "georgian")]
        assert have.issuperset(chain.from_iterable(LETTERS[script] for script in scripts))


def test_counts(store):
    expected = {"base": (104, 48), "val": (23, 48), "novel": (69, 36)}
    for split, (classes, per_class) in expected.items():
        images = store.splits[split]
        assert (images.fingerprint.classes, images.fingerprint.images) == (classes, classes * per_class)
        assert images.fingerprint.per_class_min == images.fingerprint.per_class_max == per_class
        assert list(images.classes) == sorted(images.classes)
        faces = NOVEL_FACES if split == "novel" else FACES
        assert all(f"/{faces[g]}-" in name for g, name in zip(images.groups, images.names, strict=True))


def test_pixels_are_the_published_ones(store):
    if store.notes["pixels sha256"] != glyphs.GENERATOR_HASH and features.version("freetype2") != "2.14.3":
        pytest.skip(f"FreeType {features.version('freetype2')} draws other pixels than 2.14.3: install constraints.txt")
    assert store.notes["pixels sha256"] == glyphs.GENERATOR_HASH


def test_an_image_is_a_function_of_its_key_alone(store):
    """Rendered alone, in another process with another hash seed, an image is the same."""
    code = (
        "import sys; from deepemd.data import glyphs as g; from deepemd.data.letters import *\n"
        "ls = sorted((f'{s}-{ord(c):04x}-{c}', c) for s in g.SCRIPTS['val'] for c in LETTERS[s])\n"
        "sys.stdout.buffer.write(g._png(g._render(g._masks([c for _, c in ls], FACES), 7, 3, 2)))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    alone = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment).stdout
    images = store.splits["val"]
    i = next(
        i for i in range(len(images)) if images.labels[i] == 7 and images.groups[i] == 3 and "-2." in images.names[i]
    )
    assert alone == images.encoded(i)
    assert Image.open(io.BytesIO(alone)).size == (40, 40)


def test_raw_pixels_are_a_poor_but_not_a_void_feature(store):
    """Nearest standardised pixels: well above the 20 % of chance, and far from solved."""
    images = store.splits["val"]
    pixels = images.pixels(40)[:, 0].reshape(len(images), -1).astype(np.float32)  # (N, 1600)
    pixels -= pixels.mean(1, keepdims=True)
    pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
    sampler = EpisodeSampler(images.labels, 5, 1, 15, n_episodes=600, seed=0, groups=images.groups)
    right = [((pixels[e.query] @ pixels[e.support].T).argmax(1) == e.query_labels).mean() for e in sampler]
    assert 0.23 < np.mean(right) < 0.45


def test_a_missing_face_is_named(tmp_path):
    for path in list(face_files().values())[1:]:
        (tmp_path / path.name).symlink_to(path)
    with pytest.raises(InputError, match=r"lacks DejaVuSans.ttf: install matplotlib by pip"):
        face_files(tmp_path)


def test_other_pixels_are_reported_not_refused(caplog, monkeypatch):
    monkeypatch.setattr(glyphs, "SCRIPTS", {"val": ("greek",)})
    drafts, notes = glyphs.drafts()
    assert "render other pixels" in caplog.text
    assert list(drafts) == ["val"]
    assert notes["pixels sha256"] != notes["published pixels sha256"]


def test_an_older_version_is_rendered_again(store, tmp_path, monkeypatch):
    copy = Path(shutil.copytree(store.path, tmp_path / "glyphs")) / "store.json"
    assert list(load("glyphs", root=tmp_path).splits) == ["base", "val", "novel"]
    copy.write_text(copy.read_text(encoding="utf-8").replace(glyphs.GENERATOR_HASH, "0" * 64), encoding="utf-8")
    monkeypatch.setattr(glyphs, "SCRIPTS", {"val": ("greek",)})  # one split is enough to see that it is rendered
    again = load("glyphs", root=tmp_path)
    assert again.notes["published pixels sha256"] == glyphs.GENERATOR_HASH
    assert list(again.splits) == ["val"]
