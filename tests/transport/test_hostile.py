"""Whatever the input: a certified answer or an error that names the argument, and no memory read out of bounds.

CI runs this file twice more: with NUMBA_BOUNDSCHECK=1, where an index out of bounds raises IndexError, which no test
expects, and with NUMBA_CPU_NAME=generic, for machines without wide vectors. The code for each is stored separately.

Tests deepemd.transport._vectors, deepemd.transport._workspace.
"""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from problems import FAMILIES, FLOAT32_ROUNDING, defects, draw

from deepemd.transport import emd

pytestmark = pytest.mark.usefixtures("compiled_solver")

DTYPES = (torch.float32, torch.float64)
REFUSALS = r"^(cost|a|b) (holds|sums)|^a and b have different totals"
BORDERS = (1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257)


def _certify(cost, a, b):
    """Solve one problem of finite costs and proper weights, and check the answer by its own duals."""
    solution = emd(cost, a, b)
    rounding = 0.0 if cost.dtype == torch.float64 else FLOAT32_ROUNDING
    value, plan, u, v, cost, a, b = (
        t.double().numpy() for t in (solution.value, solution.plan, solution.u, solution.v, cost, a, b)
    )
    total, b = a.sum(), b * (a.sum() / b.sum())
    if np.isinf(value):  # right where the value is beyond the largest number
        mean, top = (cost * (plan / total)).sum(), torch.finfo(solution.value.dtype).max
        assert abs(mean) > 0.999 * top / total
        assert np.sign(mean) == np.sign(value)
        value = None
    if total > 1e100:  # products with such weights could overflow in here
        a, b, plan, value = (None if t is None else t / total for t in (a, b, plan, value))
    found = defects(cost, a, b, plan, u, v, value, rounding=rounding)
    wrong = {name: float(d) for name, d in found.items() if not d <= 1e-9}
    assert not wrong, (cost.shape, wrong)
    return solution


def _tensors(dtype, *arrays):
    return [torch.from_numpy(np.ascontiguousarray(t)).to(dtype) for t in arrays]


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", BORDERS)
def test_sizes_around_every_word_and_vector(n, dtype):
    rng = np.random.default_rng(n)
    for m in BORDERS:
        _certify(*_tensors(dtype, *draw(rng, FAMILIES[rng.integers(20)], n, m)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("positive", [1, 16, 31, 32, 33, 64, 65, 128, 129])
def test_few_positive_weights_in_a_large_problem(positive, dtype):
    """The solver uses only nodes with weight, so its sizes differ from those of the arrays."""
    rng = np.random.default_rng(positive)
    for other in (1, 32, 33, 65, 200):
        cost, a, b = draw(rng, "random", 200, 210)
        a[rng.permutation(200)[positive:]] = b[rng.permutation(210)[other:]] = 0
        b *= a.sum() / b.sum()
        for problem in ((cost, a, b), (cost.T, b, a)):
            _certify(*_tensors(dtype, *problem))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "m"), [(10_000, 3), (3, 5_000), (1, 5_000), (20_000, 1)])
def test_one_positive_weight_among_very_many(n, m, dtype):
    rng = np.random.default_rng(0)
    one = (np.arange(n) == n - 1).astype(float)
    cost, a, b = _tensors(dtype, rng.random((n, m)), one, np.full(m, 1 / m))
    value = emd(cost, a, b).value
    assert float(value) == pytest.approx(float((cost[-1] * b).sum()), rel=1e-6)
    _certify(cost[-40:], a[-40:], b)


# --- values -----------------------------------------------------------------------------------------------------------


def _odd(dtype):
    """Return numbers at the limits of a type. The largest is half its maximum: duals reach 1.5 times the costs."""
    info = torch.finfo(dtype)
    least = info.smallest_normal * info.eps
    return np.array([0.0, -0.0, least, info.tiny / 8, info.tiny, 1e-12, 1.0, 1e12, info.max / 1024, info.max / 2])


