"""The model: an encoder, the regions it looks at, and the transport between their node sets; saved as one folder."""

from deepemd.model.deepemd import DeepEMD

__all__ = ["DeepEMD"]
