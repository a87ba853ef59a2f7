"""What the commands for the user's own photos have in common: their checks of options, and what they print."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepemd.errors import InputError, printable

if TYPE_CHECKING:
    from deepemd.apps.photos.fitting import FittedPhotos, Note
    from deepemd.data.photos import Photos

__all__ = ["as_json", "at_least_one", "fail_if_unreadable", "fit", "page_in", "print_files", "refuse_absent"]


def fit(photos: "Photos", cache: Path | None, settings: Mapping[str, Any]) -> "FittedPhotos":
    """Fit a classifier with these settings to photos, and print what the user should know."""
    from deepemd.apps.photos.fitting import fit_photos

    fitted = fit_photos(photos, cache=cache, **settings)
    for note in fitted.notes:
        note.print()
    return fitted


def as_json(notes: "Sequence[Note]") -> list[dict[str, str | list[str]]]:
    """Return notes for a JSON file."""
    return [{"note": note.title, "about": list(note.lines)} for note in notes]


def at_least_one(**options: int | None) -> None:
    """Refuse an option that is below 1."""
    for name, value in options.items():
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}: it must be at least 1")


def refuse_absent(option: str, paths: Sequence[Path | None], kind: str) -> None:
    """Refuse input that does not exist, before anything else is done; if a part of it exists, that is classified."""
    try:
        if any(path is None or path.exists() or path.is_symlink() for path in paths):
            return
    except OSError as error:  # a name that is too long, or no access
        raise InputError(
            f"{option}: {error.filename}: cannot be looked up ({error.strerror}): check the path"
        ) from error
    raise InputError(f"{option}: {', '.join(map(str, paths))}: there is no such {kind}: check the path")


def page_in(report: Path | None, name: str) -> Path | None:
    """Return the page to write into a folder."""
    if report is None:
        return None
    if report.exists() and not report.is_dir():
        raise InputError(f"report: {report} is a file: name a folder, for {name} in it")
    return report / name


def print_files(**files: Path | None) -> None:
    """Print the names of the files that were written."""
    for what, path in files.items():
        if path is not None:
            print(f"{what}: {printable(path)}")


def fail_if_unreadable(bad: int) -> None:
    """Raise an error for photos that were left out, now that everything else is written."""
    if bad:
        raise InputError(
            f"{bad:,} photo{'s' if bad > 1 else ''} could not be read, as listed above; everything else is done"
        )
