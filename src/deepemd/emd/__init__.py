"""Exact optimal transport between batches of weighted sets, with gradients. Knows tensors, knows nothing of images."""

from deepemd.emd._emd import Certificate, Transport, emd
from deepemd.emd._threads import threads
from deepemd.emd.warm import WarmStart

__all__ = ["Certificate", "Transport", "WarmStart", "emd", "threads"]
