"""Damage files of every kind that the program reads, and read them; report every outcome that is not allowed.

python benchmarks/fuzz.py --cases 10000 --seed 1
"""

import argparse
import logging
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))


def main() -> int:
    """Run the cases; return 1 if one of them failed."""
    import torch
    from fuzzing import Fuzzer

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="number of a case to repeat")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    failures = Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder), options.seed)
        numbers = range(options.cases) if options.only is None else [options.only]
        for number in numbers:
            try:
                fuzzer.case(number)
            except Exception as error:
                frames = traceback.extract_tb(error.__traceback__)
                inner = next((f for f in reversed(frames) if "deepemd" in f.filename), frames[-1])
                key = f"{type(error).__name__} in {Path(inner.filename).name}:{inner.lineno}"
                failures[key] += 1
                if failures[key] == 1 or options.only is not None:
                    notes = "; ".join([str(error)[:300], *getattr(error, "__notes__", [])])
                    print(f"{key}: {notes}", flush=True)
                if options.only is not None:
                    traceback.print_exc()
    print(f"{len(numbers):,} cases, {sum(failures.values())} failures: {dict(failures)}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
