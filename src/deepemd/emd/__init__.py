"""Exact optimal transport between batches of weighted sets, with gradients. Knows tensors, knows nothing of images."""

from deepemd.emd._emd import Transport, emd
from deepemd.emd.warm import WarmStart

__all__ = ["Transport", "WarmStart", "emd"]
