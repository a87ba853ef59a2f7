"""The page that describes the endpoint and lets a reader try it; it loads nothing from elsewhere."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepemd.apps.reports.page import text

__all__ = ["policy", "render"]

_POLICY = (
    "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def render(schema: Mapping[str, Any], *, has_token: bool) -> str:
    """Return the page as HTML.

    Args:
        schema: the OpenAPI description of the endpoint.
        has_token: whether requests need a token.
    """
    sections = [
        _operation(path, method, operation)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    ]
    sections += [_type(name, one) for name, one in schema["components"]["schemas"].items() if "properties" in one]
    values = {
        "summary": text(schema["info"]["summary"]),
        "version": text(schema["info"]["version"]),
        "token": "" if has_token else " hidden",
        "sections": "\n".join(sections),
    }
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], page)


def policy(page: str) -> str:
    """Return the Content-Security-Policy of the page: its own script and style, named by their hash, and no others."""
    inside = (re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL) for tag in ("script", "style"))
    hashes = (base64.b64encode(hashlib.sha256(one[1].encode()).digest()).decode() for one in inside if one)
    return _POLICY.format(*(f"sha256-{one}" for one in hashes))


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    """Return a section about one path."""
    body = operation.get("requestBody")
    takes = f"<p>{text(body['description'])} Types: {text(', '.join(body['content']))}.</p>" if body else ""
    rows = [
        (text(status), text(answer["description"]), _name(_schema(answer)))
        for status, answer in operation["responses"].items()
    ]
    head = f"<h2><code>{text(method.upper())} {text(path)}</code></h2><p>{text(operation['description'])}</p>"
    return f"<section>{head}{takes}{_table('status when JSON', rows)}</section>"


def _type(name: str, schema: Mapping[str, Any]) -> str:
    """Return a section about one JSON object."""
    rows = [
        (f"<code>{text(field)}</code>", _name(one), text(one.get("description", "")))
        for field, one in schema["properties"].items()
    ]
    about = f"<p>{text(schema.get('description', ''))}</p>"
    return f"<section id='{text(name)}'><h2>{text(name)}</h2>{about}{_table('field type meaning', rows)}</section>"


def _table(heads: str, rows: Sequence[tuple[str, str, str]]) -> str:
    head = "".join(f"<th>{one}</th>" for one in heads.split())
    body = "".join(f"<tr><th scope='row'>{one}</th><td>{two}</td><td>{three}</td></tr>" for one, two, three in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _schema(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = answer.get("content", {}).get("application/json", {}).get("schema", {})
    return found


def _name(schema: Mapping[str, Any]) -> str:
    """Return the type of a value in words, with links to the objects."""
    if "$ref" in schema:
        name = text(schema["$ref"].rpartition("/")[2])
        return f"<a href='#{name}'>{name}</a>"
    if "anyOf" in schema:
        *names, last = dict.fromkeys(_name(one) for one in schema["anyOf"])
        return f"{', '.join(names)} or {last}" if names else last
    if schema.get("type") == "array":
        return f"list of {_name(schema['items'])}"
    if "additionalProperties" in schema:
        return f"object of {_name(schema['additionalProperties'])}"
    kind = schema.get("type", "")
    return text("number" if kind == "integer" else kind)
