"""Every way to get nodes, 1-shot and 5-shot, on miniImageNet's validation classes, from one checkpoint.

    python benchmarks/miniimagenet.py runs/meta/best     # writes benchmarks/results/miniimagenet-regions.json
    python benchmarks/docs.py                            # puts its tables into docs/results.md

Each row is what `deepemd evaluate MODEL miniimagenet:val --regions R --n_shot K --method all --sfc.lr 10` gives; the
rate is that of the sweep in docs/sfc.md. What has been measured is kept after each row; run it again to go on. Where
encoding the patches of all images takes hours, `--per_class` takes the first images of each class alone.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from deepemd import DeepEMD
from deepemd.apps.reports.tables import write_json
from deepemd.bench.measure import processor
from deepemd.data import Episodes, Images, load
from deepemd.device import choose_precision, keep_freed_memory
from deepemd.embedding.cache import default_cache
from deepemd.embedding.splits import embed
from deepemd.evaluation.evaluate import evaluate
from deepemd.evaluation.methods import SFC
from deepemd.nodes import parse_regions

RESULTS = Path(__file__).parent / "results" / "miniimagenet-regions.json"
REGIONS = ("fcn", "fcn:2,1", "grid:3,2", "sampling:9", "sampling:25")
EPISODES = {1: 1000, 5: 600}


def part(images: Images, indices: np.ndarray) -> Images:
    """Some of a split's images, to draw episodes from."""
    return replace(images, labels=images.labels[indices], names=tuple(images.names[i] for i in indices))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--regions", nargs="+", default=REGIONS)
    parser.add_argument("--method", default="all")
    parser.add_argument("--sfc_lr", type=float, default=10.0)
    parser.add_argument("--per_class", type=int, help="images of each class; all by default")
    options = parser.parse_args()
    keep_freed_memory()
    model, images = DeepEMD.from_pretrained(options.model), load("miniimagenet").splits["val"]
    chosen = np.concatenate(
        [np.flatnonzero(images.labels == k)[: options.per_class] for k in range(len(images.classes))]
    )
    bf16 = choose_precision() == "bf16-mixed"
    report = json.loads(options.out.read_text()) if options.out.is_file() else {"rows": {}}
    report |= {"machine": processor(), "model": model.config, "images": len(chosen)}
    for regions in options.regions:
        missing = [shots for shots in EPISODES if f"{regions} {shots}" not in report["rows"]]
        if not missing:
            continue
        model.regions = parse_regions(regions)
        nodes = embed(model, images, chosen, bf16=bf16, cache=default_cache())
        for shots in missing:
            episodes = Episodes(n_shot=shots, n_episodes=EPISODES[shots])
            found = evaluate(
                model, part(images, chosen), episodes, method=options.method, sfc=SFC(lr=options.sfc_lr), nodes=nodes
            )
            if not found.complete:
                raise KeyboardInterrupt
            report["rows"][f"{regions} {shots}"] = found.as_dict()
            write_json(report, options.out)
            accuracies = {name: str(found.accuracy(name)) for name in found.accuracies}
            print(regions, shots, accuracies, found.seconds, flush=True)


if __name__ == "__main__":
    main()
