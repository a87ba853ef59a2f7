"""Where the tests find values and images that the project does not ship."""

import os
from pathlib import Path

import pytest


def _outside(variable: str, name: str) -> Path:
    """The folder that an environment variable names, else ``shared/<name>`` beside the checkout."""
    folder = Path(os.environ.get(variable, Path(__file__).parents[2] / "shared" / name))
    if not folder.is_dir():
        pytest.skip(f"needs {name} files, which the project does not ship: set {variable} to their folder")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Values computed with the authors' implementation."""
    return _outside("DEEPEMD_GOLDEN", "golden")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets: ``miniimagenet/{train,val}.zip`` and their CSV files."""
    return _outside("DEEPEMD_TEST_DATA", "data")
