"""Return the versions of Python and of packages, which every report names."""

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["versions"]

_PACKAGES = ("deepemd", "torch", "numpy", "numba", "pillow")


def versions(*more: str) -> dict[str, str]:
    """Return the versions of Python, of deepemd and of the packages that its results depend on.

    Args:
        more: names of further packages; those that are not installed are left out.

    >>> list(versions())
    ['python', 'deepemd', 'torch', 'numpy', 'numba', 'pillow']
    """
    found = {"python": platform.python_version()}
    for name in (*_PACKAGES, *more):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
