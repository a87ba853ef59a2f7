"""An image becomes a set of local embeddings."""

from deepemd.nodes.backbones import Backbone, Conv4, ResNet12, backbone, conv4, resnet12
from deepemd.nodes.patches import Grid, Sampling, cut
from deepemd.nodes.regions import FCN, patch_nodes, to_original

__all__ = [
    "FCN",
    "Backbone",
    "Conv4",
    "Grid",
    "ResNet12",
    "Sampling",
    "backbone",
    "conv4",
    "cut",
    "patch_nodes",
    "resnet12",
    "to_original",
]
