"""Registering a function as a PyTorch operator."""

from collections.abc import Callable

import torch
from torch._ops import OpOverload


def operator(name: str) -> Callable[[Callable], OpOverload]:
    """Decorate a typed function that changes none of its arguments: it becomes torch.ops.deepemd.NAME.

    ``torch.library.custom_op`` does the same, but its first call imports torch._dynamo, which takes a second.
    """

    def register(function: Callable) -> OpOverload:
        full = f"deepemd::{name}"
        schema = torch.library.infer_schema(function, mutates_args=())
        torch.library.define(full, schema, tags=torch.Tag.pt2_compliant_tag)
        torch.library.impl(full, "default", function)
        registered: OpOverload = getattr(torch.ops.deepemd, name).default
        return registered

    return register
