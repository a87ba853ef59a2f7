"""``deepemd bench``: measure the speed of transport solvers on this machine, as docs/speed.md reports it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepemd.commands.outputs import Output, ResultFiles, check_picture
from deepemd.errors import InputError
from deepemd.json_files import read_json, write_json

if TYPE_CHECKING:
    from deepemd.bench.race import Settings

__all__ = ["bench_emd"]


def bench_emd(
    sizes: str | None = None,
    rounds: int | None = None,
    threads: str | None = None,
    peers: str | None = None,
    parts: str | None = None,
    quick: bool = False,
    out: Path | None = None,
    picture: Path | None = None,
    report: Path | None = None,
    force: bool = False,
) -> None:
    """Time emd against other exact and inexact solvers on this machine, and print the tables as Markdown.

    In every round, each solver takes a turn on new problems; compare the ratios within a round. The values of exact
    solvers are compared with ours, and a wrong one is not timed; the error of inexact ones is reported. A solver that
    is not installed is left out, with a line that says how to install it. Ctrl-C prints what has been measured so far.
    The benchmark takes less than ten minutes, or about one minute with --quick.

    Args:
        sizes: n of the n x n problems, separated by commas; by default 9,13,25,49,100,196,256.
        rounds: turns of each solver; more give more precise figures. By default 15, with --quick 5.
        threads: thread counts for emd; other solvers are compared with the first. By default 1,2.
        peers: solvers to compare with, separated by commas; by default all of opencv, pot, pot-core, pot-batch, highs,
            qpth, sinkhorn.
        parts: parts to measure, separated by commas; by default all of race (against the peers), calls (one problem,
            batches, float64), gradient (time and memory), start (of a new process).
        quick: measure in few rounds, on four sizes and only with costs between embeddings.
        out: JSON file for the report.
        picture: PNG file for a chart of time against n.
        report: JSON file of an earlier --out; print its tables and draw its chart, without measuring anything.
        force: replace the files of --out and --picture.
    """
    from deepemd.bench.picture import speed_picture
    from deepemd.bench.run import run
    from deepemd.bench.tables import markdown

    check_picture("picture", picture)
    with ResultFiles(Output("out", out, "emd.json"), Output("picture", picture, "emd.png"), force=force) as result:
        if report is not None:
            found = _read(report)
        else:
            found = run(_settings(sizes, rounds, threads, peers, parts, quick, picture))
        with _blaming(report):
            print(markdown(found))
        if out is not None:
            write_json(found, result.draft(out), indent=1)
        if picture is not None and (found["race"] or report is not None):
            with _blaming(report):
                speed_picture(found, result.draft(picture))
        result.commit()
    if found["interrupted"] and report is None:
        raise KeyboardInterrupt


_QUICK: dict[str, Any] = {
    "sizes": (9, 25, 49, 100),
    "kinds": ("embedding",),
    "rounds": 5,
    "peer_seconds": 0.15,
    "batched": 25,
    "processes": 1,
}


def _settings(
    sizes: str | None,
    rounds: int | None,
    threads: str | None,
    peers: str | None,
    parts: str | None,
    quick: bool,
    picture: Path | None,
) -> "Settings":
    """Return the settings of the benchmark from the options of the command."""
    from deepemd.bench.race import Settings

    given: dict[str, Any] = {
        "sizes": _numbers("sizes", sizes),
        "rounds": rounds,
        "threads": _numbers("threads", threads),
        "peers": _words(peers),
        "parts": _words(parts),
    }
    given = {name: value for name, value in given.items() if value is not None}
    settings = Settings(**(_QUICK if quick else {}) | given)
    if picture is not None and "race" not in settings.parts:
        raise InputError("picture shows the part 'race': add race to --parts, or leave --picture out")
    return settings


def _read(path: Path) -> dict[str, Any]:
    found = read_json(path, remedy="pass a file that --out has written")
    if found.get("benchmark") != "deepemd bench emd":
        raise InputError(f"report: {path} is not a report of 'deepemd bench emd'; pass a file that --out has written")
    return found


@contextmanager
def _blaming(report: Path | None) -> Iterator[None]:
    """Raise InputError if the values of an earlier report cannot be shown; a new report has no such values."""
    try:
        yield
    except InputError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if report is None:
            raise
        raise InputError(f"report: {report} is damaged ({error!r}); pass a file that --out has written") from error


def _numbers(option: str, text: str | None) -> list[int] | None:
    words = _words(text)
    try:
        return None if words is None else [int(word) for word in words]
    except ValueError:
        raise InputError(
            f"{option}: {text!r} is not a list of whole numbers; separate them by commas, such as --{option} 1,2"
        ) from None


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]
