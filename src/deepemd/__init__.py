"""Few-shot image classification by an exact, differentiable Earth Mover's Distance between the parts of images.

The public names are imported when they are first used, so that the command line answers ``--help`` without loading
PyTorch.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepemd.classifier.estimator import FewShotClassifier
    from deepemd.errors import InputError
    from deepemd.explain.plots import plot_matching
    from deepemd.matching import emd_logits, fit_prototypes
    from deepemd.model import DeepEMD
    from deepemd.nodes import FCN, Grid, Sampling, conv4, resnet12
    from deepemd.transport import Transport, emd

__all__ = [
    "FCN",
    "DeepEMD",
    "FewShotClassifier",
    "Grid",
    "InputError",
    "Sampling",
    "Transport",
    "conv4",
    "emd",
    "emd_logits",
    "fit_prototypes",
    "plot_matching",
    "resnet12",
]
__version__ = version("deepemd")

_MODULES = {
    "DeepEMD": "deepemd.model",
    "FCN": "deepemd.nodes",
    "FewShotClassifier": "deepemd.classifier.estimator",
    "Grid": "deepemd.nodes",
    "InputError": "deepemd.errors",
    "Sampling": "deepemd.nodes",
    "Transport": "deepemd.transport",
    "conv4": "deepemd.nodes",
    "emd": "deepemd.transport",
    "emd_logits": "deepemd.matching",
    "fit_prototypes": "deepemd.matching",
    "plot_matching": "deepemd.explain.plots",
    "resnet12": "deepemd.nodes",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'deepemd' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
