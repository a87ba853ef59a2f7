"""How much the EMD adds to a search by pooled cosine, and what a search costs, on miniImageNet's validation classes.

    pip install -c constraints.txt .
    deepemd data prepare miniimagenet --source FOLDER_TAR_OR_ZIP
    python benchmarks/retrieval.py MODEL            # some minutes; writes benchmarks/results/retrieval.json
    python benchmarks/retrieval.py MODEL --quick    # 500 queries

Accuracy: every image of the split val looks for the others of its class, with shortlists of several lengths. The
pooled cosine stands beside it in two forms; differences are from the better one, paired.

Time: 10,000 images (val and a part of base) are indexed from a folder of files. Queries are files of base that are not
in it, one after another on one thread: decoding, encoding, the search. The model is loaded and the solver compiled.
"""

import argparse
import json
import tempfile
from pathlib import Path

from deepemd.apps.retrieval.index import Index, build_index, embed_files
from deepemd.apps.retrieval.ranking import evaluate_index
from deepemd.bench.measure import machine, seconds, summary, threads
from deepemd.data import Store, load

RESULTS = Path(__file__).parent / "results" / "retrieval.json"
IMAGES, QUERIES, SHORTLISTS = 10_000, 300, (20, 50, 100, 200)


def accuracy(index: Index, queries: int | None) -> list[dict]:
    """One ranking for each length of the shortlist."""
    rows = []
    for shortlist in SHORTLISTS:
        ranking = evaluate_index(index, queries=queries, shortlist=shortlist)
        rows.append(ranking.as_dict())
        print(f"shortlist {shortlist}: Recall@1 {ranking.mean('EMD re-ranking', 'Recall@1')}, difference "
              f"{ranking.difference('Recall@1')}", flush=True)  # fmt: skip
    return rows


def write_files(store: Store, folder: Path) -> list[Path]:
    """Write the images to be indexed into class folders, and the queries beside them; returns the queries."""
    val, base = store.splits["val"], store.splits["base"]
    spread = range(0, len(base), len(base) // (IMAGES - len(val) + QUERIES))
    for images, some in ((val, range(len(val))), (base, list(spread)[: IMAGES - len(val)])):
        for i in some:
            file = folder / "images" / images.classes[images.labels[i]] / images.names[i]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(images.encoded(i))
    queries = []
    for i in list(spread)[IMAGES - len(val) :][:QUERIES]:
        queries.append(folder / f"query-{base.names[i]}")
        queries[-1].write_bytes(base.encoded(i))
    return queries


def times(model: Path, store: Store, folder: Path) -> dict:
    """Seconds of the index and milliseconds of a query."""
    queries = write_files(store, folder)
    made: list[Index] = []
    took = seconds(lambda: made.append(build_index(model, folder / "images", folder / "index")))
    index = made[0]
    embedding, search = [], []
    for file in queries:
        embedding.append(1e3 * seconds(lambda: embed_files(index.model, [file])))  # noqa: B023
        _, nodes = embed_files(index.model, [file])
        search.append(1e3 * seconds(lambda: index.search(nodes)))  # noqa: B023
    whole = [a + b for a, b in zip(embedding, search, strict=True)]
    return {
        "images": len(index),
        "nodes": list(index.nodes.shape[1:]),
        "shortlist": 100,
        "index_seconds": took,
        "index_megabytes": sum(file.stat().st_size for file in index.path.rglob("*") if file.is_file()) / 1e6,
        "decode_and_encode_ms": summary(embedding[10:]),
        "search_ms": summary(search[10:]),
        "query_ms": summary(whole[10:]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="500 queries of each shortlist")
    options = parser.parse_args()
    result: dict = {"machine": machine(), "threads": 1}
    store = load("miniimagenet")
    with threads(1), tempfile.TemporaryDirectory() as folder:
        index = build_index(options.model, "miniimagenet", Path(folder) / "val", split="val")
        result["config"] = index.model.config
        result["accuracy"] = accuracy(index, 500 if options.quick else None)
        result["time"] = times(options.model, store, Path(folder))
    print(f"query: {result['time']['query_ms']['median']:.1f} ms among {result['time']['images']:,} images")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(options.out)


if __name__ == "__main__":
    main()
