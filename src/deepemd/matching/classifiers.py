"""Classifiers of pooled embeddings that are fitted to the shots of an episode.

Both minimise a convex function to its optimum, for all episodes in one batch and in double precision: the result does
not depend on a random start, the order of the shots or the other episodes. The optimum lies in the span of the shots,
so everything is solved in coordinates of that span, at most as many as there are shots.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from deepemd.matching.shots import members_of

__all__ = ["cosine_classifier_logits", "linear_logits"]

_SCALE = 2.0  # of the cosine classifier's logits: the authors', for up to 200 classes


def linear_logits(query: Tensor, support: Tensor, labels: Tensor, *, n_way: int, c: float = 1.0) -> Tensor:
    """Classify by logistic regression on the pooled embeddings, scaled to length 1.

    It minimises |W|^2 / 2 + c sum_k -log softmax(W x_k + bias)[y_k] over the shots, the objective of scikit-learn's
    ``LogisticRegression(C=c)``, by Newton's method.

    Args:
        query: (..., Q, n, C) float, node sets; leading dimensions are episodes.
        support: (..., K, m, C) float, one node set per shot; the same leading dimensions.
        labels: (..., K) int64, classes of the shots from 0 to n_way - 1; each class at least once, not necessarily
            equally often.
        n_way: number of classes.
        c: weight of the shots against the penalty on W; 1 in the source. Larger fits the shots more sharply.

    Returns:
        (..., Q, n_way) logits, differentiable in query alone. A step of the fit needs memory for
        (n_way * (K + 1))^2 doubles an episode.

    Raises:
        ValueError: shapes that do not match, a label that is not a class, a class without a shot, a setting out of
            range, or embeddings that are not finite.

    Source: Tian et al., Rethinking few-shot image classification: a good embedding is all you need? (ECCV 2020); but
        without augmented copies of the shots.

    >>> shots = torch.eye(3)[:, None]  # three classes of one node
    >>> linear_logits(shots, shots, torch.arange(3), n_way=3).argmax(-1)
    tensor([0, 1, 2])
    """
    if not 0 < c < math.inf:
        raise ValueError(f"c must be above 0 and finite, got {c}; 1 is usual")
    shots = _pose(query, support, labels, n_way)
    weight, bias = _logistic_regression(shots, c)
    return _logits(query, shots.back(weight), bias)


def cosine_classifier_logits(query: Tensor, support: Tensor, labels: Tensor, *, n_way: int) -> Tensor:
    """Classify by cosine to a fitted weight vector of each class (cosine classifier, Baseline++).

    W minimises mean_k -log softmax(2 W x_k)[y_k] over the shots, with x_k of length 1 and the rows of W of length at
    most 1. Wherever the shots can be told apart the rows have length 1, and W x is a cosine. The 2 is the authors'.

    The authors' code descends on this function for 100 epochs, from a random W, by stochastic steps with momentum, and
    learns the lengths of the rows under a weight decay instead of bounding them. The optimum has no randomness and is
    the stronger baseline: on letters of new scripts it reaches 86.1 % where their descent reaches 77.5 % (5-way 1-shot;
    5-shot 95.3 and 94.8).

    Args:
        query, support, labels, n_way: as in :func:`linear_logits`.

    Returns:
        (..., Q, n_way) logits, twice the cosines, differentiable in query alone.

    Raises:
        ValueError: as :func:`linear_logits`.

    Source: Chen et al., A closer look at few-shot classification (ICLR 2019), and its code.

    >>> shots = torch.eye(2)[:, None]  # two classes of one node: W are their directions less the mean
    >>> cosine_classifier_logits(shots, shots, torch.arange(2), n_way=2).round(decimals=4)
    tensor([[ 1.4142, -1.4142],
            [-1.4142,  1.4142]])
    """
    shots = _pose(query, support, labels, n_way)
    weight = _cosine_weights(shots)
    return _SCALE * _logits(query, shots.back(weight), weight.new_zeros(len(weight), n_way))


class _Shots(NamedTuple):
    """The shots of E episodes in coordinates of their span, which has r <= K, C dimensions; float64, detached."""

    x: Tensor  # (E, K, r) pooled embeddings of length 1
    y: Tensor  # (E, K, n_way) 1 at the class of the shot, else 0
    basis: Tensor  # (E, C, r) orthonormal

    def back(self, weight: Tensor) -> Tensor:
        """Return weights (E, n_way, r) as weights of embeddings (E, n_way, C)."""
        return weight @ self.basis.mT


def _pose(query: Tensor, support: Tensor, labels: Tensor, n_way: int) -> _Shots:
    """Check the arguments and return the shots in coordinates of their span."""
    member = members_of(support, labels, n_way)
    if query.ndim < 3 or query.shape[:-3] != support.shape[:-3] or query.shape[-1] != support.shape[-1]:
        raise ValueError(
            "query must be (..., Q, n, C) with the episodes and channels of support (..., K, m, C); "
            f"got {tuple(query.shape)} and {tuple(support.shape)}"
        )
    for name, nodes in {"query": query, "support": support}.items():
        if not nodes.isfinite().all():
            raise ValueError(f"{name} holds NaN or an infinite value; embeddings must be finite: did training diverge?")
    with torch.no_grad():
        x = _pooled(support)  # (..., K, C)
        episodes = math.prod(x.shape[:-2])
        basis, coordinates = torch.linalg.qr(x.view(episodes, *x.shape[-2:]).mT)  # (E, C, r), (E, r, K)
        return _Shots(coordinates.mT, member.view(episodes, *member.shape[-2:]).to(x), basis)


def _pooled(nodes: Tensor) -> Tensor:
    """Return the mean embeddings (..., C) of nodes (..., n, C), of length 1, in float64."""
    return F.normalize(nodes.double().mean(-2), dim=-1, eps=1e-8)


def _logits(query: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply weight (E, n_way, C) and bias (E, n_way) to query (..., Q, n, C): (..., Q, n_way) in its precision."""
    x = _pooled(query)  # (..., Q, C)
    logits = x @ weight.view(*x.shape[:-2], -1, x.shape[-1]).mT + bias.view(*x.shape[:-2], 1, -1)
    return logits.to(torch.float64 if query.dtype == torch.float64 else torch.float32)


