"""Transport problems for the benchmark, with costs between embeddings or with uniform random costs."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

__all__ = ["KINDS", "Problems"]


class Problems(NamedTuple):
    """A batch of problems: cost (B, n, n), a (B, n) and b (B, n), of sum 1; float32."""

    cost: Tensor
    a: Tensor
    b: Tensor

    def first(self, count: int) -> "Problems":
        """Return the first `count` problems of the batch."""
        return Problems(*(t[:count] for t in self))


def embedding_problems(generator: Generator, batch: int, n: int) -> Problems:
    """Draw costs like those of the head: 1 - cosine similarity of centred embeddings, of 64 channels."""
    x, y = (torch.rand(batch, n, 64, generator=generator).square() for _ in range(2))  # (B, n, 64)
    x, y = (normalize(t - t.mean(-1, keepdim=True), dim=-1) for t in (x, y))
    return Problems(1 - x @ y.mT, *_weights(generator, batch, n))


def uniform_problems(generator: Generator, batch: int, n: int) -> Problems:
    """Draw costs independently and uniformly between 0 and 1, without any structure."""
    return Problems(torch.rand(batch, n, n, generator=generator), *_weights(generator, batch, n))


def _weights(generator: Generator, batch: int, n: int) -> tuple[Tensor, Tensor]:
    """Draw weights a and b, (B, n) each, of sum 1."""
    a, b = (torch.rand(batch, n, generator=generator) + 1e-3 for _ in range(2))
    return a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)


KINDS: dict[str, Callable[[Generator, int, int], Problems]] = {
    "embedding": embedding_problems,
    "uniform": uniform_problems,
}
