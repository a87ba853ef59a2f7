"""What the SFC (`fit_prototypes`) gains over class means, by learning rate and epochs; and that its speed costs nothing.

    python benchmarks/sfc_accuracy.py runs/meta/best miniimagenet             # half an hour on two cores
    python benchmarks/sfc_accuracy.py runs/meta/best miniimagenet --episodes 20 --twin 2 --lr 1 10

Writes benchmarks/results/sfc-accuracy.json: accuracies on 5-way episodes of the validation classes, 15 queries a class,
and differences episode by episode with their 95 % interval. The twin descends one episode at a time in float64, by
PyTorch's autograd and optimizer, every transport problem from a fresh start, with the same order of mini-batches.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from deepemd.bench.measure import machine
from deepemd.data import Images, open_split
from deepemd.matching import class_means, emd_logits, fit_prototypes
from deepemd.model import DeepEMD
from deepemd.training.evaluate import Episodes, Figure, embed

RESULTS = Path(__file__).parent / "results" / "sfc-accuracy.json"
