"""Measuring tools: seconds, medians with their spread, threads, peak memory, and the machine."""

import ctypes
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import torch

from deepemd.versions import versions

__all__ = ["machine", "peak_rise", "processor", "ratios", "seconds", "summary", "threads"]

_PACKAGES = (
    "opencv-python-headless",
    "opencv-python",
    "POT",
    "scipy",
    "qpth",
)  # in addition to those that every report names


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return the median and interquartile range of the rounds, and their number.

    >>> summary([1.0, 2.0, 4.0])
    {'median': 2.0, 'iqr': 3.0, 'rounds': 3}
    """
    quarters = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return {"median": statistics.median(values), "iqr": quarters[2] - quarters[0], "rounds": len(values)}


def ratios(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """Summarise the ratios within each round, because noise of the machine affects both sides of a round."""
    return summary([o / u for o, u in zip(over, under, strict=True)])


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Use at most `count` threads for `emd` and PyTorch within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def peak_rise(work: Callable[[], object]) -> float | None:
    """Return the rise of the peak of resident memory above its current size, in MB, or None without Linux.

    Linux records the peak and lets a process reset its own.
    """
    with suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)  # otherwise freed memory would be used again and not be counted
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        work()
        return (_status("VmHWM") - before) / 1024
    except OSError:
        work()
        return None


def _status(name: str) -> int:
    """Return a line of Linux's status of this process, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def processor() -> str:
    """Return the name of the processor, or an empty text if the system does not give it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def machine() -> dict[str, object]:
    """Describe the machine, the commit and the installed versions, for every report."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": versions(*_PACKAGES),
    }


def _commit() -> str | None:
    """Return the commit of the source if this is a checkout, with a + if files have changed since."""
    package = Path(__file__).parents[1]
    git = ["git", "-C", str(package)]
    try:
        root, commit, changed = (
            subprocess.run([*git, *words], check=True, capture_output=True, text=True).stdout.strip()
            for words in (
                ["rev-parse", "--show-toplevel"],
                ["rev-parse", "--short", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no", "--", "."],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + "+" * bool(changed) if Path(root) == package.parent.parent else None
