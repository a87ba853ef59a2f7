"""The gradient descent of the SFC for a batch of episodes, with the gradient of its loss derived by hand.

A shot has nodes u_i (n of them), a prototype nodes v_j (m of them), each in R^C. With 1 the vector of ones,

    u_i = rho_i y_i + mu_i 1,    |y_i| = 1,    y_i . 1 = 0,        v_j = w_j + nu_j 1,    w_j . 1 = 0,    r_j = |w_j|,

split a node into direction, length and mean. Everything that the head needs follows from y_i . v_j = y_i . w_j:

    c_ij = 1 - y_i . v_j / r_j,        u_i . v_j = rho_i (y_i . v_j) + C mu_i nu_j,
    a_i = max(mean_j u_i . v_j, 0) + floor,    b_j = max(mean_i u_i . v_j, 0) + floor,
    alpha = a / sum a,    beta = b / sum b,    logit = T (1 - EMD(c, alpha, beta)),

and the loss is the mean over the q shots of the mini-batch of -log p[label], p the softmax of the logits over the
classes. Backwards, for one shot and one class,

    dloss/dEMD = T ([class is the label] - p) / q =: g.

By the envelope theorem (transport/_autograd.py) dEMD/dc is the plan x, dEMD/dalpha and dEMD/dbeta are the potentials
s, t up to a constant, which the scaling to sum 1 cancels. So with [active] = 1 where the ReLU is active, else 0,

    d_i := dloss/d(mean_j u_i . v_j) = g (s_i - s . alpha) / sum a [a_i active],
    e_j := dloss/d(mean_i u_i . v_j) = g (t_j - t . beta) / sum b [b_j active].

The derivative of c_ij by v_j is -y_i / r_j + (y_i . v_j) w_j / r_j^3. Let x'_ij = -g x_ij / r_j, let
u^ = mean_i u_i be the mean node of a shot, and let sums over i run over the nodes of all shots of the mini-batch. Then

    dloss/dv_j = sum_i (x'_ij + d_i rho_i / m) y_i + sum_shots e_j u^ - k_j w_j + h 1,
    k_j = sum_i x'_ij (y_i . v_j) / r_j^2,    h = sum_i d_i mu_i / m.

A shot is stored as n + 1 rows, y_i and u^. Then the first two sums are one product of matrices, the forward products
are another (u^ . v_j is mean_i u_i . v_j), and only the update of v is also of the size of the embeddings. Whatever
depends on the shots alone is computed once.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from deepemd.transport import WarmStart

_EPS = 1e-8  # the least length, as in unit_centred


class Descent:
    """The prototypes of E episodes, moved by stochastic gradient descent as in ``torch.optim.SGD``.

    Args:
        support: (E, K, n, C) float32 or float64.
        labels: (E, K) int64.
        prototypes: (E, W, m, C), the start.
        lr, momentum, dampening: settings of the descent.
        temperature, floor: settings of the head.
        uniform: give every node the same weight.
        detach_weights: give the weights no gradient.
    """

    def __init__(
        self,
        support: Tensor,
        labels: Tensor,
        prototypes: Tensor,
        *,
        lr: float,
        momentum: float,
        dampening: float,
        temperature: float,
        floor: float,
        uniform: bool,
        detach_weights: bool,
    ) -> None:
        self.lr, self.momentum, self.dampening = lr, momentum, dampening
        self.temperature, self.floor, self.uniform, self.detach_weights = temperature, floor, uniform, detach_weights
        episodes, shots, *_ = support.shape
        n_way = prototypes.shape[1]
        self.shape = (n_way, prototypes.shape[2])
        self.target = F.one_hot(labels, n_way).to(support)  # (E, K, W)

        self.mu = support.mean(-1)  # (E, K, n)
        centred = support - self.mu[..., None]  # (E, K, n, C)
        self.rho = centred.norm(dim=-1).clamp_min(_EPS)  # (E, K, n)
        rows = centred / self.rho[..., None], support.mean(2, keepdim=True)
        self.rows = torch.cat(rows, 2)  # (E, K, n + 1, C): y_i, then u^

        self.v = prototypes.flatten(1, 2).clone()  # (E, W m, C)
        self.velocity = torch.zeros_like(self.v)
        self.begun = False

        # The transport problem of a shot and a class changes little in an epoch, so it starts from its last basis.
        self.solver = WarmStart()
        self.slots = torch.arange(episodes * shots * n_way).view(episodes, shots, n_way)

    def prototypes(self) -> Tensor:
        """Return the current prototypes, (E, W, m, C)."""
        return self.v.view(len(self.v), *self.shape, -1)

    def step(self, some: Tensor) -> None:
        """Make a step on the mean loss of some (q,) of the shots of each episode."""
        rows = self.rows.index_select(1, some.to(self.rows.device)).flatten(1, 2)  # (E, q (n + 1), C)
        weights, k, along = self._gradient(some, rows)
        # the first step is not damped
        momentum, share = (self.momentum, 1 - self.dampening) if self.begun else (0.0, 1.0)
        self.velocity.baddbmm_(weights, rows, beta=momentum, alpha=share)  # (E, W m, C)
        self.velocity.addcmul_(k[..., None], self.v, value=-share)
        self.velocity.add_(along[..., None], alpha=share)
        self.v.add_(self.velocity, alpha=-self.lr)
        self.begun = True

    def _gradient(self, some: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return dloss/dv as the factors of the rows (E, W m, q (n + 1)), of -v (E, W m) and of 1 (E, W m)."""
        (episodes, _, channels), (n_way, m), q, n = self.v.shape, self.shape, len(some), self.rho.shape[2]
        products = torch.bmm(rows, self.v.transpose(1, 2)).view(episodes, q, n + 1, n_way, m)  # y_i . v_j, u^ . v_j
        yv = products[:, :, :n]  # (E, q, n, W, m)
        nu = self.v.mean(-1)  # (E, W m)
        r = (self.v - nu[..., None]).norm(dim=-1).clamp_min(_EPS)  # (E, W m)
        r_j = r.view(episodes, 1, 1, n_way, m)
        cost = products.new_empty(episodes, q, n_way, n, m)
        torch.div(yv, r_j, out=cost.transpose(2, 3)).neg_().add_(1)

        if self.uniform:
            a, b = cost.new_ones(()).expand(episodes, q, n_way, n + m).split((n, m), -1)
        else:
            rho, mu = self.rho[:, some], self.mu[:, some]  # (E, q, n)
            class_nu = nu.view(episodes, 1, 1, n_way, m).mean(-1)  # (E, 1, 1, W)
            a = (rho[..., None] * yv.mean(-1) + channels * mu[..., None] * class_nu).transpose(2, 3)
            a, b = a.relu(), products[:, :, n].relu()  # (E, q, W, n), (E, q, W, m)
            a_active, b_active = a > 0, b > 0
            a, b = a + self.floor, b + self.floor
        sum_a, sum_b = a.sum(-1, keepdim=True), b.sum(-1, keepdim=True)  # (E, q, W, 1)
        alpha, beta = a / sum_a, b / sum_b
        solution = self.solver(cost, alpha, beta, slots=self.slots[:, some].flatten())

        p = (self.temperature * (1 - solution.value)).softmax(-1)  # (E, q, W)
        g = (self.target[:, some] - p) * (self.temperature / q)  # (E, q, W)
        gradient = torch.empty_like(products)  # (E, q, n + 1, W, m): the factor of each row
        x = gradient[:, :, :n]  # (E, q, n, W, m)
        torch.mul(solution.plan.transpose(2, 3), -g[:, :, None, :, None] / r_j, out=x)
        k = (x * yv).sum((1, 2)).flatten(1) / r.square()  # (E, W m)
        along = k * nu  # (E, W m): h, and k nu, as -k w = -k v + k nu 1
        if self.uniform or self.detach_weights:
            gradient[:, :, n] = 0
        else:
            s, t = solution.u, solution.v
            d = g[..., None] * (s - (s * alpha).sum(-1, keepdim=True)) / sum_a * a_active / m  # (E, q, W, n)
            e = g[..., None] * (t - (t * beta).sum(-1, keepdim=True)) / sum_b * b_active  # (E, q, W, m)
            x += (d.transpose(2, 3) * rho[..., None])[..., None]
            gradient[:, :, n] = e
            along = (along.view(episodes, n_way, m) + torch.einsum("eqwi,eqi->ew", d, mu)[..., None]).flatten(1)

        return gradient.view(episodes, q * (n + 1), n_way * m).transpose(1, 2), k, along
