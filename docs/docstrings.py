"""Docstrings made Markdown for docs/reference.md: an extension of griffe, with which mkdocstrings reads the code."""

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:class|func|meth|attr|mod):`~?([\w.]+)`")
_EXAMPLE = re.compile(r"^>>>.*\n(?:.+\n?)*", re.MULTILINE)  # up to the next empty line


class Docstrings(Extension):
    """Examples become fenced sessions, and Sphinx's roles become links, where the reference has what they name."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called by griffe for each object that it has read."""
        if obj.docstring is not None:
            text = _EXAMPLE.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", obj.docstring.value)
            obj.docstring.value = _ROLE.sub(lambda found: _link(found[1], obj), text)


def _link(name: str, obj: Object) -> str:
    within = obj if obj.is_class else obj.parent
    target = name if "." in name or within is None else f"{within.path}.{name}"
    shown = name.removeprefix("deepemd.")
    return f'<autoref optional identifier="{target}"><code>{shown}</code></autoref>'
