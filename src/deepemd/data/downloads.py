"""Download the benchmarks that have an official address; check their hashes, and continue interrupted downloads.

Nothing is downloaded unless the user asks for it (``deepemd data prepare NAME --download``). pooch stores the files and
checks them; it cannot continue a partial file, which :class:`Resuming` does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from deepemd.errors import InputError
from deepemd.files import explain_disk_errors
from deepemd.progress import Progress

if TYPE_CHECKING:
    from requests import Response

__all__ = ["DOWNLOADS", "Remote", "Resuming", "fetch"]

_PIECE = 1 << 16  # bytes written at a time, the most that is lost when the connection breaks
_MB = 1_000_000
_TIMEOUT = 30  # seconds without a byte


class Remote(NamedTuple):
    """A file to download."""

    address: str
    md5: str  # as published with the file

    @property
    def name(self) -> str:
        """The file's name, the last part of its address."""
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
    """Download the files of a benchmark that have not been downloaded before.

    An interrupted download stays as ``FILE.part``. The next call continues it if the server supports this (HTTP Range),
    else it starts again.

    Args:
        name: a key of `downloads`.
        root: folder of the prepared data sets; the files go to ``root/downloads/NAME``.
        downloads: the files of each benchmark.

    Returns:
        The file, or the folder if there are several files.

    Raises:
        InputError: `name` has no address, there is no connection, the server has no such file, the hash is wrong, or
            the disk is full.

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
    """Download one file into a folder, unless it already exists."""
    import pooch

    name = remote.name
    pooch.get_logger().setLevel("WARNING")
    try:
        with explain_disk_errors(folder, needed=0):
            resuming = Resuming(folder / f"{name}.part")
            pooch.retrieve(remote.address, f"md5:{remote.md5}", name, folder, downloader=resuming)
    except InputError:
        raise
    except ValueError as error:  # from pooch: the hash differs, and the file has been removed
        raise InputError(
            f"{remote.address}: not the published file, because its md5 differs: try again; if that does not help, "
            "get the file elsewhere and pass --source (source=)"
        ) from error


@dataclass(frozen=True)
class Resuming:
    """A downloader for pooch that continues a partial file by an HTTP Range request.

    Attributes:
        part: the partial file.
    """

    part: Path

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:  # noqa: ARG002  (pooch's signature)
        """Download `url` to `output_file`, which pooch then checks."""
        from requests.exceptions import RequestException

        try:
            self._continue(url)
        except RequestException as error:
            raise InputError(
                f"{url}: no connection, or a broken one ({type(error).__name__}): check the internet and run the same "
                f"command again; it continues after the {self._size():,} bytes that are there"
            ) from error
        self.part.replace(output_file)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _continue(self, url: str) -> None:
        """Download the missing bytes of the partial file."""
        import requests

        start = self._size()
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if start and response.status_code == requests.codes.requested_range_not_satisfiable:
                return  # nothing is missing: the download was interrupted after the last byte
            if not response.ok:
                raise InputError(
                    f"{url}: the server refuses ({response.status_code} {response.reason}): try again later, or get "
                    "the file elsewhere and pass --source (source=)"
                )
            resumes = response.status_code == requests.codes.partial_content
            with (
                self.part.open("ab" if resumes else "wb") as file,
                self._progress(response, start * resumes) as progress,
            ):
                for piece in response.iter_content(_PIECE):
                    file.write(piece)
                    progress.advance(len(piece) / _MB)

    def _progress(self, response: "Response", start: int) -> Progress:
        """Return the display of a download that begins at byte `start`."""
        length = response.headers.get("Content-Length", "")
        total = (start + int(length)) / _MB if length.isdecimal() else None
        return Progress(f"downloading {self.part.stem}", total, "MB", done=start / _MB)
