"""Photos of new classes: DeepEMD on adapted nodes beside pooled embeddings, on episodes of real photos.

    python benchmarks/photos.py FOLDER --half 1 --out benchmarks/results/photos-grocery.json
    python benchmarks/photos.py MINIIMAGENET/val --per-class 30 --out benchmarks/results/photos-val.json

FOLDER holds a folder of photos for each class. `--half 0` and `--half 1` take every second class: settings are chosen
on the first half and reported on the second. `--crop 0.6` keeps the middle of each photo, so that things fill it. Where
there are further classes, photos of them show how many the unknown test recognises. `--picture` draws how well the
probabilities of the five-shot episodes fit. All methods see the same nodes of the same episodes; "pooled" methods see
the mean of an image's nodes, of length 1.
"""

import argparse
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from deepemd.classifier.adaptation import Head, Setting, adapted
from deepemd.classifier.calibration import fit_temperature
from deepemd.classifier.support import Example, Support
from deepemd.classifier.trust import Trust
from deepemd.data.decoding import decode
from deepemd.data.photos import class_photos
from deepemd.embedding.cache import default_cache
from deepemd.embedding.stream import Embedder
from deepemd.evaluation.intervals import MeanCI
from deepemd.explain.plots import new_figure, save_figure
from deepemd.matching import ridge_logits, whiten
from deepemd.model.pretrained import pretrained
from deepemd.nodes import MultiScale, power_transform
from deepemd.versions import versions

_STRANGERS = 30  # photos of other classes in an episode


def images(source: Path, half: int | None, per_class: int | None, crop: float) -> tuple[list[Any], np.ndarray]:
    """Return the photos and their labels."""
    photos = class_photos(source)
    labels = np.unique(photos.labels, return_inverse=True)[1]
    chosen = np.concatenate([np.flatnonzero(labels == c)[:per_class] for c in np.unique(labels)])
    found, labels = [photos.files[k] for k in chosen], labels[chosen]
    if half is not None:
        mine = np.flatnonzero(labels % 2 == half)
        found, labels = [found[k] for k in mine], np.unique(labels[mine], return_inverse=True)[1]
    if crop < 1:
        found = [_middle(one, crop) for one in found]
    return found, labels


def _middle(one: Any, share: float) -> Image.Image:
    picture = decode(one, str(one)) if isinstance(one, Path) else one
    w, h = (round(side * share) for side in picture.size)
    left, top = (picture.width - w) // 2, (picture.height - h) // 2
    return picture.crop((left, top, left + w, top + h))


def episodes(labels: np.ndarray, way: int, shot: int, query: int, count: int, seed: int) -> Iterator[Any]:
    """Yield photos of other classes, and the shots, queries and classes of each episode."""
    places = {c: np.flatnonzero(labels == c) for c in np.unique(labels)}
    for e in range(count):
        rng = np.random.default_rng((seed, e))
        chosen = [rng.permutation(places[c])[: shot + query] for c in rng.permutation(list(places))[:way]]
        others = np.flatnonzero(~np.isin(labels, labels[np.concatenate(chosen)]))
        yield (
            rng.permutation(others)[:_STRANGERS],
            np.concatenate([c[:shot] for c in chosen]),
            np.concatenate([c[shot:] for c in chosen]),
            torch.arange(way).repeat_interleave(shot),
            torch.cat([torch.full((len(c) - shot,), w) for w, c in enumerate(chosen)]),
        )


def support_of(nodes: Tensor, labels: Tensor, sizes: list[tuple[int, int]]) -> Support:
    """Return the support set of a classifier."""
    examples = [Example("", 0, b"", size) for size in sizes]
    return Support.empty(*nodes.shape[1:]).added(list(nodes), labels.tolist(), examples, classes=int(labels.max()) + 1)


def pooled(raw: Tensor, root: bool) -> Tensor:
    """Return the mean node of each image, of length 1, as one node: (K, 1, C)."""
    nodes = power_transform(raw, 0.5) if root else raw
    return F.normalize(nodes.mean(1, keepdim=True), dim=-1)


