"""What a GPU does with it: the transport, and training steps by way of nodes and number format.

    python benchmarks/gpu.py               # a minute on a large GPU; writes benchmarks/results/gpu.json

Images are noise: no time here depends on what is in them but for the transport's, whose problems are those of a network
with random weights. Peaks are the allocator's, beyond weights, gradients and optimizer. The head's time is that of
its forward and backward pass on nodes that are there; the transport is solved on the processor.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepemd import FCN, DeepEMD, emd, resnet12
from deepemd.bench.measure import machine
from deepemd.data.augment import Augment
from deepemd.nodes import Memory, parse_regions
from deepemd.training.batches import Batch
from deepemd.training.pretrain import Pretraining
from deepemd.training.recipes import PretrainRecipe
from deepemd.training.steps import sgd

RESULTS = Path(__file__).parent / "results" / "gpu.json"
WAYS, IMAGES, BATCH = 5, 80, 128
CASES = [
    ("fcn", False, Memory()),
    ("fcn", True, Memory()),
    ("fcn", True, Memory(checkpoint=True)),
    ("grid:3,2", False, Memory()),
    ("grid:3,2", True, Memory()),
    ("sampling:9", False, Memory()),
    ("sampling:9", True, Memory()),
    ("sampling:16", True, Memory()),
    ("sampling:25", True, Memory()),
    ("sampling:25", True, Memory(checkpoint=True)),
    ("sampling:25", True, Memory(chunk=256, freeze_batch_norm=True)),
    ("grid:5,3,2", True, Memory(checkpoint=True)),
]


def median(work: Callable[[], object], rounds: int) -> float:
    """Seconds, after two calls that do not count."""
    times = []
    for k in range(rounds + 2):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times += [time.perf_counter() - began] * (k > 1)
    return statistics.median(times)


def transport() -> dict[str, float]:
    """375 problems of 25 x 25 on the GPU's tensors beside the processor's: the largest differences, and seconds."""
    draw = torch.Generator().manual_seed(0)
    inputs = [torch.rand(size, generator=draw) for size in ((375, 25, 25), (375, 25), (375, 25))]
    inputs[1:] = [x / x.sum(-1, keepdim=True) for x in inputs[1:]]

    def solve(device: str) -> list[Tensor]:
        cost, a, b = (x.to(device).requires_grad_() for x in inputs)
        value = emd(cost, a, b).value
        return [value.detach(), *torch.autograd.grad(value.sum(), (cost, a, b))]

    here, there = solve("cpu"), [x.cpu() for x in solve("cuda")]
    names = ("value", "cost", "a", "b")
    found = {name: float((x - y).abs().max()) for name, x, y in zip(names, here, there, strict=True)}
    return {f"difference of {name}": value for name, value in found.items()} | {
        "seconds on cpu": median(lambda: solve("cpu"), 20),
        "seconds on cuda": median(lambda: solve("cuda"), 20),
    }


def episode(regions: str, bf16: bool, memory: Memory) -> dict[str, Any]:
    """A meta-training step of one 5-way 1-shot episode with 15 queries a class."""
    model = DeepEMD(resnet12(), parse_regions(regions)).cuda().train()
    images = torch.randint(0, 256, (IMAGES, 3, 84, 84), dtype=torch.uint8, device="cuda")
    boxes = None
    if not isinstance(model.regions, FCN):
        boxes = torch.from_numpy(model.regions.boxes([(84, 84)] * IMAGES, seed=0, training=True)).cuda()
    optimizer = sgd(model, 5e-4, 5e-4)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # makes its state
    labels = torch.arange(IMAGES - WAYS, device="cuda") % WAYS

    def loss(nodes: Tensor) -> Tensor:
        return F.cross_entropy(model.match(nodes[:WAYS], nodes[WAYS:], WAYS), labels)

    def embed() -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            return model.embed(images, boxes, memory=memory)

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        loss(embed()).backward()
        optimizer.step()

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    row: dict[str, Any] = {"regions": regions, "bf16": bf16, "memory": memory.summary}
    try:
        step()
        row["gb"] = (torch.cuda.max_memory_allocated() - before) / 1e9
        row["seconds"] = median(step, 3)
        with torch.no_grad():
            nodes = embed()
    except torch.OutOfMemoryError:
        return row | {"gb": None}
    nodes = nodes.detach().requires_grad_()
    row["seconds of the head"] = median(lambda: loss(nodes).backward(), 5)
    return row | {"share of the head": row["seconds of the head"] / row["seconds"]}


def pretraining() -> dict[str, Any]:
    """A step of pre-training on 128 images in bfloat16, augmentation and optimizer counted."""
    recipe = PretrainRecipe(batch_size=BATCH)
    task = Pretraining(recipe.model.build(), 64, recipe, 1).cuda().train()
    task.augments = nn.ModuleList([Augment(84)])
    optimizer = sgd(task, 0.1, 5e-4)
    images = torch.randint(0, 256, (BATCH, 3, 92, 92), dtype=torch.uint8)
    labels = torch.arange(BATCH, device="cuda") % 64

    def step() -> None:
        optimizer.zero_grad()
        seen = task.augment(Batch(0, 0, images.cuda(), labels))
        with torch.autocast("cuda", torch.bfloat16):
            loss, _ = task(seen)
        loss.backward()
        optimizer.step()

    began = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return {"seconds of the first": time.perf_counter() - began, "seconds": median(step, 20)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--parts", default="transport,pretraining,episodes", help="which, with commas")
    options = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    result = json.loads(options.out.read_text()) if options.out.exists() else {}
    result |= {"machine": machine(), "device": torch.cuda.get_device_name(), "torch": torch.__version__}

    def keep(name: str, found: Any, *, among: bool = False) -> None:
        print(name, json.dumps(found), flush=True)
        result[name] = [*result[name], found] if among else found
        options.out.write_text(json.dumps(result, indent=1) + "\n")

    for part in options.parts.split(","):
        if part == "transport":
            keep(part, transport())
        elif part == "pretraining":
            keep(part, pretraining())
        elif part == "episodes":
            keep(part, [])
            for case in CASES:
                keep(part, episode(*case), among=True)
        else:
            parser.error(f"--parts: there is no {part!r}; choose from transport, pretraining, episodes")


if __name__ == "__main__":
    main()
