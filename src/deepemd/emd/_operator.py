"""Registering a function as a PyTorch operator."""

from collections.abc import Callable

import torch


def operator(name: str) -> Callable[[Callable], Callable]:
    """Decorate a typed function that changes none of its arguments: from now on it is called as torch.ops.deepemd.NAME.

    ``torch.library.custom_op`` does the same, but imports all of torch._dynamo, more than a second, with the first call.
    """

    def register(function: Callable) -> Callable:
        full = f"deepemd::{name}"
        schema = torch.library.infer_schema(function, mutates_args=())
        torch.library.define(full, schema, tags=torch.Tag.pt2_compliant_tag)
        torch.library.impl(full, "default", function)
        return getattr(torch.ops.deepemd, name).default

    return register
