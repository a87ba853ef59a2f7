"""Registering a function as a PyTorch operator."""

from collections.abc import Callable

import torch


def operator(name: str) -> Callable[[Callable], Callable]:
    """Decorate a typed function that changes none of its arguments: it becomes torch.ops.deepemd.NAME.

    ``torch.library.custom_op`` does the same, but its first call imports torch._dynamo, which takes a second.
    """

    def register(function: Callable) -> Callable:
        full = f"deepemd::{name}"
        schema = torch.library.infer_schema(function, mutates_args=())
        torch.library.define(full, schema, tags=torch.Tag.pt2_compliant_tag)
        torch.library.impl(full, "default", function)
        return getattr(torch.ops.deepemd, name).default

    return register