@torch.no_grad()
def _logistic_regression(shots: _Shots, c: float) -> tuple[Tensor, Tensor]:
    """Fit by Newton's method with halved steps. Return weight (E, n_way, r), bias (E, n_way), which sums to 0."""
    x, y, _ = shots
    episodes, _, n_way = y.shape
    x = torch.cat((x, torch.ones_like(x[..., :1])), -1)  # (E, K, d), d = r + 1: the last weight is the bias
    d = x.shape[-1]
    ridge = torch.ones_like(x[0, 0])  # (d,): the bias is not penalised
    ridge[-1] = 0
    # Adding a number to all biases changes nothing. This term makes the Hessian regular in that direction. The gradient
    # is 0 in it, so the iterates are those without the term.
    level = torch.zeros(n_way, d, n_way, d).to(x)
    level[:, -1, :, -1] = 1
    penalty = torch.diag(ridge.repeat(n_way)) + level.view(n_way * d, n_way * d)
    weight = x.new_zeros(episodes, n_way, d)

    def objective(w: Tensor) -> Tensor:
        return (ridge * w.square()).sum((1, 2)) / 2 - c * (y * (x @ w.mT).log_softmax(-1)).sum((1, 2))  # (E,)

    for _ in range(200):
        p = (x @ weight.mT).softmax(-1)  # (E, K, n_way)
        gradient = ridge * weight + c * (p - y).mT @ x  # (E, n_way, d)
        # d^2 / dW_vi dW_wj = c sum_k p_kv (1{v=w} - p_kw) x_ki x_kj + the penalty's
        curvature = torch.diag_embed(p) - p[..., None] * p[..., None, :]  # (E, K, n_way, n_way)
        hessian = c * torch.einsum("ekvw,eki,ekj->eviwj", curvature, x, x).flatten(3, 4).flatten(1, 2) + penalty
        step = torch.linalg.solve(hessian, gradient.flatten(1)).view_as(gradient)  # (E, n_way, d)
        slope = (gradient * step).sum((1, 2))  # (E,) twice the possible decrease
        value = objective(weight)
        if bool((slope <= 1e-20 * value).all()):
            break
        length = torch.ones_like(slope)
        for _ in range(50):
            short = objective(weight - length[:, None, None] * step) > value - 1e-4 * length * slope + 1e-13 * value
            if not short.any():
                break
            length = torch.where(short, length / 2, length)
        weight = weight - length[:, None, None] * step
    return weight[..., :-1], weight[..., -1]


@torch.no_grad()
def _cosine_weights(shots: _Shots) -> Tensor:
    """Fit by accelerated projected gradient descent, restarted when it turns uphill. Return (E, n_way, r).

    It stops by the certificate of a convex function f over balls: f(W) - min f <= sum_j (w_j . g_j + |g_j|).
    """
    x, y, _ = shots
    # the Hessian of log-softmax is at most 1/2
    smooth = _SCALE**2 * torch.linalg.matrix_norm(x, 2).square()[:, None, None] / (2 * x.shape[1])  # (E, 1, 1)

    def gradient(w: Tensor) -> Tensor:
        return _SCALE * ((_SCALE * x @ w.mT).softmax(-1) - y).mT @ x / x.shape[1]  # (E, n_way, r)

    weight = ahead = torch.zeros_like(y.mT @ x)
    momentum = torch.ones_like(smooth)
    for _ in range(10_000):
        g = gradient(weight)
        gap = ((weight * g).sum(-1) + g.norm(dim=-1)).sum(-1)[:, None, None]  # (E, 1, 1)
        going = gap > 1e-12
        if not going.any():
            break
        moved = ahead - gradient(ahead) / smooth
        moved = moved / moved.norm(dim=-1, keepdim=True).clamp_min(1)
        uphill = ((ahead - moved) * (moved - weight)).sum((1, 2), keepdim=True) > 0
        momentum = torch.where(uphill, 1, momentum)
        following = (1 + (1 + 4 * momentum.square()).sqrt()) / 2
        ahead = moved + (momentum - 1) / following * (moved - weight)
        momentum, weight = following, torch.where(going, moved, weight)
    return weight