def _mixture(rng, dtype, shape, forbidden):
    """Draw ordinary numbers and replace none, one, some or all by odd ones, sometimes by forbidden ones."""
    x, odd = rng.random(shape) * 10.0 ** rng.integers(-6, 7), _odd(dtype)
    if forbidden and rng.random() < 0.15:
        odd = np.concatenate([odd, forbidden])
    share = rng.choice([0.0, 0.1, 0.5, 1.0])
    x = np.where(rng.random(shape) < share, rng.choice(odd[rng.permutation(len(odd))[:4]], shape), x)
    if rng.random() < 0.5:
        x.flat[rng.integers(x.size)] = rng.choice(odd)
    return x


def _demands(rng, a, m):
    """Draw column weights, most of the time of the same total as a, even if that has negatives and infinities."""
    b = np.zeros(m)
    with np.errstate(over="ignore", invalid="ignore"):
        np.add.at(b, rng.integers(m, size=len(a)), a)
        return b if rng.random() < 0.9 else b * rng.choice([0.0, -1.0, 0.9, 1 + 1e-5])


def _verdict(cost, a, b):
    """Return what emd must do: "answer", "refuse", or "either" close to overflow and underflow."""
    cost, a, b = (t.double().numpy() for t in (cost, a, b))
    with np.errstate(over="ignore", invalid="ignore"):
        totals = a.sum(), b.sum()
    good = np.isfinite(cost).all() and (a >= 0).all() and (b >= 0).all() and all(0 < t < np.inf for t in totals)
    if not good:
        return "refuse"
    if min(totals) < 1e-30 or max(a.max(), b.max()) > 1e38:
        return "either"
    off = abs(totals[0] / totals[1] - 1)
    return "answer" if off < 0.99e-4 else "refuse" if off > 1.01e-4 else "either"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_any_mixture_of_values_is_answered_or_refused(seed, dtype):
    rng = np.random.default_rng(seed)
    counts = dict.fromkeys(("answer", "refuse", "either"), 0)
    top = torch.finfo(dtype).max
    for _ in range(400):
        n, m = (int(40 ** rng.random()) for _ in range(2))
        cost = _mixture(rng, dtype, (n, m), [np.nan, np.inf, -np.inf]) * rng.choice([-1.0, 1.0], (n, m))
        a = _mixture(rng, dtype, n, [np.nan, np.inf, -1.0, -top])
        problem = _tensors(dtype, cost, a, _demands(rng, a, m))
        verdict = _verdict(*problem)
        counts[verdict] += 1
        if verdict == "answer":
            _certify(*problem)
            continue
        if verdict == "refuse":
            with pytest.raises(ValueError, match=REFUSALS):
                emd(*problem)
            continue
        try:
            solution = emd(*problem)
        except ValueError as error:
            assert re.match(REFUSALS, str(error))  # noqa: PT017
            continue
        assert not solution.plan.isnan().any()
        cost, a, _ = (t.double() for t in problem)
        if cost.abs().max() * a.sum() < np.inf:
            assert not solution.value.isnan()
    assert min(counts.values()) >= 5, counts
    assert counts["answer"] >= 100, counts


