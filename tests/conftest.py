"""Where the tests find values and images that the project does not ship; and how the cores are shared."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

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
