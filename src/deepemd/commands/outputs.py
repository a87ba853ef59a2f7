"""Output files of commands: checked and locked before the work begins."""

from pathlib import Path

from deepemd.errors import InputError
from deepemd.results import Output, ResultFiles, check_output

__all__ = ["Output", "ResultFiles", "check_output", "check_picture"]


def check_picture(option: str, file: Path | None) -> None:
    """Check, before any work is done, that the suffix of a file names a format of pictures.

    Raises:
        InputError: it does not.
    """
    if file is None:
        return
    from deepemd.explain.plots import new_figure

    formats = sorted(new_figure(1, 1).canvas.get_supported_filetypes())
    if file.suffix.lower().removeprefix(".") not in formats:
        raise InputError(
            f"{option}: {file} has no suffix of a picture; name it, for instance, {file.with_suffix('.png')} (formats:"
            f" {', '.join(formats)})"
        )
