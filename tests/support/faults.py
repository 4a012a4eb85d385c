"""Every way in which a server can fail, and how a call and a row must end for each.

One table for the client's tests, the tests of whole runs and the search for a planted key.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

from adhere.errors import (
    AdhereError,
    Auth,
    BadInput,
    ContextTooLong,
    Filtered,
    Garbage,
    NotFound,
    Overloaded,
    RateLimited,
    Timeout,
)
from support.fake_server import Fault, Reply

TIMEOUT = 0.4  # seconds that the tests give a server; the slow faults take longer


@dataclass(frozen=True)
class Case:
    """A reply, the error that a call must end in (None: it is an answer), the row's outcome."""

    reply: Reply | Fault
    error: type[AdhereError] | None
    retried: bool = False
    outcome: str = "failed"


def choice(text: Any = "bye", **more: Any) -> dict[str, Any]:
    """One choice of a reply."""
    return {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text},
        **more,
    }


def reply_of(*choices: Any, **more: Any) -> Fault:
    """A reply of status 200 that holds these choices."""
    return Fault(200, json.dumps({"choices": list(choices), **more}))


def error_of(message: str, code: Any = None) -> str:
    """An error as OpenAI-compatible servers report it."""
    return json.dumps({"error": {"message": message, "code": code}})


def usage_of(prompt: Any, completion: Any, cached: Any = None) -> Fault:
    """A good reply with these token counts."""
    details = {"cached_tokens": cached}
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return reply_of(choice(), usage={**counts, "prompt_tokens_details": details})


GOOD = json.dumps({"choices": [choice()], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})
ECHO = error_of("refused: {authorization} {quoted} {base64}")
HTML = "<html><body>Bad gateway: {authorization}</body></html>"


def past() -> str:
    """An HTTP date that is over."""
    return formatdate(time.time() - 3600, usegmt=True)


