"""Where the tests find values and images that the project does not ship; and how the cores are shared."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fork_server import ForkServer

    from deepemd.data import Store

# One of several test processes takes its share of the cores, before torch is imported: threads that wait for each other
# on fewer cores than there are threads take many times as long. The processes that a test starts inherit it.
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _workers > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _workers)))
    os.environ.pop("COLUMNS", None)  # of the terminal that shows the tests: not of what they print


def _outside(variable: str, what: str) -> Path:
    folder = os.environ.get(variable)
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"needs {what}, which the project does not ship: set {variable} to the folder that holds them")
    return Path(folder)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Embeddings are kept where nobody looks for them later."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPEMD_CACHE", str(tmp_path_factory.mktemp("embeddings")))
        yield


@pytest.fixture(scope="session")
def golden() -> Path:
    """Values computed with the authors' implementation."""
    return _outside("DEEPEMD_GOLDEN", "values of the authors' implementation")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets: ``miniimagenet/{train,val}.zip`` and their CSV files."""
    return _outside("DEEPEMD_TEST_DATA", "real data sets")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Results are the same for the same number of threads, also in the processes that tests start."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[ForkServer]":
    """Starts processes that tests kill, limit or measure, without importing everything anew."""
    from fork_server import ForkServer

    if not hasattr(os, "fork"):
        pytest.skip("needs fork, which is POSIX")
    server = ForkServer(tmp_path_factory.mktemp("forks"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def patterns(tmp_path_factory: pytest.TempPathFactory) -> "Store":
    """Stripes of other directions and widths for each class, under noise: base and val, 24 x 24 pixels, stored like a
    user's own folder."""
    import numpy as np
    from PIL import Image

    from deepemd.data import load

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
