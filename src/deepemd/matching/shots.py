"""Combine the logits of single shots into logits of classes."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["mean_over_shots", "nearest_shot"]


def mean_over_shots(logits: Tensor, labels: Tensor, *, n_way: int) -> Tensor:
    """Average the logits of the shots of each class.

    Args:
        logits: (..., Q, K), one for every query and every single shot, as from ``emd_logits(query, shots)``.
        labels: (..., K) int64, classes of the shots from 0 to n_way - 1; each class at least once, not necessarily
            equally often.
        n_way: number of classes.

    Returns:
        (..., Q, n_way) logits.

    Raises:
        ValueError: shapes that do not match, a label that is not a class, or a class without a shot.

    >>> mean_over_shots(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([0, 1, 1]), n_way=2)
    tensor([[1., 3.]])
    """
    member = _members_of_columns(logits, labels, n_way)  # (..., K, n_way)
    share = member / member.sum(-2, keepdim=True)
    return logits @ share.to(logits)


def nearest_shot(logits: Tensor, labels: Tensor, *, n_way: int) -> Tensor:
    """Take the largest logit of the shots of each class; arguments as in :func:`mean_over_shots`.

    >>> nearest_shot(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([0, 1, 1]), n_way=2)
    tensor([[1., 4.]])
    """
    member = _members_of_columns(logits, labels, n_way)  # (..., K, n_way)
    apart = logits[..., None].masked_fill(~member[..., None, :, :], -torch.inf)  # (..., Q, K, n_way)
    return apart.amax(-2)


def members_of(support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Return a mask (..., K, n_way) of which shot of support (..., K, m, C) belongs to which class.

    Raises:
        ValueError: shapes that do not match, a label that is not a class, or a class without a shot.
    """
    if support.ndim < 3 or not support.is_floating_point() or labels.shape != support.shape[:-2]:
        raise ValueError(
            "support must be (..., K, m, C) of a floating-point dtype and labels (..., K); "
            f"got {tuple(support.shape)} of {support.dtype} and {tuple(labels.shape)}"
        )
    if 0 in support.shape[-2:]:
        raise ValueError(
            f"every node set needs at least one node of at least one channel; got support {tuple(support.shape)}"
        )
    return _members(labels, n_way)


def _members_of_columns(logits: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Return a mask (..., K, n_way) of which column of logits (..., Q, K) belongs to which class."""
    if logits.ndim < 2 or labels.shape != (*logits.shape[:-2], logits.shape[-1]):
        raise ValueError(
            f"logits must be (..., Q, K) and labels (..., K); got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    return _members(labels, n_way)


def _members(labels: Tensor, n_way: int) -> Tensor:
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be whole numbers, got {labels.dtype}; convert them with labels.long()")
    wrong = (labels < 0) | (labels >= n_way)
    if n_way < 1:
        raise ValueError(f"n_way is {n_way}: there must be at least 1 class")
    if wrong.any():
        raise ValueError(f"labels must be classes from 0 to n_way - 1 = {n_way - 1}; found {int(labels[wrong][0])}")
    member = F.one_hot(labels.long(), n_way).bool()  # (..., K, n_way)
    missing = (~member.any(-2)).nonzero()
    if len(missing):
        *episode, label = missing[0].tolist()
        raise ValueError(
            f"every class needs a shot: class {label} has none" + (f" in episode {tuple(episode)}" if episode else "")
        )
    return member
