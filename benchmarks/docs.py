"""Put the tables of results/emd.json into docs/speed.md, and draw docs/pictures/emd-speed.png from it.

deepemd bench emd --out benchmarks/results/emd.json
python benchmarks/docs.py
"""

import json
import re
from pathlib import Path

from deepemd.bench.picture import speed_picture
from deepemd.bench.tables import markdown

ROOT = Path(__file__).parent.parent
PLACE = re.compile(r"(<!-- tables of benchmarks/results/emd.json -->\n).*?(<!-- end of the tables -->)", re.DOTALL)


def main() -> None:
    report = json.loads((ROOT / "benchmarks" / "results" / "emd.json").read_text())
    page = ROOT / "docs" / "speed.md"
    page.write_text(PLACE.sub(lambda found: f"{found[1]}{markdown(report)}\n{found[2]}", page.read_text()))
    speed_picture(report, ROOT / "docs" / "pictures" / "emd-speed.png")


if __name__ == "__main__":
    main()
