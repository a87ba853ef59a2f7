"""Does torch.compile pay? The encoders' forward and backward pass, compiled beside plain, in turns.

python benchmarks/compile.py           # some minutes, most of them compiling; adds to benchmarks/results/compile.json
"""

import argparse
import json
import statistics
from pathlib import Path

import torch
from torch import nn

from deepemd import conv4, resnet12
from deepemd.bench.measure import machine, ratios, seconds
from deepemd.device import choose_device, keep_freed_memory

RESULTS = Path(__file__).parent / "results" / "compile.json"
ROUNDS = 7
ENCODERS = {  # and images of a step
    "conv4": (conv4, 64),
    "resnet12, narrow": (lambda: resnet12((32, 64, 160, 320), space_to_depth=2), 64),
    "resnet12": (resnet12, 16),
}


def passes(encoder: nn.Module, count: int, device: str, bf16: bool) -> float:
    """Seconds of one forward and backward pass."""
    images = torch.rand(count, 3, 84, 84, device=device).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        encoder.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            maps = encoder(images)
        maps.float().square().mean().backward()
        if device == "cuda":
            torch.cuda.synchronize()

    return seconds(step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS), choices=ENCODERS)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    device = choose_device()
    keep_freed_memory()
    result = json.loads(options.out.read_text()) if options.out.exists() else {"rows": {}}
    for name in options.encoders:
        make, count = ENCODERS[name]
        torch.manual_seed(0)
        plain = make().to(device, memory_format=torch.channels_last).train()
        compiled = make().to(device, memory_format=torch.channels_last).train()
        compiled.compile()
        first = passes(compiled, count, device, options.bf16)
        passes(plain, count, device, options.bf16)
        times = [[passes(one, count, device, options.bf16) for one in (plain, compiled)] for _ in range(ROUNDS)]
        before, after = zip(*times, strict=True)
        row = {
            "images": count,
            "plain seconds": statistics.median(before),
            "compiled seconds": statistics.median(after),
            "times faster": ratios(before, after),
            "seconds of the first compiled": first,
            "threads": torch.get_num_threads(),
            "machine": machine(),
        }
        result["rows"][f"{name} {device}{' bf16' * options.bf16}"] = row
        print(name, json.dumps(row), flush=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
