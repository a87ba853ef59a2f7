"""How much the EMD adds to a search by pooled cosine, and what a search costs, on miniImageNet's validation classes;
and how much whitening adds, on photos in class folders.

    pip install -c constraints.txt .
    deepemd data prepare miniimagenet --source FOLDER_TAR_OR_ZIP
    python benchmarks/retrieval.py MODEL            # some minutes; writes benchmarks/results/retrieval.json
    python benchmarks/retrieval.py MODEL --quick    # 500 queries
    python benchmarks/retrieval.py efficientnet-lite0 --photos FOLDER  # whitening; writes .../retrieval-whitening.json

Accuracy: every image of the split val looks for the others of its class, with shortlists of several lengths. The
pooled cosine stands beside it in two forms; differences are from the better one, paired.

Time: 10,000 images (val and a part of base) are indexed from a folder of files. Queries are files of base that are not
in it, one after another on one thread: decoding, encoding, the search. The model is loaded and the solver compiled.

Whitening: one half of each class's photos, drawn at random, is the gallery, the other half are the queries, and the
reverse. The shrinkage is chosen on every other class, by pooled cosine, which takes a fraction of the time of the EMD;
the figures are of the remaining classes.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from deepemd.apps.retrieval.building import build_index
from deepemd.apps.retrieval.index import Index
from deepemd.apps.retrieval.queries import embed_queries
from deepemd.apps.retrieval.ranking import evaluate_index, measures
from deepemd.apps.retrieval.whitening import Groups, fit_whitening
from deepemd.bench.measure import machine, seconds, summary, threads
from deepemd.data import Store, load
from deepemd.device import choose_precision
from deepemd.embedding.cache import default_cache
from deepemd.evaluation.intervals import MeanCI
from deepemd.matching.whitening import Whitening, whiten

RESULTS = Path(__file__).parent / "results"
IMAGES, QUERIES, SHORTLISTS = 10_000, 300, (20, 50, 100, 200)
SHRINKAGES = (0.01, 0.03, 0.1, 0.3, 1.0, 10.0)
WAYS = ("Recall@1", "mAP")
Fit = Callable[[torch.Tensor, np.ndarray, float], Whitening]


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


def times(model: str, store: Store, folder: Path) -> dict:
    """Seconds of the index and milliseconds of a query."""
    queries = write_files(store, folder)
    made: list[Index] = []
    took = seconds(lambda: made.append(build_index(model, folder / "images", folder / "index")))
    index = made[0]
    embedding, search = [], []
    for file in queries:
        embedding.append(1e3 * seconds(lambda: embed_queries(index, [file])))  # noqa: B023
        nodes = embed_queries(index, [file]).nodes
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


def by_groups(nodes: torch.Tensor, labels: np.ndarray, shrinkage: float, *, groups: Groups) -> Whitening:
    """The whitening of an index."""
    return fit_whitening(nodes, labels, groups, shrinkage=shrinkage)


def by_total(nodes: torch.Tensor, labels: np.ndarray, shrinkage: float) -> Whitening:  # noqa: ARG001
    """By the scatter of all nodes around their mean: the usual whitening where there are no labels."""
    return whiten(nodes, torch.zeros(len(nodes), dtype=torch.int64), shrinkage=shrinkage)


FITS: dict[str, Fit] = {
    "classes": partial(by_groups, groups="classes"),
    "neighbours": partial(by_groups, groups="neighbours"),
    "total scatter": by_total,
}


def divided(labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield places of the gallery and of the queries: half of each class each, and the reverse."""
    rng = np.random.default_rng(0)
    first = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        first[own[: len(own) // 2]] = True
    yield np.flatnonzero(first), np.flatnonzero(~first)
    yield np.flatnonzero(~first), np.flatnonzero(first)


def searched(
    index: Index, places: np.ndarray, fit: Fit | None, shrinkage: float = 0.0, *, emd: bool = True
) -> dict[str, np.ndarray]:
    """Search for some images of an index in the others of their classes: order and measure -> a value for each."""
    nodes, labels = index.rows(places), index.images.labels[places]
    values: dict[str, np.ndarray] = {}
    for gallery, asked in divided(labels):
        stored, query = nodes[gallery], nodes[asked]
        if fit is not None:
            whitening = fit(stored, labels[gallery], shrinkage)
            stored, query = whitening(stored), whitening(query)
        part = Index(index.path, index.model, range(len(stored)), stored.numpy(), stored.mean(1))  # type: ignore[arg-type]
        orders = {"pooled cosine": part.cosines(query).argsort(dim=1, descending=True)}
        if emd:
            orders["EMD"] = part.search(query, top=len(part)).images
        for name, order in orders.items():
            right = torch.from_numpy(labels[gallery])[order] == torch.from_numpy(labels[asked])[:, None]
            for measure, value in measures(right).items():
                if measure in WAYS:
                    values.setdefault(f"{name}, {measure}", np.zeros(len(places)))[asked] = value.numpy()
    return values


def whitening(model: str, photos: Path, folder: Path) -> dict:
    """Choose the shrinkages on one half of the classes, and measure on the other."""
    bf16 = choose_precision("auto") == "bf16-mixed"
    index = build_index(model, photos, folder / "index", cache=default_cache(), bf16=bf16)
    chosen, reported = (np.flatnonzero(index.images.labels % 2 == half) for half in (0, 1))
    choice: dict[str, dict[str, dict[str, float]]] = {}
    best: dict[str, float] = {}
    for name, fit in FITS.items():
        rows = {shrinkage: searched(index, chosen, fit, shrinkage, emd=False) for shrinkage in SHRINKAGES}
        choice[name] = {
            str(shrinkage): {key: 100 * float(value.mean()) for key, value in row.items()}
            for shrinkage, row in rows.items()
        }
        best[name] = max(SHRINKAGES, key=lambda s: sum(rows[s][f"pooled cosine, {way}"].mean() for way in WAYS))
        print(name, best[name], choice[name], flush=True)
    found = {"none": searched(index, reported, None)}
    found |= {name: searched(index, reported, fit, best[name]) for name, fit in FITS.items()}
    figures = {
        name: {
            key: {
                **dict(zip(("mean", "ci95"), percent(value), strict=True)),
                "difference": percent(value - found["none"][key]),
            }
            for key, value in values.items()
        }
        for name, values in found.items()
    }
    for name, values in figures.items():
        print(name, {key: [round(number, 2) for number in (f["mean"], f["ci95"])] for key, f in values.items()})
    return {
        "config": index.model.config,
        "images": index.images.fingerprint.as_dict(),
        "queries": len(reported),
        "choice_on_the_other_classes": choice,
        "shrinkage": best,
        "figures": figures,
    }


def percent(values: np.ndarray) -> tuple[float, float]:
    """The mean and its 95 % interval, in percent."""
    figure = MeanCI.of(values)
    return 100 * figure.mean, 100 * figure.ci95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="500 queries of each shortlist")
    parser.add_argument("--photos", type=Path, help="class folders of photos, to measure whitening on")
    options = parser.parse_args()
    result: dict = {"machine": machine(), "threads": 1}
    if options.photos is not None:
        with threads(1), tempfile.TemporaryDirectory() as folder:
            result |= whitening(options.model, options.photos, Path(folder))
        write(result, options.out or RESULTS / "retrieval-whitening.json")
        return
    store = load("miniimagenet")
    with threads(1), tempfile.TemporaryDirectory() as folder:
        index = build_index(options.model, "miniimagenet", Path(folder) / "val", split="val")
        result["config"] = index.model.config
        result["accuracy"] = accuracy(index, 500 if options.quick else None)
        result["time"] = times(options.model, store, Path(folder))
    print(f"query: {result['time']['query_ms']['median']:.1f} ms among {result['time']['images']:,} images")
    write(result, options.out or RESULTS / "retrieval.json")


def write(result: dict, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(out)


if __name__ == "__main__":
    main()
