"""Exact optimal transport between batches of weighted sets, with gradients; it knows tensors, but not images."""

from deepemd.transport import solvers
from deepemd.transport._compile_ahead import SIZES, CompiledCode, compile_ahead
from deepemd.transport._emd import Certificate, Transport, emd
from deepemd.transport._threads import threads
from deepemd.transport.warm import WarmStart

__all__ = [
    "SIZES",
    "Certificate",
    "CompiledCode",
    "Transport",
    "WarmStart",
    "compile_ahead",
    "emd",
    "solvers",
    "threads",
]
