"""Other ways to compare two images, through the same door as the DeepEMD head: node sets in, logits out."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from deepemd.matching.cost import pairwise, unit_centred

__all__ = ["local_knn_logits", "protonet_logits"]


def protonet_logits(
    query: Tensor, support: Tensor, *, similarity: str = "cosine", centred: bool = False, temperature: float = 12.5
) -> Tensor:
    """ProtoNet: each image is its mean embedding, a class the mean of its images; the nearest class wins.

    Args:
        query: (..., Q, n, C) nodes.
        support: (..., S, m, C) nodes, one set per class; a class of several shots is the mean of their sets.
        similarity: "cosine" or "euclidean" (minus the squared distance).
        centred: subtract the mean over channels before a cosine, as DeepEMD does.
        temperature: scales the logits; it does not change which class wins.

    Returns:
        (..., Q, S) logits.

    Source: Snell et al., Prototypical networks for few-shot learning (2017).
    """
    query, support = query.mean(-2), support.mean(-2)  # (..., Q, C), (..., S, C)
    if similarity == "euclidean":
        return -temperature * torch.cdist(query, support).square()
    if similarity != "cosine":
        raise ValueError(f"similarity must be 'cosine' or 'euclidean', got {similarity!r}")
    unit = unit_centred if centred else _unit
    return temperature * unit(query) @ unit(support).transpose(-1, -2)


def local_knn_logits(query: Tensor, support: Tensor, *, k: int = 1, temperature: float = 1.0) -> Tensor:
    """Local k-NN (DN4): every query node adds up its k largest cosines to the nodes of a class.

    Args:
        query: (..., Q, n, C) nodes.
        support: (..., S, m, C) nodes; a class of several shots is all their nodes together.
        k: neighbours of each node; 1 or 3 in the paper's tables.
        temperature: scales the logits.

    Returns:
        (..., Q, S) logits.

    Raises:
        ValueError: k larger than the number of nodes.

    Source: Li et al., Revisiting local descriptor based image-to-class measure (2019).
    """
    if not 1 <= k <= support.shape[-2]:
        raise ValueError(f"k must be from 1 to the {support.shape[-2]} nodes of a class, got {k}")
    cosines = pairwise(_unit(query), _unit(support))  # (..., Q, S, n, m)
    nearest = cosines.amax(-1, keepdim=True) if k == 1 else cosines.topk(k, dim=-1).values  # (..., Q, S, n, k)
    return temperature * nearest.sum((-2, -1))


def _unit(nodes: Tensor) -> Tensor:
    return normalize(nodes, dim=-1, eps=1e-8)
