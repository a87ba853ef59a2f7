"""Published benchmarks: where to get their files, and how to read and check them."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from deepemd.data.benchmarks.cifar import cifar_fs, fc100
from deepemd.data.benchmarks.cub import cub
from deepemd.data.benchmarks.miniimagenet import miniimagenet
from deepemd.data.benchmarks.omniglot import omniglot
from deepemd.data.benchmarks.tieredimagenet import tieredimagenet
from deepemd.data.drafts import Draft

__all__ = ["BENCHMARKS", "Benchmark"]


class Benchmark(NamedTuple):
    """A published benchmark.

    Attributes:
        find: function ``find(source, scratch, opened, strict=...)`` that returns the splits at a source; see for
            instance :func:`deepemd.data.benchmarks.miniimagenet.miniimagenet`.
        summary: a description in one line.
        how_to_get: which files to get, from where, and what to pass as the source PATH.
    """

    find: Callable[..., dict[str, Draft]]
    summary: str
    how_to_get: str


_CIFAR = "download https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz (161 MB) as PATH"
_CUB = "download CUB_200_2011.tgz (1.1 GB) from https://data.caltech.edu/records/65de6-vp158 as PATH"
_ILSVRC = "get the training images of ILSVRC 2012 (registration at https://image-net.org)"

BENCHMARKS = {
    "miniimagenet": Benchmark(
        miniimagenet,
        "100 classes of ImageNet, 600 images each: 64 / 16 / 20",
        "get the images and the CSV files (filename,label) of Ravi and Larochelle's split as PATH (folder, tar, zip); "
        f"or {_ILSVRC}, and put the CSV files (https://github.com/twitter-research/meta-learning-lstm) beside their "
        "class folders in PATH; or a folder PATH with the pickles mini-imagenet-cache-train.pkl, ... or "
        "miniImageNet_category_split_train_phase_train.pickle, ..., which are 84 x 84",
    ),
    "tieredimagenet": Benchmark(
        tieredimagenet,
        "608 classes of ImageNet, divided by superclasses: 351 / 97 / 160, 779,165 images",
        f"{_ILSVRC}, their class folders (n01530575, ...) in PATH; or a folder PATH with train_images_png.pkl, "
        "train_labels.pkl, ... (84 x 84; https://github.com/renmengye/few-shot-ssl-public)",
    ),
    "cub": Benchmark(cub, "CUB-200-2011, birds cropped to their bounding boxes: 100 / 50 / 50, 11,788 images", _CUB),
    "cub-whole": Benchmark(partial(cub, crop=False), "the same birds, whole images", _CUB),
    "fc100": Benchmark(
        fc100, "CIFAR-100 divided by superclasses: 60 / 20 / 20 classes, 600 images of 32 x 32 each", _CIFAR
    ),
    "cifar-fs": Benchmark(
        cifar_fs, "CIFAR-100 divided at random: 64 / 16 / 20 classes, 600 images of 32 x 32 each", _CIFAR
    ),
    "omniglot": Benchmark(
        omniglot,
        "1,623 handwritten characters of 50 alphabets, 20 drawings each: 813 / 151 / 659",
        "download images_background.zip and images_evaluation.zip from "
        "https://github.com/brendenlake/omniglot/tree/master/python into a folder PATH",
    ),
}
