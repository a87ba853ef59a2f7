"""Transport problems of every kind that has broken a network simplex, and the certificate that judges an answer."""

import numpy as np

FAMILIES = (
    "random", "equal weights", "ties", "zero weights", "duplicates", "integers",
    "constant cost", "negative cost", "embeddings", "tiny and huge weights",
)  # fmt: skip


def draw(
    rng: np.random.Generator, family: str, n: int, m: int, scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One problem: cost (n, m), a (n,), b (m,), float64, totals equal to rounding."""
    cost, a, b = rng.random((n, m)), rng.random(n) + 0.01, rng.random(m) + 0.01
    if family == "equal weights":
        a, b = np.full(n, 1 / n), np.full(m, 1 / m)
    elif family == "ties":
        cost, a, b = rng.integers(0, 3, (n, m)).astype(float), np.full(n, 1.0 * m), np.full(m, 1.0 * n)
    elif family == "zero weights":
        a, b = a * (rng.random(n) < 0.6), b * (rng.random(m) < 0.6)
        a[rng.integers(n)] = b[rng.integers(m)] = 0.5
    elif family == "duplicates":
        cost = cost[rng.integers(0, (n + 1) // 2, n)][:, rng.integers(0, (m + 1) // 2, m)]
        a, b = rng.integers(1, 3, n).astype(float), rng.integers(1, 3, m).astype(float)
    elif family == "integers":
        cost = rng.integers(0, 10, (n, m)).astype(float)
        total = n * m
        a, b = (
            rng.multinomial(total, np.full(n, 1 / n)).astype(float),
            rng.multinomial(total, np.full(m, 1 / m)).astype(float),
        )
    elif family == "constant cost":
        cost = np.full((n, m), rng.choice([0.0, 1.0]))
    elif family == "negative cost":
        cost = rng.standard_normal((n, m))
    elif family == "embeddings":
        x, y = rng.standard_normal((n, 8)), rng.standard_normal((m, 8))
        x, y = x / np.linalg.norm(x, axis=1, keepdims=True), y / np.linalg.norm(y, axis=1, keepdims=True)
        cost = 1 - x @ y.T
    elif family == "tiny and huge weights":
        a, b = 10.0 ** rng.uniform(-12, 3, n), 10.0 ** rng.uniform(-12, 3, m)
    return cost * scale, a, b * (a.sum() / b.sum())


def sizes(rng: np.random.Generator, largest: int = 130) -> tuple[int, int]:
    """n and m, each of 1 .. largest, small ones more often."""
    n, m = (int(largest ** rng.random()) + rng.integers(0, 2) for _ in range(2))
    return min(n, largest), min(m, largest)


def defects(
    cost: np.ndarray, a: np.ndarray, b: np.ndarray, plan: np.ndarray, u: np.ndarray, v: np.ndarray
) -> dict[str, float]:
    """How far a primal-dual pair is from a proof of optimality, relative to max |c| * sum(a): zeros mean optimal."""
    unit, total = max(np.abs(cost).max(), np.finfo(float).tiny), a.sum()
    return {
        "row marginal": np.abs(plan.sum(1) - a).max() / total,
        "column marginal": np.abs(plan.sum(0) - b).max() / total,
        "negative flow": max(0.0, -plan.min()) / total,
        "dual infeasibility": max(0.0, (u[:, None] + v[None] - cost).max()) / unit,
        "duality gap": abs(((cost / unit) * plan).sum() - (u / unit) @ a - (v / unit) @ b) / total,
    }
