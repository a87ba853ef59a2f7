"""Few-shot image classification by an exact, differentiable Earth Mover's Distance between the parts of images."""

from deepemd.emd import Transport, emd
from deepemd.matching import emd_logits
from deepemd.model import DeepEMD
from deepemd.nodes import FCN, conv4, resnet12

__all__ = ["FCN", "DeepEMD", "Transport", "conv4", "emd", "emd_logits", "resnet12"]
__version__ = "0.1.0"
