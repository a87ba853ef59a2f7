"""Which nodes of the installed encoder to match: its layer, the cells that its map is averaged to, and their context.

    python benchmarks/choose.py DATA --split base

On the first 50 photos of every class of a split: the figures that the defaults of `deepemd predict` were chosen by.
Each choice is compared with the better of two pooled cosines, plain and centred over channels, of the same layer, on
the same episodes. Writes benchmarks/results/photos-choice.json.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deepemd import FCN, DeepEMD
from deepemd.data import EpisodeSampler, load
from deepemd.embedding.stream import Embedder
from deepemd.evaluation.intervals import MeanCI
from deepemd.matching import emd_logits, protonet_logits
from deepemd.nodes import efficientnet_lite0
from deepemd.versions import versions

ROOT = Path(__file__).parents[1]
CELLS: tuple[tuple[int, ...], ...] = ((7,), (5,), (4,), (3,), (2,), (3, 1))
CONTEXTS = (0.5, 1.0, 2.0)  # of the 3 x 3 cells
SETTINGS = ((5, 1, 600), (5, 5, 600), (16, 1, 200), (16, 5, 200))  # n_way, n_shot, n_episodes
QUERIES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a prepared data set, or a folder")
    parser.add_argument("--split", default="base")
    parser.add_argument("--layers", nargs="+", default=["head"])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "photos-choice.json")
    options = parser.parse_args()

    images = load(options.data).splits[options.split]
    taken = np.concatenate([np.flatnonzero(images.labels == k)[:50] for k in range(len(images.classes))])
    rows = []
    for layer in options.layers:
        mean, std = (127 / 255,) * 3, (128 / 255,) * 3
        model = DeepEMD(efficientnet_lite0(layer), FCN(), image_size=224, resize=224, mean=mean, std=std)
        rows_of = Embedder(model.eval()).stream([images.image(int(i)) for i in taken])
        nodes = torch.stack([one.nodes for one in rows_of if one.nodes is not None])  # (I, 49, C)
        for n_way, n_shot, count in SETTINGS:
            rows.append({"layer": layer, "n_way": n_way, "n_shot": n_shot, "episodes": count,
                         **compare(nodes, images.labels[taken], n_way, n_shot, count)})  # fmt: skip
            print(rows[-1], flush=True)
    report = {"data": images.fingerprint.as_dict(), "images": len(taken), "rows": rows, "versions": versions()}
    options.out.write_text(json.dumps(report, indent=1) + "\n")


def compare(nodes: Tensor, labels: np.ndarray, n_way: int, n_shot: int, count: int) -> dict[str, str]:
    """Accuracy of the better pooled cosine, and of every choice minus it, in % with 95 % intervals."""
    sampler = EpisodeSampler(labels, n_way=n_way, n_shot=n_shot, n_query=QUERIES, n_episodes=count, seed=0)
    truth = torch.arange(QUERIES * n_way) % n_way
    found: dict[str, list[float]] = {}
    for e in range(count):
        episode = sampler[e]
        query, shots = nodes[episode.query], nodes[episode.support].unflatten(0, (n_shot, n_way)).mean(0)
        logits = {"plain": protonet_logits(query, shots), "centred": protonet_logits(query, shots, centred=True)}
        logits |= {",".join(map(str, cells)): emd_logits(pooled(query, cells), pooled(shots, cells)) for cells in CELLS}
        q, s = pooled(query, (3,)), pooled(shots, (3,))
        logits |= {f"3, context {c:g}": emd_logits(q, s, context=c) for c in CONTEXTS}
        for name, its in logits.items():
            found.setdefault(name, []).append((its.argmax(-1) == truth).double().mean().item())
    values = {name: np.array(its) for name, its in found.items()}
    best = max((values.pop("plain"), values.pop("centred")), key=np.mean)
    gains = {name: MeanCI.of(its - best) for name, its in values.items()}
    told = {name: f"{100 * gain.mean:+.2f} ± {100 * gain.ci95:.2f}" for name, gain in gains.items()}
    return {"pooled cosine": str(MeanCI.of(best)), **told}


def pooled(nodes: Tensor, cells: tuple[int, ...]) -> Tensor:
    """Nodes (..., 49, C) of a 7 x 7 map averaged to coarser ones: (..., sum of the squares, C)."""
    maps = nodes.transpose(1, 2).unflatten(2, (7, 7))
    levels = torch.cat([F.adaptive_avg_pool2d(maps, side).flatten(2) for side in cells], dim=2)
    return levels.transpose(1, 2).contiguous()


if __name__ == "__main__":
    main()
