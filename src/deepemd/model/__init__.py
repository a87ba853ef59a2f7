"""The model: an encoder, the regions that it encodes, and the transport between node sets; saved as a folder."""

from deepemd.model.deepemd import DeepEMD

__all__ = ["DeepEMD"]