@pytest.mark.parametrize("dtype", DTYPES)
def test_costs_up_to_the_largest_number(dtype):
    """The plan is optimal; a dual beyond the largest number of the type is returned as infinite, never as NaN."""
    top = torch.finfo(dtype).max
    rng = np.random.default_rng(2)
    for n, m in ((1, 1), (2, 2), (5, 9), (33, 20), (65, 66)):
        a, b = (torch.full((k,), 0.5 / k, dtype=dtype) for k in (n, m))  # the value stays below the largest number
        sign = torch.from_numpy(rng.choice([-1.0, 1.0, 0.25], (n, m))).to(dtype)
        solution, small = emd(sign * top, a, b), emd(sign, a, b)
        torch.testing.assert_close((solution.plan * sign).sum(), small.value, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(solution.value / top, small.value, rtol=1e-5, atol=1e-6)
        assert not solution.u.isnan().any()
        assert not solution.v.isnan().any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_beyond_the_largest_number_are_infinite(dtype):
    top = torch.finfo(dtype).max
    one = torch.full((1,), top, dtype=dtype)
    for sign in (1, -1):
        assert float(emd(sign * one[None], one, one).value) == sign * float("inf")


def test_products_of_costs_and_weights_that_overflow_give_no_nan():
    a, b = torch.tensor([8e307, 8e307], dtype=torch.float64), torch.tensor([1.6e308], dtype=torch.float64)
    solution = emd(torch.tensor([[9.0], [-9.0]], dtype=torch.float64), a, b)
    assert not solution.u.isnan().any()
    assert not solution.v.isnan().any()
    assert not solution.value.isnan()


# --- layouts ----------------------------------------------------------------------------------------------------------


def _layouts(x):
    """Yield the same numbers in every memory layout that tensors can have."""
    yield "transposed", x.mT.contiguous().mT
    yield "every third", torch.stack([x, x * float("nan"), x * float("nan")], -1)[..., 0]
    padded = torch.full([s + 2 for s in x.shape], float("nan"), dtype=x.dtype)
    inner = padded[tuple(slice(1, -1) for _ in x.shape)]
    inner.copy_(x)
    yield "inside", inner
    yield "reversed axes", x.permute(*reversed(range(x.ndim))).contiguous().permute(*reversed(range(x.ndim)))
    yield "negated lazily", torch._neg_view(-x)
    yield "imaginary part of a conjugate", torch.complex(x, -x).conj().imag
    flat = torch.cat([torch.full((3,), float("nan"), dtype=x.dtype), x.flatten()])
    yield "at an offset", flat[3:].view(x.shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 6), (6, 1), (9, 17), (33, 31)])
def test_every_layout_gives_the_same_answer(n, m, dtype):
    rng = np.random.default_rng(3)
    problems = [draw(rng, "random", n, m) for _ in range(6)]
    cost, a, b = (t.view(2, 3, *t.shape[1:]) for t in _tensors(dtype, *map(np.stack, zip(*problems, strict=True))))
    expected = emd(cost, a, b)
    for k, x in enumerate((cost, a, b)):
        for name, other in _layouts(x):
            assert torch.equal(other, x)
            solution = emd(*(other if i == k else t for i, t in enumerate((cost, a, b))))
            for field in ("value", "plan"):  # the order in which weights are summed may cost the last bits
                torch.testing.assert_close(getattr(solution, field), getattr(expected, field), msg=name)


def test_one_number_expanded_to_everything():
    cost, one = torch.tensor(0.5).expand(4, 40, 33), torch.tensor(1.0)
    solution = emd(cost, one.expand(4, 40), (one * 40 / 33).expand(33))
    torch.testing.assert_close(solution.value, torch.full((4,), 20.0))
    torch.testing.assert_close(solution.plan.sum(-1), torch.ones(4, 40))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)])
def test_empty_batches_even_of_bad_numbers(shape):
    cost, a = torch.empty(*shape, 5, 4, requires_grad=True), torch.full((5,), float("nan"))
    solution = emd(cost, a, torch.zeros(4))
    assert solution.value.shape == shape
    assert solution.plan.shape == (*shape, 5, 4)
    assert torch.autograd.grad(solution.value.sum(), cost)[0].shape == cost.shape


@pytest.mark.parametrize("name", ["cost", "a", "b"])
def test_sparse_tensors_are_refused(name):
    arguments = {"cost": torch.rand(3, 3), "a": torch.ones(3), "b": torch.ones(3)}
    arguments[name] = arguments[name].to_sparse()
    with pytest.raises((TypeError, RuntimeError), match=r"(?i)sparse"):
        emd(**arguments)


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_refused_problems_leave_nothing_behind(dtype):
    """The first of several bad problems is named for any number of threads, and later answers do not change."""
    rng = np.random.default_rng(4)
    problems = [draw(rng, "random", 20, 20) for _ in range(64)]
    good = _tensors(dtype, *map(np.stack, zip(*problems, strict=True)))
    expected, names = emd(*good), ("cost", "a", "b")
    before = torch.get_num_threads()
    try:
        for trial in range(20):
            torch.set_num_threads(1 + trial % 3)
            which, places = trial % 3, np.sort(rng.permutation(64)[:5])
            bad = [t.clone() for t in good]
            bad[which][places] = (float("nan"), float("inf"), -1.0)[trial % 2 + (which > 0)]
            with pytest.raises(ValueError, match=rf"^{names[which]} holds .* at batch index \({places[0]},"):
                emd(*bad)
            solution = emd(*good)
            assert torch.equal(solution.value, expected.value)
            assert torch.equal(solution.plan, expected.plan)
    finally:
        torch.set_num_threads(before)


