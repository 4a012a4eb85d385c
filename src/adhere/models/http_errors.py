"""From what a server answers to the project's error: status, code and words.

The status decides where it can; servers use 400 for a prompt that is too long and for a content
filter alike, so there the code and the words decide.
"""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from typing import Any

from adhere.errors import (
    Auth,
    BadInput,
    CallError,
    ContextTooLong,
    Filtered,
    Garbage,
    NotFound,
    Overloaded,
    RateLimited,
    Timeout,
)

_CONTEXT_WORDS = (
    "context length",
    "context size",
    "context window",
    "context_length",
    "maximum context",
    "exceed_context_size",
    "too many tokens",
)
_FILTER_WORDS = ("content_filter", "content management policy")
_NOT_HERE = "not implemented by the server"
_NO_CREDIT = "insufficient_quota"  # comes as 429, but no waiting helps
# The status that belongs to an error's code where it comes without one.
_CODES = {"invalid_api_key": 401, "model_not_found": 404}


def error_for_status(
    status: int, place: str, detail: str, retry_after: float | None = None
) -> CallError | BadInput:
    """The error for an HTTP status. `place` stands before the server's words in the message."""
    where, lower = place + detail, detail.lower()
    if status in (401, 403):
        return Auth(
            where,
            hint="Put the right key into an environment variable and name it with --api-key-env.",
        )
    if status == 402 or (status == 429 and _NO_CREDIT in lower):
        return Auth(where, hint="The account that the key belongs to has no credit left.")
    if status == 404:
        return NotFound(where, hint="Check --base-url (it usually ends in /v1) and the model.")
    if status == 429:
        return RateLimited(where, retry_after=retry_after)
    if status == 501:
        return BadInput(f"{where} ({_NOT_HERE})", hint="The server does not have this route.")
    if status in (408, 504):
        return Timeout(where)
    if status >= 500 or status in (409, 425):  # conflict, too early: another time will do
        return Overloaded(where, retry_after=retry_after)
    if status < 300:
        return Garbage(where)
    if status < 400:
        return NotFound(
            where, hint="The server redirects; give the URL that it redirects to as --base-url."
        )
    if status == 413 or any(word in lower for word in _CONTEXT_WORDS):
        return ContextTooLong(where, hint="Shorten the spec or prompt, or lower --max-tokens.")
    if any(word in lower for word in _FILTER_WORDS):
        return Filtered(where)
    return BadInput(where, hint="The server does not take this request.")


def lacks_route(error: Exception) -> bool:
    """Whether an error says that the server has no such route: nothing that waiting could mend."""
    return isinstance(error, NotFound) or (
        isinstance(error, BadInput) and error.message.endswith(f"({_NOT_HERE})")
    )


def error_detail(data: Any) -> str:
    """What an error's body says: the code, on which the class may hang, before the text."""
    error = data.get("error", data) if isinstance(data, dict) else data
    if not isinstance(error, dict):
        return str(error)
    code, text = error.get("code"), str(error.get("message") or error)
    return f"{code}: {text}" if isinstance(code, str) and code else text


def reported_status(data: Mapping[str, Any]) -> int:
    """The HTTP status of an error that came in a reply of status 200 or in a stream."""
    error = data["error"]
    holder = error if isinstance(error, dict) else data
    code, kind = holder.get("code"), holder.get("type")
    if isinstance(code, str) and any(w in code.lower() for w in _FILTER_WORDS + _CONTEXT_WORDS):
        return 400
    if isinstance(code, str) and code in _CODES:
        return _CODES[code]
    if not isinstance(code, int) and kind == "invalid_request_error":
        return 400
    return code if isinstance(code, int) and 400 <= code < 600 else 500


def retry_after(value: str | None) -> float | None:
    """Seconds, from the header's number or date. None when it says nothing."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
