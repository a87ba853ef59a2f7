"""Where the tests find values and images that the project does not ship."""

import os
from pathlib import Path

import pytest


def _outside(variable: str, what: str) -> Path:
    folder = os.environ.get(variable)
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"needs {what}, which the project does not ship: set {variable} to the folder that holds them")
    return Path(folder)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Values computed with the authors' implementation."""
    return _outside("DEEPEMD_GOLDEN", "values of the authors' implementation")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets: ``miniimagenet/{train,val}.zip`` and their CSV files."""
    return _outside("DEEPEMD_TEST_DATA", "real data sets")
