"""The page of ``deepemd retrieve query --out``: the most similar images, and the parts that were matched."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deepemd.apps.reports.drawing import Drawings
from deepemd.apps.reports.page import figure, simple_page, write_standalone
from deepemd.apps.reports.tables import TextTable
from deepemd.apps.retrieval.index import Hits, Index
from deepemd.apps.retrieval.queries import Queries
from deepemd.explain.matches import Side, match_nodes
from deepemd.progress import track

__all__ = ["hits_table", "write_hits_page"]

_DRAWN = 4  # drawn hits of a query


def hits_table(index: Index, title: str, hits: Hits, q: int) -> TextTable:
    """Return the table of the images that were found for query `q`."""
    columns = zip(*(column[q].tolist() for column in hits), strict=True)
    rows = [
        [str(place), index.images.names[i], _class(index, i), f"{similarity:.3f}", f"{cosine:.3f}"]
        for place, (i, similarity, cosine) in enumerate(columns, 1)
    ]
    return TextTable(title, ["", "image", "class", "1 - EMD", "pooled cosine"], rows, names=(1, 2))


def write_hits_page(index: Index, queries: Queries, hits: Hits, path: Path) -> Path:
    """Write the page: for each query, the images that were found and drawings of the best matches.

    Args:
        index: the index that was searched.
        queries: the Q queries.
        hits: the result of the search.
        path: HTML file to write.

    Raises:
        InputError: the file cannot be written.
    """
    count = len(hits.images[0])
    lead = (
        f"The {count} most similar of {len(index):,} images, in the order of the Earth Mover's Distance between their "
        f"parts; the best {min(_DRAWN, count)} are drawn. Matched parts have the same number and colour.",
    )
    found = index.images.fingerprint
    notes = [
        ("index", index.path),
        ("images", f"{found.name}, {found.images:,} images, sha256 {found.sha256}"),
        *([("nodes", f"whitened by the {index.groups} of the images of the index")] if index.groups else []),
    ]
    sections = _sections(index, queries, hits)
    return write_standalone(
        "deepemd retrieve", simple_page("Similar images, part by part", lead, sections, notes), path
    )


def _sections(index: Index, queries: Queries, hits: Hits) -> Iterator[str]:
    drawings = Drawings()
    named = list(zip(queries.names, queries.sides, strict=True))
    for q, (name, query) in enumerate(track(named, "drawing", len(named), "queries")):
        yield hits_table(index, f"Most similar to {name}", hits, q).html()
        figures = []
        for place, i in enumerate(hits.images[q, :_DRAWN].tolist(), 1):
            found, own = index.images.image(i), index.rows(np.array([i]))[0]
            match = match_nodes(index.model, query, Side(found, (found.height, found.width), own, i))
            example = f"{index.images.names[i]}, class {_class(index, i)}"
            svg = drawings.draw(match, query=name, example=example, sides=("query", "found"))
            figures.append(figure(svg, f"{place}: {example}; similarity {match.similarity:.2f}"))
        yield f'<div class="pairs">{"".join(figures)}</div>'


def _class(index: Index, i: int) -> str:
    return str(index.images.classes[index.images.labels[i]])
