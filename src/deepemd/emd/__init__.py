"""Exact optimal transport between batches of weighted sets, with gradients. Knows tensors, knows nothing of images."""

from deepemd.emd._emd import Certificate, Transport, emd
from deepemd.emd._threads import threads

__all__ = ["Certificate", "Transport", "emd", "threads"]
