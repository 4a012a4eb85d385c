"""One offline page on which a person labels answers, one rule at a time, blinded.

The page holds what `Item.shown` gives and nothing else: no method, model, mark or reason is in
it, so there is nothing to find in its source either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from adhere.chat import digest
from adhere.reporting import formats as f
from adhere.reporting.templating import asset, content_policy, environment

# What could end the data element early or start another; JSON reads the escapes as the same text.
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def render_label_page(
    items: Sequence[Mapping[str, Any]], *, title: str, labeler: str = "", answers_name: str
) -> str:
    """The page as text; equal bytes for equal input.

    `items`: `id`, `rule` (its text), `messages` (`role` and `text`), `response`, `sensitive`.
    `labeler` stands in the name field, `answers_name` is the file that the page saves.
    """
    data = {
        "key": digest([labeler, *(item["id"] for item in items)])[:16],  # of what a browser keeps
        "file": answers_name,
        "items": [
            {
                "id": item["id"],
                "rule": f.clean(item["rule"]),
                "messages": [
                    {"role": f.one_line(m["role"], 40), "text": f.clean(m["text"])}
                    for m in item["messages"]
                ],
                "response": f.clean(item["response"]),
                "sensitive": bool(item["sensitive"]),
            }
            for item in items
        ],
    }
    css, js = asset("label.css"), asset("label.js")
    return (
        environment(2_000)
        .get_template("label.html.jinja")
        .render(
            css=css,
            js=js,
            csp=content_policy(css, js),
            title=f.one_line(title, 80),
            labeler=f.one_line(labeler, 80),
            total=len(items),
            data=Markup(json.dumps(data, ensure_ascii=False).translate(_ESCAPES)),  # noqa: S704
        )
    )
