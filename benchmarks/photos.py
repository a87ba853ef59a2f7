"""How far a classifier of five photos a class can be trusted: its probabilities, and what it calls unknown.

    python benchmarks/photos.py DATA --split val

Episodes of 5 classes with 5 photos each, over the classes of a split. Of each, the classifier's own calibration is
made (every photo of the support set classified by the others), then 15 queries a class are classified, and 75 photos of
other classes. The temperature fitted so is compared with a fixed one. Writes benchmarks/results/photos.json and
docs/pictures/reliability.png.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepemd.classifier.calibration import TEMPERATURE, fit_temperature, unknown_threshold
from deepemd.classifier.support import Support
from deepemd.data import EpisodeSampler, load
from deepemd.embedding.splits import embed
from deepemd.explain.plots import new_figure, save_figure
from deepemd.model.pretrained import pretrained
from deepemd.versions import versions

ROOT = Path(__file__).parents[1]
WAYS, SHOTS, QUERIES, SHARE = 5, 5, 15, 0.05


def expected_error(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = 15) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy over bins of confidence."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(confidence[place == k].sum() - right[place == k].sum()) for k in range(bins)]
    return float(np.sum(gaps) / len(right))


def area(known: NDArray[np.float64], unknown: NDArray[np.float64]) -> float:
    """Probability that a known image scores higher than an unknown one (the area under the ROC curve)."""
    order = np.concatenate((known, unknown)).argsort(kind="stable").argsort()
    return float((order[: len(known)].sum() - len(known) * (len(known) - 1) / 2) / (len(known) * len(unknown)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a prepared data set, or a folder")
    parser.add_argument("--split", default="val")
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--images", type=int, default=100, help="of each class, that are embedded")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "photos.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "pictures" / "reliability.png")
    options = parser.parse_args()

    torch.manual_seed(0)
    model, images = pretrained(), load(options.data).splits[options.split]
    labels = images.labels
    taken = np.concatenate([np.flatnonzero(labels == k)[: options.images] for k in range(len(images.classes))])
    nodes, labels = embed(model, images, taken).half().float(), labels[taken]  # (I, N, C)
    sampler = EpisodeSampler(labels, n_way=WAYS, n_shot=SHOTS, n_query=QUERIES, n_episodes=options.episodes, seed=0)
    truth = np.arange(WAYS * QUERIES) % WAYS
    rng = np.random.default_rng(0)
    temperatures, best, crossed = [], [], {"known": [], "unknown": []}
    seen: dict[str, list[NDArray[np.float64]]] = {"similarity": [], "others": []}
    for e in range(options.episodes):
        episode = sampler[e]
        support = of(nodes[episode.support])
        which, left_out = support.leave_one_out(model)
        own = support.labels[which]
        temperatures.append(fit_temperature(left_out, own))
        threshold = unknown_threshold(left_out.gather(1, own[:, None])[:, 0], SHARE)
        similarity = support.similarities(model, nodes[episode.query])
        best.append(fit_temperature(similarity, torch.from_numpy(truth)))
        strangers = np.flatnonzero(~np.isin(labels, episode.classes))
        others = support.similarities(model, nodes[rng.choice(strangers, WAYS * QUERIES, replace=False)])
        seen["similarity"].append(similarity.numpy())
        seen["others"].append(others.numpy())
        crossed["known"].append((similarity.amax(1) < threshold).double().mean().item())
        crossed["unknown"].append((others.amax(1) < threshold).double().mean().item())

    similarity, others = (np.stack(seen[name]) for name in ("similarity", "others"))  # (E, Q, M)
    report, curves = {}, {}
    for name, t in {
        "fitted": np.array(temperatures),
        "fixed": np.array([TEMPERATURE]),
        "12.5": np.array([12.5]),
    }.items():
        proba = torch.from_numpy(t[:, None, None] * similarity).softmax(-1).numpy()
        confidence, right = proba.max(-1).ravel(), (proba.argmax(-1) == truth).ravel()
        stranger = torch.from_numpy(t[:, None, None] * others).softmax(-1).numpy().max(-1).ravel()
        likelihood = -np.log(
            np.take_along_axis(proba, np.broadcast_to(truth[:, None], (*proba.shape[:2], 1)), -1)
        ).mean()
        report[name] = {
            "temperature": float(np.median(t)),
            "expected calibration error": expected_error(confidence, right),
            "negative log likelihood": float(likelihood),
            "area, probability": area(confidence, stranger),
        }
        curves[name] = confidence, right
    report = {
        "data": images.fingerprint.as_dict(),
        "images": len(taken),
        "episodes": f"{options.episodes} of {WAYS}-way {SHOTS}-shot",
        "accuracy": float((similarity.argmax(-1) == truth).mean()),
        "temperatures": report,
        "best temperature of each episode's queries": {
            "median": float(np.median(best)), "deviation of the logarithm": float(np.log(best).std()),
        },
        "unknown": {
            "share asked for": SHARE,
            "known called unknown": float(np.mean(crossed["known"])),
            "other classes called unknown": float(np.mean(crossed["unknown"])),
            "area, similarity": area(similarity.max(-1).ravel(), others.max(-1).ravel()),
        },
        "versions": versions(),
    }  # fmt: skip
    options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    draw(curves, options.picture)


def of(nodes: Tensor) -> Support:
    """A support set of an episode's photos, (K, N, C), shot by shot."""
    from deepemd.classifier.support import Example

    labels = [k % WAYS for k in range(len(nodes))]
    examples = [Example(str(k), k, b"", (1, 1)) for k in range(len(nodes))]
    return Support.empty(*nodes.shape[1:]).added(list(nodes), labels, examples, classes=WAYS)


def draw(curves: dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]], path: Path) -> None:
    """Accuracy against confidence, in bins of a tenth; below, how many predictions have that confidence."""
    figure = new_figure(4.6, 4.6)
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1)})
    upper.plot([0.2, 1], [0.2, 1], color="0.7", linewidth=1)
    for (name, (confidence, right)), colour in zip(curves.items(), ("#00798c", "#d1495b", "#b58900"), strict=True):
        if name == "fixed":
            continue
        told = {"fitted": "temperature fitted to the support set", "12.5": "temperature 12.5"}[name]
        place = np.minimum((confidence * 10).astype(int), 9)
        bins = [k for k in range(10) if (place == k).sum() >= 20]
        x, y = ([values[place == k].mean() for k in bins] for values in (confidence, right))
        upper.plot(x, y, "o-", color=colour, markersize=4, label=told)
        lower.step(
            np.arange(11) / 10, np.append(np.bincount(place, minlength=10), 0) / len(place), where="post", color=colour
        )
    upper.set(ylabel="accuracy", ylim=(0.15, 1.02))
    upper.legend(fontsize=8, frameon=False)
    lower.set(xlabel="probability of the label", ylabel="share", xlim=(0.15, 1.02))
    figure.tight_layout()
    save_figure(figure, path)


if __name__ == "__main__":
    main()
