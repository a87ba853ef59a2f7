"""``deepemd retrieve``: index a folder of images, query it, and measure it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deepemd.commands.console import console
from deepemd.commands.outputs import check_output
from deepemd.device import Precision
from deepemd.processes import rank

if TYPE_CHECKING:
    from PIL.Image import Image

    from deepemd.apps.reports.tables import TextTable
    from deepemd.apps.retrieval.index import Hits, Index

__all__ = ["retrieve_evaluate", "retrieve_index", "retrieve_query"]

_SHOWN = 4  # hits of a query that are drawn


def retrieve_index(
    model: Path,
    data: str,
    index: Path,
    split: Literal["base", "val", "novel", "all"] | None = None,
    force: bool = False,
    skip_bad: bool = False,
    precision: Precision = "auto",
    cache: Path | None = None,
    root: Path | None = None,
) -> None:
    """Embed every image of a folder once, and keep what a search needs in one folder that stands alone.

    The images of a folder are found however deep they lie; the folder of an image is its class, which only `retrieve
    evaluate` looks at. The index holds a copy of the images and of the model.

    Args:
        model: folder of a saved model, or resnet12-miniimagenet, which is installed.
        data: a folder of images, or a name of `deepemd data list`.
        index: the folder to make.
        split: of a data set, which of its splits.
        force: make it again although it is there.
        skip_bad: go on without images that cannot be decoded, and list them in images/skipped.txt of the index.
        precision: number format of the encoder.
        cache: folder where the embeddings are kept too, for an index that is made again, also after it was killed;
            $DEEPEMD_CACHE or ~/.cache/deepemd/embeddings unless given.
        root: folder of the prepared stores; $DEEPEMD_DATA or ~/.cache/deepemd/data unless given.
    """
    from deepemd.apps.retrieval.index import build_index
    from deepemd.data.store import open_store
    from deepemd.device import choose_precision
    from deepemd.embedding.cache import default_cache

    bf16 = choose_precision(precision) == "bf16-mixed"
    made = build_index(
        *(model, data, index),
        split=split,
        root=root,
        force=force,
        skip_bad=skip_bad,
        bf16=bf16,
        cache=cache or default_cache(),
    )
    if rank() > 0:
        return  # the first process tells
    f, (_, n, channels) = made.images.fingerprint, made.nodes.shape
    print(f"{f.images:,} images of {f.classes:,} classes, {n} nodes of {channels} channels each")
    print(f"index: {index}")
    skipped = open_store(index / "images").skipped
    if skipped:
        print(*skipped, f"{len(skipped):,} bad images were left out", sep="\n", file=sys.stderr)


def retrieve_query(
    index: Path, images: list[Path], top: int = 10, shortlist: int = 100, out: Path | None = None
) -> None:
    """Find the images of an index that are most like yours, part by part.

    The images with the largest cosine of pooled embeddings are the shortlist; the Earth Mover's Distance between the
    parts of images puts them in order.

    Args:
        index: folder of an index.
        images: image files to look for.
        top: how many images to find for each.
        shortlist: how many images the distance is computed for; at least `top`.
        out: HTML file to write, with pictures of the parts that were matched beside it.
    """
    from deepemd.apps.reports.tables import Page, write_page
    from deepemd.apps.retrieval.index import embed_files, open_index

    check_output("out", out, "result.html")
    opened, told = open_index(index), console()
    pictures, nodes = embed_files(opened.model, images)
    hits = opened.search(nodes, top=top, shortlist=shortlist)
    grids = [_grid(opened, f"Like {name}", hits, q) for q, name in enumerate(images)]
    for grid in grids:
        told.print(grid.rich())
    if out is not None:
        shown = dict(_picture(opened, f"{images[q]}", pictures[q], hits, q, out) for q in range(len(images)))
        f = opened.images.fingerprint
        notes = {"index": str(index), "images": f"{f.name}, {f.images:,} images, sha256 {f.sha256}"}
        lead = (
            f"The {len(hits.images[0])} images most like the query, among {len(opened):,}, in the order of the Earth "
            f"Mover's Distance between their parts; pictures of the best {min(_SHOWN, len(hits.images[0]))}.",
        )
        print(f"page: {write_page(Page('deepemd retrieve', lead, grids, shown, notes), out)}")


def _grid(index: "Index", title: str, hits: "Hits", q: int) -> "TextTable":
    """What was found for one query."""
    from deepemd.apps.reports.tables import TextTable

    rows = [
        [str(place), index.images.names[i], index.images.classes[index.images.labels[i]], f"{s:.3f}", f"{c:.3f}"]
        for place, (i, s, c) in enumerate(zip(*(part[q].tolist() for part in hits), strict=True), 1)
    ]
    return TextTable(title, ["", "image", "class", "1 - EMD", "pooled cosine"], rows)


def _picture(index: "Index", name: str, query: "Image", hits: "Hits", q: int, out: Path) -> tuple[str, Path]:
    """Draw, beside the page, how a query was matched with its best hits: the caption and the picture."""
    import numpy as np

    from deepemd.explain.matches import match
    from deepemd.explain.plots import matches_picture

    best = hits.images[q, :_SHOWN].tolist()
    matches = [
        match(
            index.model,
            query,
            index.images.image(i),
            title=f"{place}: similarity {hits.similarity[q, place - 1]:.2f}",
            indices=np.array([q, i]),  # of patches that were sampled
        )
        for place, i in enumerate(best, 1)
    ]
    classes = ", ".join(index.images.classes[index.images.labels[i]] for i in best)
    return f"{q + 1}: {name}, and {classes}", matches_picture(
        matches, out.with_name(f"{out.stem}_{q + 1}.png"), found="found"
    )


def retrieve_evaluate(
    index: Path, queries: int | None = None, shortlist: int = 100, seed: int = 0, out: Path | None = None
) -> None:
    """Let every image of an index look for the others of its class: Recall@1, 2, 4, 8 and mAP.

    The order by the Earth Mover's Distance stands beside that by the pooled cosine alone, over the same queries. The
    difference from the better of the two cosines (centred over channels or not) is paired, with its 95 % interval.

    Args:
        index: folder of an index, of two classes at least.
        queries: a sample of so many images; all of them unless given.
        shortlist: how many images the distance is computed for.
        seed: of the sample.
        out: JSON file to write the report to.
    """
    from deepemd.apps.reports.tables import write_json
    from deepemd.apps.retrieval.index import open_index
    from deepemd.apps.retrieval.ranking import evaluate_index

    check_output("out", out, "report.json")
    ranking = evaluate_index(open_index(index), queries=queries, shortlist=shortlist, seed=seed)
    console().print(ranking.table().rich())
    if out is not None:
        print(f"report: {write_json({'index': str(index), **ranking.as_dict()}, out)}")
