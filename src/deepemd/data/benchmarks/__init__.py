"""Published benchmarks: where their files come from, and whether they are the published ones."""

from collections.abc import Callable
from typing import NamedTuple

from deepemd.data.benchmarks.cifar import cifar_fs, fc100
from deepemd.data.benchmarks.miniimagenet import miniimagenet
from deepemd.data.benchmarks.omniglot import omniglot
from deepemd.data.store import Draft

__all__ = ["BENCHMARKS", "Benchmark"]


class Benchmark(NamedTuple):
    """What is needed of a benchmark by its name.

    Attributes:
        find: ``find(source, scratch, opened, strict=...)``: the splits at a source, see one of them.
        about: what it is, in a line.
        get: what to get, from where, and what of it is the source's PATH.
    """

    find: Callable[..., dict[str, Draft]]
    about: str
    get: str


_CIFAR = "download https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz (161 MB) as PATH"

BENCHMARKS = {
    "miniimagenet": Benchmark(
        miniimagenet,
        "100 classes of ImageNet, 600 images each",
        "get the images and the CSV files (filename,label) of Ravi and Larochelle's split as PATH (folder, tar, zip)",
    ),
    "omniglot": Benchmark(
        omniglot,
        "1,623 handwritten characters of 50 alphabets, 20 drawings each",
        "download images_background.zip and images_evaluation.zip from "
        "https://github.com/brendenlake/omniglot/tree/master/python into a folder PATH",
    ),
    "fc100": Benchmark(
        fc100, "CIFAR-100 divided by superclasses: 60 / 20 / 20 classes, 600 images of 32 x 32 each", _CIFAR
    ),
    "cifar-fs": Benchmark(
        cifar_fs, "CIFAR-100 divided at random: 64 / 16 / 20 classes, 600 images of 32 x 32 each", _CIFAR
    ),
}
