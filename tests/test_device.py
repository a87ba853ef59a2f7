"""What the device is, and who may change the allocation of memory."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import deepemd
from deepemd.device import choose_device, choose_precision
from deepemd.errors import InputError


def test_names_that_do_not_exist_are_refused():
    with pytest.raises(InputError, match="device is 'tpu': choose auto, cpu or cuda"):
        choose_device("tpu")
    with pytest.raises(InputError, match="precision is '16': choose auto, bf16 or 32"):
        choose_precision("16")
    assert choose_device("cpu") == "cpu"
    assert (choose_precision("bf16"), choose_precision("32")) == ("bf16-mixed", "32-true")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device is cuda, but torch finds no CUDA device"):
            choose_device("cuda")


def test_only_commands_and_training_change_the_allocation_of_the_process():
    source = Path(deepemd.__file__).parent
    calls = {path.relative_to(source) for path in source.rglob("*.py") if "keep_freed_memory()" in path.read_text()}
    calls -= {Path("device.py")}
    assert calls
    assert {path for path in calls if path.parts[0] != "commands"} == {Path("training/fit.py")}


@pytest.mark.parametrize("calls", [True, False])
def test_large_blocks_are_returned_where_a_server_asks_for_it(calls):
    """A block that is mapped on its own is returned when it is freed; by default, the second of its size is not."""
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("needs glibc 2.33 or newer, whose allocation this is about")
    code = """
import ctypes, sys
from deepemd.device import return_freed_memory
libc = ctypes.CDLL(None)
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd a b c d e".split()]
libc.mallinfo2.restype, libc.malloc.restype, libc.free.argtypes = Info, ctypes.c_void_p, [ctypes.c_void_p]
if sys.argv[1] == "True":
    return_freed_memory()
libc.free(libc.malloc(ctypes.c_size_t(16 * 2**20)))
before = libc.mallinfo2().hblks
libc.malloc(ctypes.c_size_t(16 * 2**20))
print(libc.mallinfo2().hblks - before)
"""
    done = subprocess.run([sys.executable, "-c", code, str(calls)], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["1" if calls else "0"]