def opponents(shots: Tensor, labels: Tensor, query: Tensor, way: int, name: str) -> dict[str, Tensor]:
    """Return the logits of classifiers of pooled embeddings, (Q, 1, C) each."""
    means = torch.stack([shots[labels == w, 0].mean(0) for w in range(way)])
    centred = [F.normalize(x - x.mean(-1, keepdim=True), dim=-1) for x in (query[:, 0], means)]
    found = {f"pooled centred cosine{name}": centred[0] @ centred[1].T}
    for penalty in (0.1, 0.3):
        found[f"pooled ridge {penalty}{name}"] = ridge_logits(query, shots, labels, n_way=way, penalty=penalty)
    if len(labels) > way:
        w = whiten(shots, labels, n_way=way, shrinkage=0.3)
        sides = [F.normalize(w(x)[:, 0], dim=-1) for x in (query, means[:, None])]
        found[f"pooled whitened cosine{name}"] = sides[0] @ sides[1].T
    for c in (10, 100):
        fitted = LogisticRegression(C=c, max_iter=300).fit(shots[:, 0].numpy(), labels.numpy())
        found[f"pooled logistic regression {c}{name}"] = torch.from_numpy(fitted.decision_function(query[:, 0].numpy()))
    return found


class Scores:
    """Accuracies of methods, and the calibration of the classifier."""

    def __init__(self) -> None:
        self.right: dict[str, list[float]] = {}
        self.confidence: list[tuple[float, bool]] = []
        self.covered: dict[float, list[tuple[bool, int]]] = {0.9: [], 0.95: []}
        self.left_out: list[float] = []
        self.unknown: list[tuple[float, float]] = []
        self.temperatures: dict[str, list[float]] = {}

    def add(self, logits: dict[str, Tensor], labels: Tensor) -> None:
        for name, one in logits.items():
            self.right.setdefault(name, []).append(100 * (one.argmax(1) == labels).double().mean().item())
            if name.startswith("DeepEMD"):
                self.temperatures.setdefault(name, []).append(fit_temperature(one, labels, prior=20.0))

    def trust(self, trust: Trust, similarity: Tensor, labels: Tensor, strangers: Tensor) -> None:
        least = trust.familiar_from(0.05)
        if len(strangers) and least > -torch.inf:
            refused = [float((x.amax(1) < least).double().mean()) for x in (similarity, strangers)]
            self.unknown.append((100 * refused[0], 100 * refused[1]))
        p = (trust.temperature * similarity).softmax(1)
        self.confidence += zip(p.amax(1).tolist(), (p.argmax(1) == labels).tolist(), strict=True)
        own = p.gather(1, labels[:, None])[:, 0]
        for coverage, rows in self.covered.items():
            least = trust.set_from(coverage, trust.temperature)
            if least > -torch.inf:
                inside = (p >= least) | (p == p.amax(1, keepdim=True))
                rows += zip(((own >= least) | (own == p.amax(1))).tolist(), inside.sum(1).tolist(), strict=True)
        if len(trust.which):
            self.left_out.append(100 * (trust.similarity.argmax(1) == trust.labels).double().mean().item())

    def summary(self) -> dict[str, Any]:
        ours, rows = np.array(self.right["DeepEMD (auto)"]), {}
        for name, values in self.right.items():
            one, gain = MeanCI.of(np.array(values)), MeanCI.of(ours - np.array(values))
            rows[name] = {"accuracy": one.mean, "ci95": one.ci95, "auto is ahead by": gain.mean, "its ci95": gain.ci95}
        p, right = (np.array(x) for x in zip(*self.confidence, strict=True))
        bins = np.clip((p * 15).astype(int), 0, 14)
        error = sum((bins == b).mean() * abs(p[bins == b].mean() - right[bins == b].mean()) for b in np.unique(bins))
        sets = {
            str(coverage): {"covered": 100 * float(np.mean(inside)), "classes": float(np.mean(classes))}
            for coverage, found in self.covered.items()
            for inside, classes in [zip(*found, strict=True)] * bool(found)
        }
        return {
            "rows": rows,
            "calibration error": 100 * float(error),
            "sets": sets,
            "unknown of known and other classes": np.mean(self.unknown, axis=0).tolist() if self.unknown else None,
            "left out": float(np.mean(self.left_out)) if self.left_out else None,
            "temperatures": {name: float(np.median(values)) for name, values in self.temperatures.items()},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--half", type=int)
    parser.add_argument("--per-class", type=int)
    parser.add_argument("--crop", type=float, default=1.0)
    parser.add_argument("--episodes", type=int, nargs=2, default=(60, 30), help="for one and for five shots")
    parser.add_argument("--ways", type=int, nargs="+", default=(5, 20))
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    photos, labels = images(args.source, args.half, args.per_class, args.crop)
    model = pretrained(regions=MultiScale(tuple(args.sizes)) if args.sizes else None)
    power, model.power = model.power, None
    began = time.perf_counter()
    rows = list(Embedder(model, default_cache()).stream(photos, side=lambda _: 32))
    raw = torch.stack([row.nodes for row in rows])
    model.power = power
    nodes, sizes = power_transform(raw, power), [row.size for row in rows]
    print(f"{len(photos)} photos, {labels.max() + 1} classes, {time.perf_counter() - began:.0f} s", flush=True)
    curves: dict[str, Scores] = {}
    result: dict[str, Any] = {"source": args.source.name, "half": args.half, "crop": args.crop}
    result |= {"sizes": model.regions.sizes, "versions": versions()}
    for way in sorted({min(way, int(labels.max()) + 1) for way in args.ways}):
        for shot, count in zip((1, 5), args.episodes, strict=True):
            scores = Scores()
            for others, shots, query, y, yq in episodes(labels, way, shot, 6, count, args.seed):
                support = support_of(nodes[shots], y, [sizes[k] for k in shots])
                found = adapted(model, support, "auto")
                head = Head.fit(model, support, found.setting)
                similarity = head.similarities(nodes[query])
                logits = {"DeepEMD (auto)": similarity}
                trust = Trust(found.which, found.similarity, y[found.which], found.setting.way, "")
                scores.trust(trust, similarity, yq, head.similarities(nodes[others]) if len(others) else nodes[:0, 0])
                for one in [Setting(w, s) for s in (False, True) for w in ("whiten", "ridge", "none")]:
                    logits[f"DeepEMD ({one.name})"] = Head.fit(model, support, one).similarities(nodes[query])
                for root in (True, False):
                    pair = pooled(raw[shots], root), pooled(raw[query], root)
                    logits |= opponents(pair[0], y, pair[1], way, ", roots" if root else "")
                scores.add(logits, yq)
            result[f"{way}-way {shot}-shot"] = scores.summary()
            print(f"\n{way}-way {shot}-shot")
            _print(result[f"{way}-way {shot}-shot"])
            if shot == 5:
                curves[f"{way}-way, accuracy {scores.summary()['rows']['DeepEMD (auto)']['accuracy']:.1f} %"] = scores
    if args.picture:
        draw(curves, args.picture)
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


def draw(curves: dict[str, Scores], path: Path) -> None:
    """Draw accuracy against probability."""
    figure = new_figure(4.2, 3.6)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, label="perfect")
    for name, scores in curves.items():
        p, right = (np.array(x) for x in zip(*scores.confidence, strict=True))
        bins = np.clip((p * 10).astype(int), 0, 9)
        shown = [b for b in range(10) if (bins == b).sum() >= 20]
        points = [(p[bins == b].mean(), right[bins == b].mean()) for b in shown]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
    axes.set(xlabel="probability of the label", ylabel="share of right labels", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def _print(found: dict[str, Any]) -> None:
    text = io.StringIO()
    for name, row in found["rows"].items():
        ahead = f"{row['auto is ahead by']:+6.2f} ± {row['its ci95']:.2f}"
        text.write(f"  {name:45} {row['accuracy']:6.2f} ± {row['ci95']:.2f}   {ahead}\n")
    text.writelines(f"  {key}: {value}\n" for key, value in found.items() if key != "rows")
    print(text.getvalue(), flush=True)


if __name__ == "__main__":
    main()
