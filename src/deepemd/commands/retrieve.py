"""``deepemd retrieve``: index a folder of images, query it, and measure it."""

import sys
from pathlib import Path
from typing import Literal

from deepemd.commands.console import console
from deepemd.commands.outputs import Output, ResultFiles
from deepemd.device import Precision
from deepemd.errors import InputError, printable
from deepemd.processes import rank
from deepemd.progress import say
from deepemd.results import shared_output_lock

__all__ = ["retrieve_evaluate", "retrieve_index", "retrieve_query"]


def retrieve_index(
    model: str,
    data: str,
    index: Path,
    split: Literal["base", "val", "novel", "all"] | None = None,
    whiten: Literal["classes", "neighbours"] | None = None,
    force: bool = False,
    skip_bad: bool = False,
    precision: Precision = "auto",
    cache: Path | None = None,
    root: Path | None = None,
) -> None:
    """Embed every image of a folder once, and store all that a search needs in one self-contained folder.

    Images are found in subfolders too. The first folder that holds an image is its class, which only
    `retrieve evaluate` uses. The index holds a copy of the images and of the model.

    Args:
        model: any encoder of `deepemd predict --backbone`, such as efficientnet-lite0, which is installed and the best
            for photos; the folder of a model or of a saved classifier; or a name on the Hugging Face Hub.
        data: a folder of images, or a name of `deepemd data list`.
        index: folder for the index.
        split: split to embed, of a data set with splits.
        whiten: let what varies among images of one thing count less: "classes" if the folders are classes and you
            search for images of the same classes, "neighbours" to use the most similar images instead of folders.
        force: replace an existing index.
        skip_bad: leave out images that cannot be decoded, and list them in images/skipped.txt of the index.
        precision: number format of the encoder.
        cache: folder of the cached embeddings; by default $DEEPEMD_CACHE, else ~/.cache/deepemd/embeddings. They make
            it fast to build the index again, also after an interruption.
        root: folder of the prepared data sets; by default $DEEPEMD_DATA, else ~/.cache/deepemd/data.
    """
    from deepemd.apps.retrieval.building import build_index
    from deepemd.data.catalog import messages
    from deepemd.data.folders import LOOSE
    from deepemd.data.store import open_store
    from deepemd.device import choose_precision, keep_freed_memory
    from deepemd.embedding.cache import default_cache

    keep_freed_memory()
    bf16 = choose_precision(precision) == "bf16-mixed"
    with shared_output_lock(index, option="index"):
        made = build_index(
            *(model, data, index),
            split=split,
            root=root,
            whiten=whiten,
            force=force,
            skip_bad=skip_bad,
            bf16=bf16,
            cache=cache or default_cache(),
        )
    if rank() > 0:
        return  # process 0 prints
    f, n, channels = made.images.fingerprint, made.nodes.shape[1], made.model.backbone.channels
    classes = len(set(made.images.classes) - {LOOSE})
    print(f"{f.images:,} images of {classes:,} classes, {n} nodes of {channels} channels each")
    print(f"index: {index}")
    store = open_store(index / "images")
    for message in messages(store):
        print(f"deepemd: {message}", file=sys.stderr)
    skipped = store.skipped
    if skipped:
        print(*skipped, f"{len(skipped):,} bad images were left out", sep="\n", file=sys.stderr)


def retrieve_query(
    index: Path,
    images: list[Path],
    top: int = 10,
    shortlist: int = 100,
    out: Path | None = None,
    force: bool = False,
) -> None:
    """Find the images of an index that are most similar to yours, part by part.

    The images with the largest cosine of pooled embeddings form a shortlist, which is then sorted by the Earth Mover's
    Distance between the parts of the images. Images that cannot be read are listed and left out, and the exit code is
    then 2.

    Args:
        index: folder of an index.
        images: images to search for, or folders of images.
        top: number of images to find for each file.
        shortlist: number of images to sort by the distance; at least `top`.
        out: HTML file for the result, with drawings of the matched parts.
        force: replace the file of --out.
    """
    from deepemd.apps.retrieval.index import open_index
    from deepemd.apps.retrieval.page import hits_table, write_hits_page
    from deepemd.apps.retrieval.queries import embed_queries
    from deepemd.data.photos import query_photos
    from deepemd.device import keep_freed_memory

    keep_freed_memory()
    with ResultFiles(Output("out", out, "result.html"), force=force) as result:
        opened, terminal, found = open_index(index), console(), query_photos(images)
        queries = embed_queries(opened, found.files, skip_bad=True)
        hits = opened.search(queries.nodes, top=top, shortlist=shortlist)
        for q, name in enumerate(queries.names):
            terminal.print(hits_table(opened, f"Most similar to {name}", hits, q).rich())
        if out is not None:
            write_hits_page(opened, queries, hits, result.draft(out))
            result.commit()
            print(f"page: {printable(out)}")
    for title, lines in (("ignored, as they are no images", found.others), ("cannot be read, left out", queries.bad)):
        if lines:
            say(f"deepemd: {title}:")
            for line in lines:
                say(f"  {line}")
    if queries.bad:
        raise InputError(
            f"{len(queries.bad):,} of {len(found.files):,} images could not be read, as listed above; the others are"
            " answered"
        )


def retrieve_evaluate(
    index: Path,
    queries: int | None = None,
    shortlist: int = 100,
    seed: int = 0,
    out: Path | None = None,
    force: bool = False,
) -> None:
    """Search an index for the class of each of its own images: Recall@1, 2, 4, 8 and mAP.

    Sorting by the Earth Mover's Distance is compared with sorting by the pooled cosine alone, over the same queries.
    The difference from the better of the two cosines (centred over channels or not) is paired, with its 95 % interval.

    Args:
        index: folder of an index, with images of at least two classes.
        queries: number of images to draw at random as queries; by default all of them.
        shortlist: number of images to sort by the distance.
        seed: seed of the random queries.
        out: JSON file for the report.
        force: replace the file of --out.
    """
    from deepemd.apps.reports.tables import write_json
    from deepemd.apps.retrieval.index import open_index
    from deepemd.apps.retrieval.ranking import evaluate_index

    with ResultFiles(Output("out", out, "report.json"), force=force) as result:
        ranking = evaluate_index(open_index(index), queries=queries, shortlist=shortlist, seed=seed)
        console().print(ranking.table().rich())
        if ranking.whiten is not None:
            say(
                f"deepemd: the index is whitened by the {ranking.whiten} of these images, so the figures are too high"
                " for other images"
            )
        if out is not None:
            write_json({"index": str(index), **ranking.as_dict()}, result.draft(out))
            result.commit()
            print(f"report: {printable(out)}")
