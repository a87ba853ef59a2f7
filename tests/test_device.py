"""What the device is, and who may change the allocation of memory."""

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
