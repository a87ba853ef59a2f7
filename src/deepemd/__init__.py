"""Few-shot image classification by an exact, differentiable Earth Mover's Distance between the parts of images.

The public names are imported when they are first used, so that the command line answers ``--help`` without loading
PyTorch.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepemd.apps.classifier import FewShotClassifier
    from deepemd.apps.plots import plot_matching
    from deepemd.emd import Transport, emd
    from deepemd.errors import InputError
    from deepemd.matching import emd_logits, fit_prototypes
    from deepemd.model import DeepEMD
    from deepemd.nodes import FCN, Grid, Sampling, conv4, resnet12

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
__version__ = "0.1.0"

_HOMES = {
    "DeepEMD": "deepemd.model",
    "FCN": "deepemd.nodes",
    "FewShotClassifier": "deepemd.apps.classifier",
    "Grid": "deepemd.nodes",
    "InputError": "deepemd.errors",
    "Sampling": "deepemd.nodes",
    "Transport": "deepemd.emd",
    "conv4": "deepemd.nodes",
    "emd": "deepemd.emd",
    "emd_logits": "deepemd.matching",
    "fit_prototypes": "deepemd.matching",
    "plot_matching": "deepemd.apps.plots",
    "resnet12": "deepemd.nodes",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'deepemd' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


class _Package(ModuleType):
    """Keeps ``deepemd.emd`` the function: importing the subpackage of that name would put the module in its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value.emd if name == "emd" and isinstance(value, ModuleType) else value)


sys.modules[__name__].__class__ = _Package
