"""Other ways to compare two images, with the interface of the DeepEMD head: node sets in, logits out."""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from deepemd.matching.cost import products, unit_centred
from deepemd.matching.shots import members_of

__all__ = ["fusion_logits", "local_knn_logits", "matching_net_logits", "protonet_logits"]


def protonet_logits(
    query: Tensor, support: Tensor, *, similarity: str = "cosine", centred: bool = False, temperature: float = 12.5
) -> Tensor:
    """Compare the mean embedding of each query with that of each class (ProtoNet).

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


def local_knn_logits(
    query: Tensor, support: Tensor, *, k: int = 1, centred: bool = False, temperature: float = 1.0
) -> Tensor:
    """Add up the k largest cosines of every query node to the nodes of a class (local k-NN, DN4).

    Args:
        query: (..., Q, n, C) nodes.
        support: (..., S, m, C) nodes; a class of several shots has the nodes of all its shots.
        k: number of neighbours of each node; 1 or 3 in the source's tables.
        centred: subtract the mean over channels before a cosine, as DeepEMD does.
        temperature: scales the logits.

    Returns:
        (..., Q, S) logits.

    Raises:
        ValueError: k larger than the number of nodes.

    Source: Li et al., Revisiting local descriptor based image-to-class measure (2019).
    """
    if not 1 <= k <= support.shape[-2]:
        raise ValueError(f"k must be from 1 to the {support.shape[-2]} nodes of a class, got {k}; lower it")
    unit = unit_centred if centred else _unit
    cosines = products(unit(query), unit(support)).transpose(-3, -2)  # (..., Q, S, n, m)
    nearest = cosines.amax(-1, keepdim=True) if k == 1 else cosines.topk(k, dim=-1).values  # (..., Q, S, n, k)
    return temperature * nearest.sum((-2, -1))


def fusion_logits(query: Tensor, support: Tensor, *, temperature: float = 12.5) -> Tensor:
    """Classify every query node alone, and average the nodes' probabilities (prediction fusion).

    A node is compared by cosine with the mean embedding of each class.

    Args:
        query: (..., Q, n, C) nodes.
        support: (..., S, m, C) nodes, one set per class; a class of several shots is the mean of their sets.
        temperature: scales the cosines before each node's softmax. It changes which class wins: a large one makes each
            node vote for its nearest class; a small one comes close to ProtoNet by cosine.

    Returns:
        (..., Q, S) logits, the logarithms of the mean probabilities: their softmax is those probabilities.

    Source: the ablation of the paper (section 4.3, "prediction fusion").
    """
    centre = _unit(support.mean(-2))  # (..., S, C)
    cosines = torch.einsum("...qnc,...sc->...qns", _unit(query), centre)  # (..., Q, n, S)
    return (temperature * cosines).log_softmax(-1).logsumexp(-2) - math.log(query.shape[-2])


def matching_net_logits(
    query: Tensor, support: Tensor, labels: Tensor, *, n_way: int, temperature: float = 12.5
) -> Tensor:
    """Let a query attend to single shots by the cosine of pooled embeddings (matching networks).

    The probability of a class is the attention that its shots receive. With one shot each it is ProtoNet by cosine.

    Args:
        query: (..., Q, n, C) nodes.
        support: (..., K, m, C) nodes, one set per shot.
        labels: (..., K) int64, classes of the shots from 0 to n_way - 1; each class at least once.
        n_way: number of classes.
        temperature: scales the cosines before the softmax over the shots; 1 in the source. It changes which class wins:
            the larger, the more the nearest shot decides.

    Returns:
        (..., Q, n_way) logits, the logarithms of the probabilities.

    Raises:
        ValueError: shapes that do not match, a label that is not a class, or a class without a shot.

    Source: Vinyals et al., Matching networks for one shot learning (2016), without its embeddings in full context.
    """
    member = members_of(support, labels, n_way)  # (..., K, n_way)
    cosines = _unit(query.mean(-2)) @ _unit(support.mean(-2)).transpose(-1, -2)  # (..., Q, K)
    attention = (temperature * cosines).log_softmax(-1)
    return attention[..., None].masked_fill(~member[..., None, :, :], -torch.inf).logsumexp(-2)  # (..., Q, n_way)


def _unit(nodes: Tensor) -> Tensor:
    return normalize(nodes, dim=-1, eps=1e-8)