# --- memory -----------------------------------------------------------------------------------------------------------

FENCED = """
import ctypes, mmap, sys
import numpy as np
PAGE = mmap.PAGESIZE
libc, keep = ctypes.CDLL(None, use_errno=True), []

def fenced(x, at_end):
    "Return a copy of x that begins right after a protected page, or ends right before one."
    size = -(-x.nbytes // PAGE) * PAGE
    memory = mmap.mmap(-1, size + 2 * PAGE)
    keep.append(memory)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (address, address + PAGE + size):
        assert libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), 0) == 0
    copy = np.frombuffer(memory, x.dtype, x.size, PAGE + (size - x.nbytes if at_end else 0)).reshape(x.shape)
    copy[...] = x
    return copy, address + PAGE + size

if sys.argv[1] == "trespass":
    copy, end = fenced(np.arange(5.0), at_end=True)
    assert copy.sum() == 10
    ctypes.string_at(end, 1)

import torch
from deepemd.transport import emd
rng = np.random.default_rng(0)
sides = 1, 2, 3, 5, 8, 15, 16, 17, 25, 31, 32, 33, 49, 64, 65, 127, 129
for dtype in (np.float32, np.float64):
    for n in sides:
        for m in sides:
            shape = (1 + (n + m) % 3, n, m)
            cost, a = rng.random(shape).astype(dtype), np.full(shape[:2], 1 / n, dtype)
            b = np.full((shape[0], m), 1 / m, dtype)
            for zeros in (False, True):
                if zeros:
                    a[:, n // 2], a[:, -1], b[:, 0] = 0, 1, 0
                    b[:, -1] = 1
                    b *= a.sum(1, keepdims=True) / b.sum(1, keepdims=True)
                expected = emd(*map(torch.from_numpy, (cost, a, b)))
                for at_end in (False, True):
                    inputs = [torch.from_numpy(fenced(x, at_end)[0]) for x in (cost, a, b)]
                    assert torch.equal(emd(*inputs).value, expected.value)
                    del inputs
                    keep.clear()
print("solved")
"""


def _fenced(argument):
    return subprocess.run([sys.executable, "-c", FENCED, argument], capture_output=True, text=True, timeout=600)


@pytest.mark.skipif(sys.platform == "win32", reason="mprotect is POSIX")
def test_nothing_is_read_before_or_after_the_inputs():
    """A stray read is a segmentation fault, so this runs in a separate process."""
    assert _fenced("trespass").returncode < 0, "the fence does not hold"
    done = _fenced("solve")
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert done.stdout == "solved\n"


@pytest.mark.skipif(os.environ.get("NUMBA_BOUNDSCHECK") != "1", reason="this run does not ask for bounds checks")
def test_bounds_checks_are_on():
    import numba

    @numba.njit
    def beyond(x, k):
        return x[k]

    with pytest.raises(IndexError):
        beyond(np.zeros(3), 3)


@pytest.mark.skipif("NUMBA_CPU_NAME" not in os.environ, reason="this run takes the processor as it is")
def test_another_processor_is_compiled_for():
    import numba

    @numba.njit
    def double(x):
        for k in range(x.shape[0]):
            x[k] *= 2

    x = np.ones(100)
    double(x)
    assert (x == 2).all()
    (code,) = double.inspect_asm().values()
    assert os.environ["NUMBA_CPU_NAME"] != "generic" or not re.search(r"%[yz]mm", code)
