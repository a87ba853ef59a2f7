"""The reference's way of doing it, in our own few words: what `compare.py` and `sfc.py` measure against.

Every pair of nodes is expanded before the cosine, cv2.EMD is called for one pair of images after the other, activations
are pooled after the rectifier, memory lies in the default layout, and every episode encodes its images anew.
"""

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepemd.nodes import ResNet12


def similarity(query: Tensor, support: Tensor) -> Tensor:
    """Centred cosines (Q, S, n, m) of query (Q, n, C) and support (S, m, C), by way of (Q, S, n, m, C)."""
    q, s = (t - t.mean(-1, keepdim=True) for t in (query, support))
    pairs = (len(q), len(s), q.shape[1], s.shape[1], q.shape[2])
    return F.cosine_similarity(q[:, None, :, None].expand(pairs), s[None, :, None].expand(pairs), dim=-1)


def logits(query: Tensor, support: Tensor) -> Tensor:
    """The head (Q, S): the plan is a constant to autograd, so the weights have no gradient."""
    cosines = similarity(query, support)
    with torch.no_grad():
        a = torch.einsum("qnc,sc->qsn", query, support.mean(1)).relu() + 1e-3
        b = torch.einsum("qc,smc->qsm", query.mean(1), support).relu() + 1e-3
        a, b = (w * w.shape[-1] / w.sum(-1, keepdim=True) for w in (a, b))
        cost, flows = (1 - cosines).numpy(), torch.zeros_like(cosines)
        for i in range(len(query)):
            for j in range(len(support)):
                weights = (w[i, j].numpy()[:, None] for w in (a, b))
                flows[i, j] = torch.from_numpy(cv2.EMD(*weights, cv2.DIST_USER, cost[i, j])[2])
    return (12.5 / query.shape[1]) * (cosines * flows).sum((-1, -2))


def prototypes(support: Tensor, labels: Tensor, epochs: int, lr: float = 0.1) -> Tensor:
    """The SFC of one episode (W, m, C): support (K, m, C), labels (K,), in mini-batches of 4."""
    n_way = int(labels.max()) + 1
    found = torch.stack([support[labels == k].mean(0) for k in range(n_way)]).requires_grad_()
    sgd = torch.optim.SGD([found], lr=lr, momentum=0.9, dampening=0.9)
    for _ in range(epochs):
        for some in torch.randperm(len(support)).split(4):
            sgd.zero_grad()
            F.cross_entropy(logits(support[some], found), labels[some]).backward()
            sgd.step()
    return found.detach()


class Encoder(nn.Module):
    """ResNet-12 in the published order, with the weights of ours."""

    def __init__(self, weights: ResNet12) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            stage[0] for stage in (weights.layer1, weights.layer2, weights.layer3, weights.layer4)
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 84, 84) -> (B, 640, 5, 5)."""
        x = images
        for stage in self.stages:
            y = F.leaky_relu(stage.bn1(stage.conv1(x)), 0.1)
            y = F.leaky_relu(stage.bn2(stage.conv2(y)), 0.1)
            x = F.max_pool2d(F.leaky_relu(stage.bn3(stage.conv3(y)) + stage.downsample(x), 0.1), 2)
        return x


def episode_logits(encoder: nn.Module, images: Tensor, n_way: int) -> Tensor:
    """One 1-shot episode from its images (n_way + Q, 3, 84, 84), support first: (Q, n_way)."""
    nodes = encoder(images).flatten(2).transpose(1, 2)  # (B, C, h, w) -> (B, N, C)
    return logits(nodes[n_way:], nodes[:n_way])
