"""Choose the device, the number format and the allocation of memory for this machine."""

import ctypes
import sys
from contextlib import suppress
from typing import Literal

import torch

from deepemd.errors import InputError
from deepemd.processes import process_info

__all__ = ["Device", "Precision", "choose_device", "choose_precision", "keep_freed_memory", "return_freed_memory"]

Precision = Literal["auto", "bf16", "32"]
Device = Literal["auto", "cpu", "cuda"]


def choose_device(device: Device = "auto") -> str:
    """Return ``"cuda"`` or ``"cpu"``.

    Args:
        device: ``auto`` takes a GPU if there is one.

    Raises:
        InputError: `device` is ``cuda``, but there is no GPU, or there are fewer GPUs than processes that torchrun
            started on this machine.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device is {device!r}: choose auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, but torch finds no CUDA device here: pass auto or cpu")
    if device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    here, gpus = process_info().local_world_size, torch.cuda.device_count()
    if here > gpus:
        raise InputError(
            f"device is {device}: {here} processes on a machine with {gpus} GPUs; start one process per GPU"
            f" (torchrun --nproc-per-node {gpus}), or pass cpu"
        )
    return "cuda"


def choose_precision(precision: Precision = "auto", device: str = "cpu") -> Literal["bf16-mixed", "32-true"]:
    """Return Lightning's name of the number format.

    Args:
        precision: ``auto`` takes bfloat16 autocast if the hardware supports it (a CPU with AVX-512 BF16 or AMX, where
            it is up to five times faster than float32; a GPU from Ampere on), else float32. The transport is always
            solved in full precision.
        device: ``"cpu"`` or ``"cuda"``.

    Raises:
        InputError: `precision` is none of these.
    """
    if precision not in ("auto", "bf16", "32"):
        raise InputError(f"precision is {precision!r}: choose auto, bf16 or 32")
    if precision != "auto":
        return "bf16-mixed" if precision == "bf16" else "32-true"
    if device == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # private in torch; absent means no
    return "bf16-mixed" if any(getattr(torch.cpu, probe, lambda: False)() for probe in probes) else "32-true"


def keep_freed_memory() -> None:
    """Make glibc reuse freed memory in this process instead of returning it to the system.

    By default, each activation of some megabytes is newly mapped in every step, and the kernel zeroes its pages:
    training conv4 on a CPU took 1.7 times as long. Only commands and training call this, because it changes the whole
    process. Without glibc it does nothing.
    """
    if sys.platform != "linux":
        return
    # M_MMAP_MAX, M_TRIM_THRESHOLD and M_ARENA_MAX of malloc.h
    mmap_max, trim_threshold, arena_max = -4, -1, -8
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(arena_max, 2)  # every arena keeps what its threads have freed


def return_freed_memory(block: int = 15 * 2**20) -> None:
    """Make glibc return large blocks to the system as soon as they are freed, in this process.

    By default, glibc moves the limit up to the largest block that was freed, of at most 32 MB, and then keeps blocks of
    that size. After some large photos, a server would keep some hundred megabytes. Without glibc it does nothing.

    Args:
        block: bytes of the smallest block that is returned; by default those of Pillow, of 16 MB.
    """
    if sys.platform != "linux":
        return
    mmap_threshold = -3  # M_MMAP_THRESHOLD of malloc.h; once it is set, it does not move
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(mmap_threshold, block)
