"""The processes that test the solver divide its compilation among them."""

import os
import time

import pytest


@pytest.fixture(scope="session")
def compiled_solver(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compile the solver once for every size and dtype, if several processes run the tests.

    Otherwise two processes that start with the same size would both compile it. A single process compiles only what its
    tests need.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    import torch

    from deepemd.transport import SIZES, compile_ahead

    shared = tmp_path_factory.getbasetemp().parent  # of all the processes of this run
    jobs = [(size, dtype) for dtype in (torch.float32, torch.float64) for size in (*SIZES, SIZES[-1] + 1)]
    if os.environ["PYTEST_XDIST_WORKER"] == "gw1":
        jobs.reverse()
    for size, dtype in jobs:
        try:
            (shared / f"compiling-{size}-{dtype}").touch(exist_ok=False)
        except FileExistsError:
            continue
        compile_ahead(size, dtype)
        (shared / f"compiled-{size}-{dtype}").touch()
    deadline = time.monotonic() + 120  # a process may have ended without finishing
    while len(list(shared.glob("compiled-*"))) < len(jobs) and time.monotonic() < deadline:
        time.sleep(0.1)
