"""Downloads of the benchmarks that have an official address: checked by their hash, and continued when broken off.

Nothing is ever downloaded unless it is asked for (``deepemd data prepare NAME --download``). pooch keeps the files and
checks them; it cannot go on with half a file, so :class:`Resuming` does.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from deepemd.errors import InputError
from deepemd.files import explain_disk_errors

if TYPE_CHECKING:
    from requests import Response

__all__ = ["DOWNLOADS", "Remote", "Resuming", "fetch"]

_PIECE = 1 << 16  # bytes written at a time; no more than these are lost when the connection breaks
_PATIENCE = 30  # seconds without a byte


class Remote(NamedTuple):
    """A file on the internet."""

    address: str
    md5: str  # as its publisher, and everybody who downloads it, knows it

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.address.rsplit("/", 1)[-1]


_CIFAR_100 = Remote("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85")
_OMNIGLOT = "https://github.com/brendenlake/omniglot/raw/master/python"

_CUB = Remote("https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz", "97eceeb196236b17998738112f37df78")
DOWNLOADS: Mapping[str, Sequence[Remote]] = {
    "cub": (_CUB,),
    "cub-whole": (_CUB,),
    "fc100": (_CIFAR_100,),
    "cifar-fs": (_CIFAR_100,),
    "omniglot": (
        Remote(f"{_OMNIGLOT}/images_background.zip", "68d2efa1b9178cc56df9314c21c6e718"),
        Remote(f"{_OMNIGLOT}/images_evaluation.zip", "6b91aef0f799c5bb55b94e3f2daec811"),
    ),
}


def fetch(name: str, root: Path, downloads: Mapping[str, Sequence[Remote]] = DOWNLOADS) -> Path:
    """Download the files of a benchmark, as far as they are not there.

    What is broken off, by Ctrl-C or by the network, stays as ``FILE.part``; the next call goes on with it where the
    server can (HTTP Range) and begins again where it cannot.

    Args:
        name: a key of `downloads`.
        root: where data sets are kept; the files come into ``root/downloads/NAME``.
        downloads: what there is to download.

    Returns:
        The file, or the folder where there are several.

    Raises:
        InputError: there is no address for `name`, no connection, the file is not there or not the one that is known
            by its hash, or a full disk.

    >>> fetch("miniimagenet", Path())
    Traceback (most recent call last):
    deepemd.errors.InputError: miniimagenet: has no official address to download from: get it and pass --source
    """
    if name not in downloads:
        raise InputError(
            f"{name}: has no official address to download from, as {', '.join(downloads)} have: get it and pass "
            "--source (source=)"
        )
    folder = root / "downloads" / name
    for remote in downloads[name]:
        _retrieve(remote, folder)
    return folder / downloads[name][0].name if len(downloads[name]) == 1 else folder


def _retrieve(remote: Remote, folder: Path) -> None:
    """Bring one file, whole, into the folder."""
    import pooch

    name = remote.name
    pooch.get_logger().setLevel("WARNING")
    try:
        with explain_disk_errors(folder, needed=0):
            resuming = Resuming(folder / f"{name}.part")
            pooch.retrieve(remote.address, f"md5:{remote.md5}", name, folder, downloader=resuming)
    except InputError:
        raise
    except ValueError as error:  # pooch's, of the hash; it has removed the file
        raise InputError(
            f"{remote.address}: not the file that was published, its md5 is another: try again; if it stays so, get "
            "the file elsewhere and pass --source (source=)"
        ) from error


@dataclass(frozen=True)
class Resuming:
    """A downloader for pooch that goes on with half a file by an HTTP Range request.

    Attributes:
        part: where the bytes are kept until they are all there.
    """

    part: Path

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:  # noqa: ARG002  (pooch's signature)
        """Bring all bytes at `url` into `output_file`, which pooch then checks."""
        from requests.exceptions import RequestException

        try:
            self._continue(url)
        except RequestException as error:
            raise InputError(
                f"{url}: no connection, or a broken one ({type(error).__name__}): check the internet and run the same "
                f"again; it goes on after the {self._have():,} bytes that are there"
            ) from error
        self.part.replace(output_file)

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _continue(self, url: str) -> None:
        """Fetch what is missing of the part."""
        import requests

        have = self._have()
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=_PATIENCE) as response:
            if have and response.status_code == requests.codes.requested_range_not_satisfiable:
                return  # there is nothing more: it was broken off after the last byte
            if not response.ok:
                raise InputError(
                    f"{url}: the server refuses ({response.status_code} {response.reason}): try again later, or get "
                    "the file elsewhere and pass --source (source=)"
                )
            resumes = response.status_code == requests.codes.partial_content
            with self.part.open("ab" if resumes else "wb") as file, self._progress(response, have * resumes) as advance:
                for piece in response.iter_content(_PIECE):
                    file.write(piece)
                    advance(len(piece))

    @contextmanager
    def _progress(self, response: "Response", have: int) -> Iterator[Callable[[int], None]]:
        """A bar of bytes and time on a terminal's standard error."""
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            length = response.headers.get("Content-Length", "")
            task = bar.add_task(
                self.part.stem, total=have + int(length) if length.isdecimal() else None, completed=have
            )
            yield lambda count: bar.advance(task, count)