FAULTS: dict[str, Case] = {
    # The server refuses.
    "401": Case(Fault(401, ECHO), Auth),
    "403": Case(Fault(403, ECHO), Auth),
    "402": Case(Fault(402, ECHO), Auth),
    "401 whose body breaks": Case(Fault(401, ECHO, cut="rst"), Auth),
    "429 without credit": Case(Fault(429, error_of("x" * 900, "insufficient_quota")), Auth),
    "404": Case(Fault(404, ECHO), NotFound),
    "302": Case(Fault(302, headers={"Location": "http://127.0.0.1:9/"}), NotFound),
    "400": Case(Fault(400, ECHO), BadInput),
    "400 too long": Case(
        Fault(400, error_of("This exceeds the maximum context length")), ContextTooLong
    ),
    "400 too long, by code": Case(
        Fault(400, error_of("x" * 900, "context_length_exceeded")), ContextTooLong
    ),
    "413": Case(Fault(413, HTML, "text/html"), ContextTooLong),
    # It cannot now.
    "429": Case(Fault(429, ECHO), RateLimited, retried=True),
    "429 with Retry-After": Case(
        Fault(429, ECHO, headers={"Retry-After": "0.05"}), RateLimited, retried=True
    ),
    "429 with Retry-After 0": Case(
        Fault(429, headers={"Retry-After": "0"}), RateLimited, retried=True
    ),
    "429 with a date": Case(Fault(429, headers={"Retry-After": past()}), RateLimited, retried=True),
    "429 with nonsense": Case(
        Fault(429, headers={"Retry-After": "soon"}), RateLimited, retried=True
    ),
    "408": Case(Fault(408, ECHO), Timeout, retried=True),
    "409": Case(Fault(409, ECHO), Overloaded, retried=True),
    "500": Case(Fault(500, ECHO), Overloaded, retried=True),
    "502 HTML": Case(Fault(502, HTML, "text/html"), Overloaded, retried=True),
    "503 with Retry-After": Case(
        Fault(503, ECHO, headers={"Retry-After": "0.05"}), Overloaded, retried=True
    ),
    "504": Case(Fault(504, HTML, "text/html"), Timeout, retried=True),
    "500 of gigantic size": Case(Fault(500, size=2**26), Overloaded, retried=True),
    # It breaks off.
    "hang": Case(Fault(hang=5), Timeout, retried=True),
    "drip": Case(Fault(200, GOOD, drip=TIMEOUT / 4), Timeout, retried=True),
    "reset before the headers": Case(Fault(reset=True), Overloaded, retried=True),
    "reset in the body": Case(Fault(200, GOOD, cut="rst"), Overloaded, retried=True),
    "end in the body": Case(Fault(200, GOOD, cut="fin"), Overloaded, retried=True),
    # It says nothing that the protocol knows.
    "truncated JSON": Case(Fault(200, GOOD[: len(GOOD) // 2]), Garbage, retried=True),
    "empty body": Case(Fault(200, ""), Garbage, retried=True),
    "status 204": Case(Fault(204, ""), Garbage, retried=True),
    "HTML": Case(Fault(200, HTML, "text/html"), Garbage, retried=True),
    "not UTF-8": Case(
        Fault(200, GOOD.encode().replace(b"bye", b"b\xff\xfee")), Garbage, retried=True
    ),
    "too deep": Case(Fault(200, "[" * 200_000), Garbage, retried=True),
    "gigantic": Case(Fault(200, GOOD, size=2**26), Garbage, retried=True),
    "a list": Case(Fault(200, "[]"), Garbage, retried=True),
    "no choices": Case(Fault(200, "{}"), Garbage, retried=True),
    "0 choices": Case(reply_of(), Garbage, retried=True),
    "null choices": Case(Fault(200, '{"choices": null}'), Garbage, retried=True),
    "2 choices": Case(reply_of(choice(), choice(index=1)), Garbage, retried=True),
    "duplicate choices": Case(reply_of(choice(), choice()), Garbage, retried=True),
    "another choice": Case(reply_of(choice(index=1)), Garbage, retried=True),
    "a choice that is a text": Case(reply_of("bye"), Garbage, retried=True),
    "no message": Case(reply_of({"index": 0, "finish_reason": "stop"}), Garbage, retried=True),
    "null message": Case(reply_of(choice(message=None)), Garbage, retried=True),
    "a number as content": Case(reply_of(choice(7)), Garbage, retried=True),
    "parts as content": Case(reply_of(choice([{"type": "text"}])), Garbage, retried=True),
    "a number as finish_reason": Case(reply_of(choice(finish_reason=1)), Garbage, retried=True),
    "a text as tool calls": Case(
        reply_of(choice(message={"content": None, "tool_calls": "x"})), Garbage, retried=True
    ),
    # It reports an error in a reply of status 200.
    "an error in 200": Case(Fault(200, ECHO), Overloaded, retried=True),
    "429 in 200": Case(Fault(200, error_of("slow down", 429)), RateLimited, retried=True),
    "401 in 200": Case(Fault(200, error_of("{authorization}", 401)), Auth),
    "broken off by the server": Case(
        reply_of(choice("I can", finish_reason="error")), Overloaded, retried=True
    ),
    "aborted by the server": Case(
        reply_of(choice("I can", finish_reason="abort")), Overloaded, retried=True
    ),
    # A filter.
    "content filter": Case(Reply("I can", finish="content_filter"), Filtered, outcome="filtered"),
    "content filter, null": Case(
        Reply(None, finish="content_filter"), Filtered, outcome="filtered"
    ),
    "400 content filter": Case(
        Fault(400, error_of("x" * 900, "content_filter")), Filtered, outcome="filtered"
    ),
    "content filter in 200": Case(
        Fault(200, error_of("withheld", "content_filter")), Filtered, outcome="filtered"
    ),
    # Answers, but nothing to score.
    "empty content": Case(Reply(""), None, outcome="unscored"),
    "null content": Case(Reply(None), None, outcome="unscored"),
    "missing content": Case(
        reply_of(choice(message={"role": "assistant"})), None, outcome="unscored"
    ),
    "blank content": Case(Reply(" \n\t "), None, outcome="unscored"),
    "length at once": Case(Reply("", finish="length"), None, outcome="unscored"),
    "length in a thought": Case(Reply("<think>\nI", finish="length"), None, outcome="truncated"),
    # Answers.
    "length": Case(Reply("so bye", finish="length"), None, outcome="scored"),
    "no finish_reason": Case(reply_of(choice(finish_reason=None)), None, outcome="scored"),
    "usage missing": Case(reply_of(choice()), None, outcome="scored"),
    "usage null": Case(reply_of(choice(), usage=None), None, outcome="scored"),
    "usage a list": Case(reply_of(choice(), usage=[1, 2]), None, outcome="scored"),
    "usage negative": Case(usage_of(-5, -7, -1), None, outcome="scored"),
    "usage texts": Case(usage_of("many", "7", "x"), None, outcome="scored"),
    "usage fractions": Case(usage_of(1.5, 2.25, 0.1), None, outcome="scored"),
    "usage endless": Case(usage_of(10**400, float("inf"), float("nan")), None, outcome="scored"),
    "usage true": Case(usage_of(True, False, True), None, outcome="scored"),
    "half a character": Case(reply_of(choice("a \ud83d bye")), None, outcome="scored"),
}


# ---------------------------------------------------------------- streams


def event(text: str | None = None, finish: str | None = None, **more: Any) -> str:
    """One event of a stream."""
    delta = {} if text is None else {"content": text}
    body = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]}
    return f"data: {json.dumps(body)}"


def stream_of(*events: str, **how: Any) -> Fault:
    """A stream of these events."""
    return Fault(200, events=events, **how)


DONE = "data: [DONE]"
HALVES = (event("so "), event("bye"))
STREAM_FAULTS: dict[str, Case] = {
    "whole": Case(stream_of(*HALVES, event(finish="stop"), DONE), None),
    "whole without [DONE]": Case(stream_of(*HALVES, event(finish="stop")), None),
    "whole without finish_reason": Case(stream_of(*HALVES, DONE), None),
    "signs of life": Case(
        stream_of(": ping", 'data: {"choices": []}', *HALVES, ": ping", DONE), None
    ),
    "neither [DONE] nor finish_reason": Case(stream_of(*HALVES), Garbage, retried=True),
    "end in the middle": Case(stream_of(*HALVES, cut="fin"), Overloaded, retried=True),
    "reset in the middle": Case(stream_of(*HALVES, cut="rst"), Overloaded, retried=True),
    "end after finish_reason": Case(
        stream_of(*HALVES, event(finish="stop"), cut="fin"), Overloaded, retried=True
    ),
    "nothing": Case(stream_of(), Garbage, retried=True),
    "nothing but [DONE]": Case(stream_of(DONE), Garbage, retried=True),
    "an error": Case(stream_of(HALVES[0], f"data: {ECHO}"), Overloaded, retried=True),
    "an error of the key": Case(stream_of(HALVES[0], f"data: {error_of('no', 401)}"), Auth),
    "a filter's error": Case(
        stream_of(HALVES[0], f"data: {error_of('no', 'content_filter')}"), Filtered
    ),
    "a filter": Case(stream_of(HALVES[0], event(finish="content_filter"), DONE), Filtered),
    "broken off by the server": Case(
        stream_of(HALVES[0], event(finish="error"), DONE), Overloaded, retried=True
    ),
    "garbage": Case(stream_of(HALVES[0], "data: {not JSON", DONE), Garbage, retried=True),
    "half an event": Case(stream_of(HALVES[0], HALVES[1][:-20]), Garbage, retried=True),
    "a number": Case(stream_of(HALVES[0], "data: 7", DONE), Garbage, retried=True),
    "a number as choices": Case(
        stream_of(HALVES[0], 'data: {"choices": 7}', DONE), Garbage, retried=True
    ),
    "a number as content": Case(
        stream_of('data: {"choices": [{"delta": {"content": 7}}]}', DONE), Garbage, retried=True
    ),
    "another choice": Case(stream_of(HALVES[0], event("x", index=1), DONE), Garbage, retried=True),
    "two choices": Case(
        stream_of('data: {"choices": [{"delta": {}}, {"delta": {}}]}', DONE),
        Garbage,
        retried=True,
    ),
    "an endless line": Case(
        stream_of(HALVES[0], "data: " + "x" * 400_000, DONE), Garbage, retried=True
    ),
    "JSON instead": Case(Fault(200, GOOD, drip=0), Garbage, retried=True),
    "HTML instead": Case(Fault(200, HTML, "text/html"), Garbage, retried=True),
    "500": Case(Fault(500, ECHO), Overloaded, retried=True),
    "hang": Case(Fault(hang=5), Timeout, retried=True),
    # Each piece comes before the timeout, a whole event only after it.
    "drip": Case(stream_of(HALVES[0], drip=TIMEOUT / 4, pieces=20), Timeout, retried=True),
}
