"""Other people's transport solvers with the signature of ``emd``.

They serve for comparisons and for porting code from the authors' implementation. Each can replace ``emd``:

    from deepemd.transport import solvers
    logits = emd_logits(query, support, transport=solvers.opencv)

Arguments, shapes, dtypes and the errors for bad input are those of :func:`deepemd.emd`. All compute in double
precision except OpenCV. Tensors on a GPU are copied to the CPU and back, except for ``qpth`` and ``sinkhorn``, which
are written in PyTorch. The solvers differ in what they return:

| | solves | u, v | gradient to cost | to a and b |
|---|---|---|---|---|
| opencv | network simplex in float32, one by one | NaN | the plan | none |
| pot | network simplex in C++, one by one | yes | the plan | u, v |
| highs | dual simplex for any linear programme, one by one | yes | the plan | u, v |
| cvxpy | an interior point for any linear programme, one by one | yes | the plan | u, v |
| qpth | the programme made quadratic; an interior point, batched | NaN | its KKT system's | its KKT system's |
| sinkhorn | the programme with entropy, batched | approximate | its plan | its u, v |

The errors in the docstrings are the largest found over 1,600 problems of the twenty kinds that
``tests/helpers/problems.py`` draws, and 240 or 320 more of each kind that proved hard. The problems have 2 to 12 nodes
a side, costs scaled to at most 1 and weights scaled to sum 1, in batches of four. The error of a gradient is that of
its worst entry, over problems that have one optimum. ``tests/transport/test_solvers.py`` checks these errors.
"""

from deepemd.transport.solvers._cvxpy import cvxpy
from deepemd.transport.solvers._highs import highs
from deepemd.transport.solvers._opencv import opencv
from deepemd.transport.solvers._pot import pot
from deepemd.transport.solvers._qpth import qpth
from deepemd.transport.solvers._sinkhorn import sinkhorn

__all__ = ["cvxpy", "highs", "opencv", "pot", "qpth", "sinkhorn"]
