"""Time the SFC (`fit_prototypes`) beside the reference's way of fitting it, in one run.

    pip install -c constraints.txt ".[bench]"
    python benchmarks/sfc.py             # minutes; writes benchmarks/results/sfc.json

An episode is 5-way 5-shot: 100 epochs in mini-batches of 4 are 700 steps and 12,500 transport problems. Node sets are
25 x 640 and 25 x 64, of a ResNet-12 and a conv4 with random weights over random images, a smooth pattern for each
class. Both ways take the same features on the same number of threads, in turn. Ours runs all 100 epochs, the
reference's way 2, or 5 with 64 channels: its epochs are all alike, and its time is scaled to 100. Measure on a quiet
machine: the reference's way loses much more to other work than ours, and the ratios grow to several times what they
are. `load_before` in the report tells, and so do processor seconds, which other work inflates less.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from reference import prototypes
from torch import Tensor

from deepemd.bench.measure import machine, ratios, summary, threads
from deepemd.matching import fit_prototypes
from deepemd.nodes import FCN, Conv4, ResNet12, conv4, resnet12

RESULTS = Path(__file__).parent / "results" / "sfc.json"
BACKBONES: dict[str, Callable[[], Conv4 | ResNet12]] = {"resnet12": resnet12, "conv4": conv4}
EPISODES = (1, 8, 32)
LABELS = torch.arange(25) % 5


def features(backbone: str) -> Tensor:
    """The shots of an episode: (25, 25, C), non-negative as a real encoder's, images of a class alike."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    coarse = torch.randn(5, 3, 6, 6, generator=generator)[LABELS] + 0.7 * torch.randn(25, 3, 6, 6, generator=generator)
    images = F.interpolate(coarse, (84, 84), mode="bicubic") + 0.3 * torch.randn(25, 3, 84, 84, generator=generator)
    with torch.inference_mode():
        nodes = FCN()(BACKBONES[backbone](), images)  # batch norm still in training mode: it scales as a trained one
    return nodes.clone()


def several(shots: Tensor, episodes: int) -> Tensor:
    """(E, 25, 25, C): the same shots with their channels in another order, and a little noise: other problems each."""
    generator, channels = torch.Generator().manual_seed(1), shots.shape[-1]
    mixed = torch.stack([shots[..., torch.randperm(channels, generator=generator)] for _ in range(episodes)])
    return mixed + 0.05 * shots.std() * torch.randn(mixed.shape, generator=generator)


def timed(work: Callable[[], object], scale: float) -> tuple[float, float]:
    """Seconds on the clock and seconds of processors, each times `scale`."""
    wall, busy = time.perf_counter(), time.process_time()
    work()
    return scale * (time.perf_counter() - wall), scale * (time.process_time() - busy)


def bench(backbone: str, rounds: int) -> dict:
    """One backbone: seconds an episode of 100 epochs, ours in calls of 1, 8 and 32 episodes, and the reference's."""
    shots = features(backbone)
    calls = {count: several(shots, count) for count in EPISODES}
    theirs_epochs = 2 if backbone == "resnet12" else 5
    for support in calls.values():
        fit_prototypes(support, LABELS.expand(len(support), -1), n_way=5, epochs=1)  # compiled
    prototypes(shots, LABELS, 1)
    theirs: list[tuple[float, float]] = []
    ours: dict[int, list[tuple[float, float]]] = {count: [] for count in EPISODES}
    for _ in range(rounds):
        theirs.append(timed(lambda: prototypes(shots, LABELS, theirs_epochs), 100 / theirs_epochs))
        for count, support in calls.items():

            def fit(support: Tensor = support, count: int = count) -> Tensor:
                return fit_prototypes(support, LABELS.expand(count, -1), n_way=5)

            ours[count].append(timed(fit, 1 / count))
    result: dict = {"backbone": backbone, "channels": shots.shape[-1], "reference": _times(theirs), "ours": []}
    for count, times in ours.items():
        faster = [ratios([t[k] for t in theirs], [t[k] for t in times]) for k in (0, 1)]
        row = {"episodes": count, **_times(times), "times_faster": faster[0], "times_less_processor": faster[1]}
        result["ours"].append(row)
        print(
            f"{backbone}, {count} at once: {row['seconds']['median']:.2f} s an episode, reference "
            f"{result['reference']['seconds']['median']:.0f} s: x {faster[0]['median']:.0f} "
            f"(processor seconds: x {faster[1]['median']:.0f})",
            flush=True,
        )
    return result


def _times(pairs: list[tuple[float, float]]) -> dict:
    wall, busy = zip(*pairs, strict=True)
    return {"seconds": summary(wall), "processor_seconds": summary(busy)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with threads(options.threads):
        result: dict = {"machine": machine(), "threads": options.threads, "epochs": 100, "steps": 700}
        result["rows"] = [bench(backbone, options.rounds) for backbone in BACKBONES]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(options.out)


if __name__ == "__main__":
    main()
