"""Turn an image into nodes, a set of local embeddings."""

from deepemd.nodes.backbones import Backbone, Conv4, ResNet12, backbone, conv4, resnet12
from deepemd.nodes.custom import as_backbone, encode_blank
from deepemd.nodes.cutting import cut, patch_nodes
from deepemd.nodes.efficientnet import efficientnet_lite0
from deepemd.nodes.fcn import FCN, to_original
from deepemd.nodes.memory import Memory, encode
from deepemd.nodes.multiscale import MultiScale
from deepemd.nodes.patches import Grid, Sampling
from deepemd.nodes.power import power_transform
from deepemd.nodes.regions import Regions, WholeImage, parse_regions, regions_from

__all__ = [
    "FCN",
    "Backbone",
    "Conv4",
    "Grid",
    "Memory",
    "MultiScale",
    "Regions",
    "ResNet12",
    "Sampling",
    "WholeImage",
    "as_backbone",
    "backbone",
    "conv4",
    "cut",
    "efficientnet_lite0",
    "encode",
    "encode_blank",
    "parse_regions",
    "patch_nodes",
    "power_transform",
    "regions_from",
    "resnet12",
    "to_original",
]
