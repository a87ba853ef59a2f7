"""Exact optimal transport between batches of weighted sets, with gradients. Knows tensors, knows nothing of images."""

from deepemd.transport._emd import Certificate, Transport, emd
from deepemd.transport._threads import threads
from deepemd.transport.warm import WarmStart

__all__ = ["Certificate", "Transport", "WarmStart", "emd", "threads"]
