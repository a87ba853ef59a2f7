"""The power transform of nodes: large channels count less, and all nodes have the same length."""

import torch.nn.functional as F
from torch import Tensor

__all__ = ["power_transform"]

_LEAST = 1e-12


def power_transform(nodes: Tensor, power: float = 0.5) -> Tensor:
    """Raise every channel to a power, keeping its sign, and scale each node to length 1.

    The channels of an encoder with ReLU are zero or positive, and a few large ones dominate every product. Their square
    roots are closer to a normal distribution, which cosines, whitening and ridge regression suit.

    Args:
        nodes: (..., C) float.
        power: the exponent, above 0; 1 only scales to length 1. 0.5 suits encoders that end with a ReLU; it does not
            help LeakyReLU encoders and transformers, whose channels have both signs.

    Returns:
        (..., C), of the same dtype; a node of zeros stays zero.

    >>> import torch
    >>> power_transform(torch.tensor([[0.0, 9.0, 16.0]]))
    tensor([[0.0000, 0.6000, 0.8000]])

    Source: Hu, Gripon, Pateux: Leveraging the feature distribution in transfer-based few-shot learning (PT-MAP, 2021).
    """
    if power != 1:
        nodes = nodes.sign() * nodes.abs().clamp_min(_LEAST).pow(power)  # a root has no gradient at 0
    return F.normalize(nodes, dim=-1, eps=1e-8)
