"""Time and memory of all that a user waits for, beside the reference's way of doing it, in one run.

    pip install -c constraints.txt ".[bench]"
    python benchmarks/compare.py            # about 15 minutes on two cores; writes benchmarks/results/compare.json

5-way 1-shot with 15 queries a class, ResNet-12 with random weights, 84 x 84 images, 25 nodes of 640 channels; the SFC
5-way 5-shot, 100 epochs. Each side of a row is measured in a process of its own, one after the other, and its memory is
the rise of the resident peak. What takes the reference hours is measured in part and scaled up. Machines are noisy:
compare the ratios of one run, not the seconds of two. `deepemd bench emd` times the solver alone.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import reference
import torch
import torch.nn.functional as F
from torch import Tensor

from deepemd import DeepEMD, emd_logits, resnet12
from deepemd.bench.measure import machine, peak_rise, seconds
from deepemd.data import EpisodeSampler
from deepemd.device import keep_freed_memory
from deepemd.evaluation.methods import choose
from deepemd.evaluation.scoring import score
from deepemd.matching import fit_prototypes
from deepemd.nodes import Memory
from deepemd.training.steps import sgd

RESULTS = Path(__file__).parent / "results" / "compare.json"
WAYS, QUERIES, IMAGES = 5, 75, 80
LABELS = torch.arange(QUERIES) % WAYS
NOVEL, EPISODES = 12_000, 5_000  # miniImageNet's novel images, and the paper's episodes
Side = dict[str, float | None]


def nodes(count: int, seed: int = 0) -> Tensor:
    """Node sets like those of ResNet-12: 25 nodes of 640 channels, non-negative."""
    return torch.randn(count, 25, 640, generator=torch.Generator().manual_seed(seed)).relu()


def images(count: int = IMAGES) -> Tensor:
    return torch.rand(count, 3, 84, 84, generator=torch.Generator().manual_seed(0))


def measured(work: Callable[[int], object], rounds: int, scale: float = 1.0) -> Side:
    """Median seconds of `rounds` calls, times `scale`, after one that does not count; and MB."""
    work(-1)
    times: list[float] = []
    mb = peak_rise(lambda: times.extend(seconds(lambda: work(k)) for k in range(rounds)))  # noqa: B023
    return {"seconds": scale * statistics.median(times), "mb": mb}


# --- the head ---------------------------------------------------------------------------------------------------------


def head(side: str, backward: bool) -> Side:
    logits = emd_logits if side == "ours" else reference.logits
    rounds = 20 if side == "ours" else 2
    episodes = [nodes(IMAGES, seed).split((QUERIES, WAYS)) for seed in range(rounds + 1)]  # fresh problems each round

    def work(seed: int) -> None:
        query, support = (t.detach().requires_grad_(backward) for t in episodes[seed + 1])
        found = logits(query, support)
        if backward:
            F.cross_entropy(found, LABELS).backward()

    return measured(work, rounds)


def sfc(side: str) -> Side:
    """Seconds an episode; ours takes eight at once, the reference's epochs are all alike: two of them, scaled."""
    labels, support = torch.arange(25) % 5, nodes(25) + nodes(5, 1)[torch.arange(25) % 5]
    if side == "reference":
        return measured(lambda _: reference.prototypes(support, labels, 2), 1, 50)
    several = torch.stack([support + 0.05 * nodes(25, 2 + k) for k in range(8)])
    return measured(lambda _: fit_prototypes(several, labels.expand(8, -1), n_way=5), 2, 1 / 8)


# --- evaluation -------------------------------------------------------------------------------------------------------


def episode(side: str) -> Side:
    """One episode: ours from embeddings that are there already, the reference's from its images."""
    if side == "reference":
        encoder = reference.Encoder(resnet12()).eval()
        with torch.inference_mode():
            return measured(lambda _: reference.episode_logits(encoder, images(), WAYS), 2)
    known, labels = nodes(1200), np.repeat(np.arange(20), 60)
    methods = choose("deepemd", DeepEMD(resnet12()), n_shot=1)

    def work(seed: int) -> None:
        score(known, EpisodeSampler(labels, n_episodes=100, seed=seed + 1), methods, quiet=True)

    return measured(work, 5, 1 / 100)


def evaluation(side: str) -> Side:
    """5,000 episodes of miniImageNet's size end to end: each image once, then the episodes; in part, scaled up."""
    each = episode(side)
    if side == "reference":
        return {"seconds": EPISODES * (each["seconds"] or 0), "mb": each["mb"]}
    model, batch = DeepEMD(resnet12()).eval(), images(128)  # as `embed` takes them
    keep_freed_memory()
    with torch.inference_mode():
        embedding = measured(lambda _: model.embed(batch), 3, NOVEL / len(batch))
    return {"seconds": (embedding["seconds"] or 0) + EPISODES * (each["seconds"] or 0), "mb": embedding["mb"]}


# --- meta-training ----------------------------------------------------------------------------------------------------


def step(side: str, memory: Memory = Memory()) -> Side:  # noqa: B008  (frozen)
    """A meta-training step of one episode: forward, backward and update; memory beyond weights and optimizer."""
    batch = images()
    if side == "ours" and memory == Memory():  # as in training
        keep_freed_memory()
    model = DeepEMD(resnet12()).train()
    encoder = reference.Encoder(resnet12()).train()
    optimizer = sgd(model if side != "reference" else encoder, 5e-4, 5e-4)
    for group in optimizer.param_groups:
        for weights in group["params"]:  # the momentum is there from the start
            optimizer.state[weights]["momentum_buffer"] = torch.zeros_like(weights)
            weights.grad = torch.zeros_like(weights)

    def logits() -> Tensor:
        if side == "reference":
            return reference.episode_logits(encoder, batch, WAYS)
        found = model.embed(batch, memory=memory)
        return model.match(found[:WAYS], found[WAYS:], WAYS)

    def work(_: int) -> None:
        optimizer.zero_grad(set_to_none=False)
        F.cross_entropy(logits(), LABELS).backward()
        optimizer.step()

    return measured(work, 3 if side == "ours" else 1)


ROWS: dict[str, Callable[[str], Side]] = {
    "head, forward": lambda side: head(side, backward=False),
    "head, forward and backward": lambda side: head(side, backward=True),
    "SFC of a 5-shot episode, 100 epochs": sfc,
    "one 1-shot episode": episode,
    "5,000 1-shot episodes, end to end": evaluation,
    "meta-training step": step,
    "meta-training step, checkpointed": lambda side: step(side, Memory(checkpoint=True)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.row:
        print(json.dumps(ROWS[options.row](options.side)))
        return
    result: dict = {"machine": machine(), "threads": options.threads, "rows": []}
    for name in ROWS:
        row: dict = {"what": name}
        for side in ("ours", "reference"):
            command = [sys.executable, __file__, "--row", name, "--side", side, "--threads", str(options.threads)]
            row[side] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        row["times_faster"] = row["reference"]["seconds"] / row["ours"]["seconds"]
        if row["ours"]["mb"]:
            row["times_less_memory"] = row["reference"]["mb"] / row["ours"]["mb"]
        result["rows"].append(row)
        print(json.dumps(row), flush=True)
    ours = {row["what"]: row["ours"]["seconds"] for row in result["rows"]}
    result["share_of_the_head_in_a_step"] = ours["head, forward and backward"] / ours["meta-training step"]
    result["episodes_per_second"] = 1 / ours["one 1-shot episode"]
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(options.out)


if __name__ == "__main__":
    main()
