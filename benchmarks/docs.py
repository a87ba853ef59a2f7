"""Put what was measured into the docs: the tables of speed.md and results.md, and docs/pictures/emd-speed.png.

deepemd bench emd --out benchmarks/results/emd.json
python benchmarks/compare.py
python benchmarks/miniimagenet.py MODEL          # and as docs/results.md says for the ResNet-12
python benchmarks/docs.py
"""

import json
import re
from pathlib import Path
from typing import Any

from deepemd.bench.picture import speed_picture
from deepemd.bench.tables import markdown

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
REGIONS = {
    "fcn": "FCN",
    "fcn:2,1": "FCN, pyramid (5,2,1)",
    "grid:3,2": "Grid (3,2)",
    "sampling:9": "Sampling 9",
    "sampling:25": "Sampling 25",
}


def place(page: str, source: str, content: str) -> None:
    """Put content between the two comments that name its source."""
    path = ROOT / "docs" / page
    between = re.compile(
        rf"(<!-- tables of benchmarks/results/{source} -->\n).*?(<!-- end of the tables -->)", re.DOTALL
    )
    text = path.read_text()
    if not between.search(text):
        raise SystemExit(f"{path} has no place for the tables of {source}")
    path.write_text(between.sub(lambda found: f"{found[1]}{content}\n{found[2]}", text))


def regions_tables(report: dict[str, Any]) -> str:
    """For one and five shots: a row for each method, a column for each way to get nodes."""
    tables = []
    for shots in (1, 5):
        found = {k: report["rows"][f"{k} {shots}"] for k in REGIONS if f"{k} {shots}" in report["rows"]}
        some = next(iter(found.values()))
        tables.append(f"### 5-way {shots}-shot, {some['episodes']['n_episodes']:,} episodes\n")
        tables.append("| method | " + " | ".join(REGIONS[k] for k in found) + " |\n|---" + "|---" * len(found) + "|")
        for method in some["accuracy"]:
            cells = [_cell(row, method) for row in found.values()]
            tables.append(f"| {method} | " + " | ".join(cells) + " |")
        tables.append("")
    return "\n".join(tables).rstrip()


def _cell(row: dict[str, Any], method: str) -> str:
    """The accuracy, and what the first method is above it, paired; bold where the interval holds no zero."""
    accuracy = row["accuracy"][method]
    if method == row["compared_with"]:
        return f"**{100 * accuracy['mean']:.2f}** ± {100 * accuracy['ci95']:.2f}"
    d = row["difference"][method]
    mean, ci95 = 100 * d["mean"], 100 * d["ci95"]
    difference = f"{mean:+.2f} ± {ci95:.2f}"
    return f"{100 * accuracy['mean']:.2f} ({f'**{difference}**' if abs(mean) > ci95 else difference})"


def compare_table(report: dict[str, Any]) -> str:
    """A row for each thing that a user waits for: ours, the reference's way, and how many times faster and smaller."""
    lines = ["| | ours | the reference's way | times faster | times less memory |", "|---|---|---|---|---|"]
    for row in report["rows"]:
        sides = " | ".join(f"{_time(row[side]['seconds'])}, {_size(row[side]['mb'])}" for side in ("ours", "reference"))
        less = row.get("times_less_memory")
        lines.append(f"| {row['what']} | {sides} | {_times(row['times_faster'])} | {_times(less) if less else ''} |")
    return "\n".join(lines)


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"


def _time(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{1000 * seconds:.3g} ms"


def _size(mb: float | None) -> str:
    return "" if mb is None else f"{mb / 1000:.2g} GB" if mb >= 1000 else f"{mb:.0f} MB"


def main() -> None:
    report = json.loads((RESULTS / "emd.json").read_text())
    place("speed.md", "emd.json", markdown(report))
    speed_picture(report, ROOT / "docs" / "pictures" / "emd-speed.png")
    place("speed.md", "compare.json", compare_table(json.loads((RESULTS / "compare.json").read_text())))
    for name in ("miniimagenet-regions.json", "resnet12-regions.json"):
        place("results.md", name, regions_tables(json.loads((RESULTS / name).read_text())))


if __name__ == "__main__":
    main()
