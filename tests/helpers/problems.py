"""Transport problems of every kind that has broken a network simplex, and the certificate that judges an answer."""

import numpy as np

FAMILIES = (
    "random", "equal weights", "ties", "zero weights", "duplicates", "integers",
    "constant cost", "negative cost", "embeddings", "tiny and huge weights",
    "planted permutation", "clusters", "Monge", "heavy tails", "near ties",
    "blocks", "split sums", "dominant weight", "denormals", "limits of float32",
)  # fmt: skip

# Outputs in float32 are rounded once, and b is scaled to the total of a in two roundings before that.
FLOAT32_ROUNDING = 4 * 2.0**-24

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def draw(rng: np.random.Generator, family: str, n: int, m: int, scale: float = 1.0) -> Arrays:
    """One problem: cost (n, m), a (n,), b (m,), float64, totals equal to rounding."""
    cost, a, b = draw_batch(rng, family, 1, n, m, scale)
    return cost[0], a[0], b[0]


def draw_batch(rng: np.random.Generator, family: str, batch: int, n: int, m: int, scale: float = 1.0) -> Arrays:
    """Problems of one family and shape: cost (B, n, m), a (B, n), b (B, m), float64, totals equal to rounding.

    At scale 1 all of them remain finite, positive in total and of one total when they are rounded to float32.
    """
    B = batch
    cost, a, b = rng.random((B, n, m)), rng.random((B, n)) + 0.01, rng.random((B, m)) + 0.01
    if family == "equal weights":
        a, b = np.full((B, n), 1 / n), np.full((B, m), 1 / m)
    elif family == "ties":
        cost, a, b = rng.integers(0, 3, (B, n, m)).astype(float), np.full((B, n), 1.0 * m), np.full((B, m), 1.0 * n)
    elif family == "zero weights":
        a, b = a * (rng.random((B, n)) < 0.6), b * (rng.random((B, m)) < 0.6)
        a[np.arange(B), rng.integers(n, size=B)] = b[np.arange(B), rng.integers(m, size=B)] = 0.5
    elif family == "duplicates":  # identical rows and columns
        cost = np.take_along_axis(cost, rng.integers(0, (n + 1) // 2, (B, n))[:, :, None], 1)
        cost = np.take_along_axis(cost, rng.integers(0, (m + 1) // 2, (B, m))[:, None], 2)
        a, b = rng.integers(1, 3, (B, n)).astype(float), rng.integers(1, 3, (B, m)).astype(float)
    elif family == "integers":  # partial sums coincide exactly
        cost = rng.integers(0, 10, (B, n, m)).astype(float)
        a, b = (rng.multinomial(n * m, np.full(k, 1 / k), B).astype(float) for k in (n, m))
    elif family == "constant cost":
        cost = np.broadcast_to(rng.choice([0.0, 1.0], (B, 1, 1)), (B, n, m))
    elif family == "negative cost":
        cost = rng.standard_normal((B, n, m))
    elif family == "embeddings":
        x, y = (_directions(rng.standard_normal((B, k, 8))) for k in (n, m))
        cost = 1 - x @ y.transpose(0, 2, 1)
    elif family == "tiny and huge weights":
        a, b = 10.0 ** rng.uniform(-12, 3, (B, n)), 10.0 ** rng.uniform(-12, 3, (B, m))
    elif (
        family == "planted permutation"
    ):  # points of a grid and the same points shuffled; metric, least cost 0 if n = m
        x = rng.integers(0, 8, (B, max(n, m), 2)).astype(float)
        y = rng.permuted(np.broadcast_to(np.arange(max(n, m)), (B, max(n, m))), axis=1)[:, :m]  # which x each column is
        cost = _l1(x[:, :n], np.take_along_axis(x, y[:, :, None], 1))
        a, b = np.full((B, n), 1.0 * m), np.full((B, m), 1.0 * n)
    elif family == "clusters":  # a metric of two scales, 1 and 1e-6: whole clusters nearly tie
        centres = rng.random((B, 4, 2))
        x, y = (
            np.take_along_axis(centres, rng.integers(0, 4, (B, k))[:, :, None], 1) + 1e-6 * rng.random((B, k, 2))
            for k in (n, m)
        )
        cost = _l1(x, y)
    elif family == "Monge":  # rank 1; the corner rules are optimal, from one corner or the other, in one long staircase
        x, y = np.sort(rng.random((B, n)), 1), np.sort(rng.random((B, m)), 1)
        cost = rng.choice([-1.0, 1.0], (B, 1, 1)) * x[:, :, None] * y[:, None]
    elif family == "heavy tails":  # powers of a Pareto variable: a few entries outweigh all the others
        cost, a, b = (1e-3 / t**4 if t.ndim == 3 else t**-2.0 for t in (cost + 1e-3, a, b))
    elif family == "near ties":  # costs differ by the last bit of a float32, or by less than that
        bit = rng.choice([2.0**-23, 2.0**-27], (B, 1, 1))
        cost = 1 + bit * rng.integers(0, 4, (B, n, m))
    elif family == "blocks":  # arcs between the blocks are as good as forbidden, and each block balances in itself
        blocks = min(n, m, 4)
        i, j = np.arange(n) * blocks // n, np.arange(m) * blocks // m
        cost = np.where(i[:, None] == j, cost, 1e6)
        share = rng.integers(1, 5, (B, blocks)).astype(float)
        a, b = (share[:, k] * (np.bincount(i).prod() * np.bincount(j).prod() / np.bincount(k)[k]) for k in (i, j))
    elif family == "split sums":  # partial sums that would coincide but for their last bits
        pieces = rng.random((B, n * m if n * m < 64 else n + m)) + 1e-3
        a, b = (_sums(rng, pieces, k) for k in (n, m))
    elif family == "dominant weight":
        a, b = (1e-9 * t for t in (a, b))
        a[np.arange(B), rng.integers(n, size=B)] = b[np.arange(B), rng.integers(m, size=B)] = 1.0
    elif family == "denormals":  # zeros of both signs and numbers too small for a full mantissa among ordinary ones
        odd = np.array([0.0, -0.0, 5e-324, 1e-310, 1e-45, 1e-40, 1e-38])
        cost, a, b = (np.where(rng.random(t.shape) < 0.4, t, odd[rng.integers(0, 7, t.shape)]) for t in (cost, a, b))
        a[np.arange(B), rng.integers(n, size=B)] = b[np.arange(B), rng.integers(m, size=B)] = 0.5
    elif family == "limits of float32":  # up to half its largest number (duals go up to 1.5 times the costs) or tiny
        cost = (2 * cost - 1) * rng.choice([1.7e38, 1e-35], (B, 1, 1))
        a, b = a / a.sum(1, keepdims=True), b / b.sum(1, keepdims=True)
    elif family != "random":
        raise ValueError(f"no family {family!r}")
    return cost * scale, a, b * (a.sum(1, keepdims=True) / b.sum(1, keepdims=True))


def _directions(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _l1(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(B, n, 2), (B, m, 2) -> (B, n, m) the distance along the axes."""
    return np.abs(x[:, :, None, 0] - y[:, None, :, 0]) + np.abs(x[:, :, None, 1] - y[:, None, :, 1])


def _sums(rng: np.random.Generator, pieces: np.ndarray, k: int) -> np.ndarray:
    """Shuffle the pieces (B, p) and add them up in k runs of random lengths, at least one piece each. -> (B, k)"""
    shuffled = rng.permuted(pieces, axis=1)
    cuts = np.sort(rng.permutation(pieces.shape[1] - 1)[: k - 1]) + 1
    return np.add.reduceat(shuffled, np.concatenate([[0], cuts]).astype(int), axis=1)


def sizes(rng: np.random.Generator, largest: int = 130) -> tuple[int, int]:
    """n and m, each of 1 .. largest, small ones more often."""
    n, m = (int(largest ** rng.random()) + rng.integers(0, 2) for _ in range(2))
    return min(n, largest), min(m, largest)


def defects(
    cost: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    plan: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    value: np.ndarray | float | None = None,
    rounding: float = 0.0,
) -> dict[str, np.ndarray]:
    """How far primal-dual pairs (..., n, m) are from a proof of optimality: zeros mean optimal, NaN stays NaN.

    Each is (...), relative to max |c| and sum(a). What `rounding` the outputs to float32 can cause, relative to each
    number that was rounded, is taken off.
    """
    r, tiny = rounding, np.finfo(np.float32).tiny  # below it numbers lose their relative precision
    unit = np.maximum(np.abs(cost).max((-2, -1)), np.finfo(float).tiny)[..., None]  # (..., 1)
    total = a.sum(-1)
    c, u, v = cost / unit[..., None], u / unit, v / unit
    shipped = np.einsum("...ij,...ij->...", c, plan)
    over = u[..., :, None] + v[..., None, :] - c
    gap = np.abs(shipped - (u * a).sum(-1) - (v * b).sum(-1))
    row, column = (np.abs(plan.sum(k) - w) for k, w in ((-1, a), (-2, b)))
    slack = 0.0
    if r:
        u_off, v_off = (r * (np.abs(t) + tiny / unit) for t in (u, v))
        slack = r * (np.abs(c) * (plan + tiny)).sum((-2, -1))
        over -= u_off[..., :, None] + v_off[..., None, :]
        gap -= slack + (u_off * a).sum(-1) + (v_off * b).sum(-1)
        row, column = (d - r * (w + plan.size * tiny) for d, w in ((row, a), (column, b)))
    found = {
        "row marginal": row.max(-1) / total,
        "column marginal": column.max(-1) / total,
        "negative flow": -plan.min((-2, -1)) / total,
        "dual infeasibility": over.max((-2, -1)),
        "duality gap": gap / total,
    }
    if value is not None:
        unit = unit[..., 0]
        with np.errstate(over="ignore"):  # beyond the largest number of its type a value comes back as infinite
            top = np.finfo(np.float32 if r else float).max / unit
            short, exact = np.clip(np.asarray(value) / unit, -top, top), np.clip(shipped, -top, top)
        found["value"] = (np.abs(short - exact) - slack - r * tiny / unit) / total
    return {name: np.maximum(d, 0.0) for name, d in found.items()}
