"""What a solution is worth after the tensors that it came from were changed in place.

Tests deepemd.transport._emd, deepemd.transport._autograd.
"""

import copy
import pickle

import pytest
import torch

from deepemd.transport import WarmStart, emd

NAMES = ("cost", "a", "b")


def _problem(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(2, 5, 6, generator=generator)
    return [t.to(dtype) for t in (cost, torch.full((2, 5), 1 / 5), torch.full((2, 6), 1 / 6))]


CHANGES = {
    "the tensor": lambda t: t.mul_(1.5),
    "an element": lambda t: t[0, 0].fill_(2.0),
    "a view": lambda t: t.view(-1)[3:].add_(1),
    "a detached view": lambda t: t.detach().add_(1),
    "as an output": lambda t: torch.add(t, 1, out=t),
}


@pytest.mark.parametrize("solver", [lambda: emd, WarmStart], ids=["emd", "WarmStart"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("k", range(3))
def test_a_certificate_of_what_was_changed_is_refused(k, change, solver):
    problem = _problem()
    solution = solver()(*problem)
    plan = emd(*problem).plan
    CHANGES[change](problem[k])
    with pytest.raises(RuntimeError, match=rf"^{NAMES[k]} was changed in place after it was solved.*clone"):
        solution.certificate()
    assert torch.equal(solution.plan, plan)  # made dense only here, and still right


@pytest.mark.parametrize("hidden", [lambda t: t.data.mul_(t.data + 1), lambda t: t.numpy().__imul__(t.numpy() + 1)])
def test_a_change_that_pytorch_does_not_count_appears_as_a_defect(hidden):
    problem = _problem()
    solution = emd(*problem)
    hidden(problem[0])
    assert float(solution.certificate().gap.max()) > 0.01


def test_a_copy_that_emd_made_itself_stays_provable():
    problem = _problem(torch.float16)
    solution = emd(*problem)
    problem[0].add_(1)
    assert float(max(t.max() for t in solution.certificate())) < 1e-6


def test_inference_mode_has_certificates():
    with torch.inference_mode():
        assert float(max(t.max() for t in emd(*_problem()).certificate())) < 1e-12


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (lambda given, _: given[0].add_(1), False),  # the gradient is the plan, which the costs no longer change
        (lambda given, _: given[1].add_(1), True),
        (lambda given, _: given[2].mul_(2), True),
        (lambda _, solution: solution.u.add_(1), True),
        (lambda _, solution: solution.v.add_(1), True),
        (lambda _, solution: solution.plan.add_(1), False),
    ],
)
def test_a_gradient_after_a_change_is_right_or_refused(change, refused):
    leaves = [t.requires_grad_() for t in _problem()]
    given = [1 * t for t in leaves]
    solution = emd(*given)
    want = torch.autograd.grad(solution.value.sum(), leaves, retain_graph=True)
    with torch.no_grad():
        change(given, solution)
    if refused:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(solution.value.sum(), leaves)
    else:
        found = torch.autograd.grad(solution.value.sum(), leaves)
        assert all(torch.equal(x, y) for x, y in zip(found, want, strict=True))


COPIES = [copy.copy, copy.deepcopy, lambda solution: pickle.loads(pickle.dumps(solution))]


@pytest.mark.parametrize("copied", COPIES, ids=["copy", "deepcopy", "pickle"])
def test_copies_of_a_solution_know_what_was_changed(copied):
    problem = [t.add_(0) for t in _problem()]  # changed in place, but before
    solution = emd(*problem)
    assert float(max(t.max() for t in copied(copied(solution)).certificate())) < 1e-12
    problem[1].mul_(2)
    with pytest.raises(RuntimeError, match=r"^a was changed in place"):
        copied(copied(solution)).certificate()
