"""OpenCV's transport solver, which the authors' OpenCV path calls."""

from typing import Any

from torch import Tensor

from deepemd.transport._emd import Transport
from deepemd.transport.solvers._batch import pose_batch, require, solve_one_by_one


def opencv(cost: Tensor, a: Tensor, b: Tensor) -> Transport:
    """Solve by ``cv2.EMD``, as in the authors' OpenCV path; it returns a plan and no potentials.

    The value is the cost of the plan. It is differentiable in cost alone, as in the authors' code: a and b get no
    gradient, and u, v are NaN because OpenCV returns no potentials. Error: value, marginals and gradient 2e-7 (OpenCV
    computes in float32); 2e-6 where costs span many orders of magnitude, 2e-5 where weights span fifteen.

    Raises:
        ImportError: OpenCV is missing.
        TypeError, ValueError: as ``emd``.

    >>> import torch
    >>> cost = torch.tensor([[6.0, 4.0, 6.0], [6.0, 5.0, 5.0]])
    >>> round(float(opencv(cost, torch.tensor([200.0, 300.0]), torch.tensor([150.0, 150.0, 200.0])).value), 2)
    2500.0

    Source: https://docs.opencv.org, ``cv::EMD``; Rubner, Tomasi, Guibas, The Earth Mover's Distance as a metric for
        image retrieval, IJCV 2000.
    """
    cv2 = require("cv2", "OpenCV", "opencv-python-headless")

    def solve(c: Any, p: Any, q: Any) -> tuple[Any]:
        c, p, q = (t.astype("float32") for t in (c, p[:, None], q[:, None]))
        return (cv2.EMD(p, q, cv2.DIST_USER, c)[2],)

    return solve_one_by_one(pose_batch(cost, a, b), solve)
