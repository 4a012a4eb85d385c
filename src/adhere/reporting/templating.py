"""What every page is made with: templates that escape, our own files, the content policy."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from adhere.reporting import formats as f
from adhere.reporting.facts import plain

_HERE = Path(__file__).parent / "templates"


def _finalize(limit: int) -> Any:
    """What every printed value passes: texts are cleaned and never endless, null is a dash."""

    def final(value: Any) -> Any:
        if isinstance(value, Markup | jinja2.Undefined):
            return value
        if value is None:
            return f.DASH
        text = str(value)
        if len(text) > limit:
            text = f"{text[:limit]}… [{len(text) - limit:,} more characters]"
        return f.clean(text)

    return final


@cache
def environment(limit: int) -> jinja2.Environment:
    """Templates that escape all, and print at most `limit` characters in one place."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize(limit),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["f"] = f
    environment.filters["plain"] = plain
    environment.filters["discreet"] = f.without_credentials
    return environment


@cache
def asset(name: str) -> Markup:
    """A file of ours that goes into the page as it is."""
    text = (_HERE / name).read_text(encoding="utf-8")
    if "</" in text:
        raise AssertionError(f"{name} must not hold '</': it would end its element early")
    return Markup(text)  # noqa: S704  (a file of this package, not a text from outside)


def content_policy(css: str, js: str = "") -> str:
    """Nothing from anywhere, and of inline code only ours, by hash: equal input, equal bytes."""

    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    scripts = f"script-src {source(js)}; " if js else ""
    return (
        f"default-src 'none'; style-src {source(css)}; {scripts}"
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
