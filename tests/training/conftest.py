"""A small data set of real images for short runs: squares of texture, drawn and stored like a user's own folder."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from deepemd.data import Store, load


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Results are the same for the same number of threads, also in the processes that tests start."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def patterns(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Stripes of other directions and widths for each class, under noise: base and val, 24 x 24 pixels."""
    folder = tmp_path_factory.mktemp("patterns")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:24, :24]
    for split, classes, count in (("base", 8, 24), ("val", 6, 16)):
        for k in range(classes):
            angle = np.pi * (k + (0.5 if split == "val" else 0.0)) / classes
            target = folder / "set" / split / f"{split}{k}"
            target.mkdir(parents=True)
            for i in range(count):
                phase = rng.uniform(0, 2 * np.pi)
                wave = np.sin((rows * np.sin(angle) + columns * np.cos(angle)) * (0.7 + 0.1 * (k % 3)) + phase)
                pixels = 128 + 70 * wave[..., None] + rng.normal(0, 40, (24, 24, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(target / f"{i:02}.png")
    return load(str(folder / "set"), root=tmp_path_factory.mktemp("stores"))
