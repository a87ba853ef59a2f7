"""A call that needs more memory than there is ends in an error that says so, before anything is allocated.

Tests deepemd.transport._memory.
"""

import pytest
import torch

from deepemd.errors import InputError
from deepemd.transport import WarmStart, _memory, emd

GB = 10**9


def _limit(monkeypatch, available):
    monkeypatch.setattr(_memory, "_limits", lambda: [(2**62, "another"), (available, "the limit of a test")])


def _ones(*shape, dtype=torch.float32):
    """Return ones that take no memory."""
    return torch.ones((), dtype=dtype).expand(*shape)


@pytest.mark.parametrize(("n", "m"), [(10**6, 3), (3, 10**6), (40_000, 40_000), (200_000_000, 3), (2**31 - 1, 1)])
@pytest.mark.parametrize("solver", [emd, WarmStart()])
def test_absurd_sizes_name_the_shape_the_need_the_limit_and_the_remedy(monkeypatch, n, m, solver):
    _limit(monkeypatch, 8 * GB)
    with pytest.raises(InputError, match=r"[GTP]B of memory, but only 8\.0 GB are available .*a test.*merge") as e:
        solver(_ones(1, n, m), _ones(1, n), _ones(1, m) * (n / m))
    assert f"(1, {n}, {m})" in str(e.value)
    assert isinstance(e.value, MemoryError)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_small_cost_that_broadcasts_to_a_large_batch(monkeypatch, dtype):
    monkeypatch.setattr(_memory, "_SMALL", 1000)
    _limit(monkeypatch, 3_000_000)
    problem = _ones(150, 100, 100, dtype=dtype), _ones(100), _ones(150, 100)
    with pytest.raises(MemoryError, match=r"\(150, 100, 100\) needs (6|12)\.\d MB .*solve the batch in parts"):
        emd(*problem)
    assert emd(*(t.to("meta") for t in problem)).value.shape == (150,)


def test_the_batch_of_vmap_counts(monkeypatch):
    monkeypatch.setattr(_memory, "_SMALL", 1000)
    _limit(monkeypatch, 3_000_000)
    with pytest.raises(MemoryError, match=r"\(3, 50, 100, 100\) needs 6\.\d MB .*solve the batch in parts"):
        torch.func.vmap(lambda c: emd(c, _ones(100), _ones(100)).value)(_ones(3, 50, 100, 100))


def test_the_plan_its_gradient_and_the_certificate_are_refused_where_the_answer_still_fits(monkeypatch):
    monkeypatch.setattr(_memory, "_SMALL", 1000)
    cost = torch.rand(4, 30, 30, requires_grad=True)
    solution = emd(cost, torch.ones(30), torch.ones(30))
    _limit(monkeypatch, 10_000)
    with pytest.raises(MemoryError, match=r"plan.* \(4, 30, 30\) needs 14\.4 kB"):
        _ = solution.plan
    with pytest.raises(MemoryError, match=r"gradient.* \(4, 30, 30\) needs 14\.4 kB"):
        solution.value.sum().backward()
    with pytest.raises(MemoryError, match=r"certificate of 3,600 costs needs 144\.0 kB"):
        solution.certificate()


@pytest.mark.parametrize(("n", "m"), [(5, 7), (16, 16), (60, 64), (65, 90), (3, 7000), (1, 5000), (400, 300)])
def test_the_need_is_at_least_that_of_costs_and_masks(n, m):
    masks = (n + m) ** 2 // 8 if min(n, m) > 1 else 0
    least = 20 * n * m + 72 * (n + m) + masks
    assert least <= _memory.workspace_size(n, m) <= 20 * least + 100_000  # short rows are padded


def test_threads_share_the_memory_that_there_is(monkeypatch):
    _limit(monkeypatch, 10 * GB)
    assert _memory.affordable(16, 3 * GB) == 3
    assert _memory.affordable(16, 30 * GB) == 1
    assert _memory.affordable(16, 1000) == 16


def test_the_limits_of_this_machine_are_read():
    found = list(_memory._limits())
    assert all(isinstance(left, int) and source for left, source in found)


def test_the_limit_of_a_container_counts(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text("5000000000\n")
    (tmp_path / "memory.current").write_text("4000000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 500000000\nsock 0\n")
    unlimited = tmp_path / "above"
    unlimited.mkdir()
    (unlimited / "memory.max").write_text("max\n")
    (unlimited / "memory.current").write_text("0\n")
    folders = [(tmp_path, "memory.max", "memory.current"), (unlimited, "memory.max", "memory.current")]
    monkeypatch.setattr(_memory, "_cgroups", lambda: iter(folders))
    assert (1_500_000_000, "memory limit of the container") in list(_memory._limits())
    assert sum(source == "memory limit of the container" for _, source in _memory._limits()) == 1
