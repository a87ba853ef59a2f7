"""Peak memory and time of a meta-training step of ResNet-12 (5-way 1-shot, 15 queries a class) by memory setting.

    python benchmarks/memory.py            # hours on few cores: --rows picks; adds to benchmarks/results/memory.json
    python benchmarks/memory.py --rows 0,1

Each case runs in a new process on the CPU, which must not grow past a limit. The peak is that of resident memory beyond
what is there once weights and optimizer are. Patches are measured on fewer images: with chunks, what more of them take
is their pixels, which is added (`gb`) to what was measured (`measured_gb`). On a GPU see gpu.py.
"""

import argparse
import json
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from deepemd import FCN, DeepEMD, resnet12
from deepemd.bench.measure import machine, seconds
from deepemd.data import EpisodeSampler, load
from deepemd.device import keep_freed_memory
from deepemd.embedding.views import View, view
from deepemd.nodes import Memory, parse_regions
from deepemd.training.batches import episode_batches
from deepemd.training.estimate import estimate
from deepemd.training.steps import sgd

RESULTS = Path(__file__).parent / "results" / "memory.json"
WAY, QUERIES = 5, 15
ALL = WAY * (1 + QUERIES)
CHUNKED = Memory(chunk=64, freeze_batch_norm=True)
# regions, settings, images of the step that is measured; 0 where only the estimate is given
ROWS: list[tuple[str, Memory, int]] = [
    ("fcn", Memory(), ALL),
    ("fcn", Memory(checkpoint=True), ALL),
    ("fcn", Memory(chunk=16, freeze_batch_norm=True), ALL),
    *[
        row
        for regions, images in (("grid:5,3,2", 2), ("sampling:9", 8), ("sampling:16", 5), ("sampling:25", 3))
        for row in (
            (regions, Memory(), 0),
            (regions, Memory(checkpoint=True), 0),
            (regions, CHUNKED, images),
            (regions, Memory(chunk=16, freeze_batch_norm=True), images),
        )
    ],
]


def measure(index: int, limit: float) -> dict[str, Any]:
    """One row, in this process."""
    regions, memory, images = ROWS[index]
    if memory == Memory():  # as in training
        keep_freed_memory()
    resource.setrlimit(resource.RLIMIT_DATA, (int(limit * 1e9), int(limit * 1e9)))
    model = DeepEMD(resnet12(), parse_regions(regions)).train()
    each = 1 if isinstance(model.regions, FCN) else model.regions.patches
    told = {n: estimate(model, memory, n, n_way=WAY) for n in (ALL, images) if n}
    row: dict[str, Any] = {
        "regions": regions,
        "memory": asdict(memory),
        "squares": told[ALL].squares,
        "estimated_gb": told[ALL].total / 1e9,
    }
    if not images:
        return row
    base = load("miniimagenet").splits["base"]
    sampler = EpisodeSampler(base.labels, WAY, 1, QUERIES, n_episodes=1, seed=0)
    batch = episode_batches(lambda i, seed: view(model, base, i, seed=seed, training=True), sampler, 1).make(0, 0)
    seen = View(*(None if part is None else part[:images] for part in (batch.images, batch.boxes)))
    way = min(WAY, images - 1)
    optimizer = sgd(model, 5e-4, 5e-4)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # makes its state
    optimizer.zero_grad()

    def step() -> None:
        nodes = model.embed(*seen, memory=memory)
        logits = model.match(nodes[:way], nodes[way:], way, query_chunk=memory.query_chunk)
        F.cross_entropy(logits, torch.arange(len(logits)) % way).backward()
        optimizer.step()

    pages = int(Path("/proc/self/statm").read_text().split()[1])
    before = pages * resource.getpagesize()
    took = seconds(step)
    measured = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    more = (told[ALL].squares - told[images].squares) * 3 * model.image_size**2 * 4
    return row | {
        "measured_squares": images * each,
        "measured_gb": measured / 1e9,
        "measured_estimate_gb": told[images].total / 1e9,
        "gb": (measured + more) / 1e9,
        "seconds": took,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Measure the rows that are asked for, each in a process of its own, and put them into the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default=",".join(map(str, range(len(ROWS)))), help="numbers of ROWS")
    parser.add_argument("--limit", type=float, default=8.0, help="GB that a process may take")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(int(options.rows), options.limit)))
        return
    for index in options.rows.split(","):
        command = [sys.executable, __file__, "--child", "--rows", index, "--limit", str(options.limit)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            print(f"row {index}: ended with {done.returncode}, its message is above; it may not fit", file=sys.stderr)
            continue
        row = json.loads(done.stdout)
        key = f"{row['regions']} {', '.join(f'{k}={v}' for k, v in row['memory'].items() if v) or 'plain'} cpu"
        rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else {}
        rows[key] = row
        print(key, json.dumps(row))
        RESULTS.write_text(json.dumps({"machine": machine(), "limit_gb": options.limit, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
