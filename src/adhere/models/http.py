"""JSON over HTTP to one server: the transport below every model that is reached by network.

One aiohttp session for a server. No retries here: `models/limiter.py` owns them. Every failure
becomes one of the project's errors; the key never appears in a message.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp

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

CONNECT_SECONDS = 10.0
LARGEST_REPLY = 64 * 1024 * 1024

_CONTEXT_WORDS = (
    "context length",
    "context size",
    "context window",
    "context_length",
    "maximum context",
    "exceed_context_size",
    "too many tokens",
)


def check_base_url(url: str) -> str:
    """The URL without a trailing slash. Raises BadInput when it is no http(s) URL."""
    try:
        parts = urlsplit(url)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        raise BadInput(f"--base-url: {url!r} is no URL") from None
    if not port_ok or parts.query or parts.fragment:
        raise BadInput(
            f"--base-url: {urlunsplit((*parts[:3], '', ''))!r} with a query, fragment or port 0; "
            "expected the plain root of an API"
        )
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise BadInput(
            f"--base-url: found {url!r}; expected something like http://127.0.0.1:8000/v1",
        )
    if parts.username or parts.password:
        raise BadInput(
            "--base-url: found a user name or password in the URL",
            hint="Put the key into an environment variable and name it with --api-key-env.",
        )
    return url.rstrip("/")


def _is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


class Endpoint:
    """One server. `timeout` is seconds for a whole answer; streams time out between pieces."""

    def __init__(
        self, base_url: str, *, key: str | None = None, timeout: float = 300.0, pool: int = 64
    ) -> None:
        self.base_url = check_base_url(base_url)
        self._key = key
        self.timeout = timeout
        self._pool = pool
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        # Made at first use: a session belongs to the event loop that is running then.
        if self._session is None or self._session.closed:
            headers = {"User-Agent": "adhere"}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            self._session = aiohttp.ClientSession(
                headers=headers,
                connector=aiohttp.TCPConnector(limit=self._pool),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                trust_env=not _is_loopback(self.base_url),  # proxies of the environment
            )
        return self._session

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _url(self, path: str) -> str:
        return self.base_url + path

    @property
    def root(self) -> str:
        """The server's URL without the API version, where some servers keep extra routes."""
        return self.base_url.removesuffix("/v1")

    async def get(self, path: str, *, timeout: float = 15.0) -> Any:
        """GET a JSON document."""
        return await self._json("GET", self._url(path), None, timeout)

    async def post(
        self, path: str, body: Mapping[str, Any], *, timeout: float | None = None
    ) -> Any:
        """POST JSON, read JSON. Raises one CallError or BadInput for any failure."""
        url = path if path.startswith("http") else self._url(path)
        return await self._json("POST", url, body, timeout or self.timeout)

    async def _json(self, verb: str, url: str, body: Any, timeout: float) -> Any:
        try:
            async with (
                asyncio.timeout(timeout),
                self._open().request(verb, url, json=body, allow_redirects=False) as reply,
            ):
                raw = await self._body(reply)
                if reply.status != 200:
                    raise self._status_error(reply, raw, url)
        except TimeoutError:
            raise Timeout(f"{self.base_url}: no whole answer within {timeout:g} s") from None
        except aiohttp.ClientError as error:
            raise self._connection_error(error) from None
        return self._parse(raw, reply.headers.get("Content-Type", ""))

    async def _body(self, reply: aiohttp.ClientResponse) -> bytes:
        pieces, size = [], 0
        async for piece in reply.content.iter_chunked(65536):
            size += len(piece)
            if size > LARGEST_REPLY:
                raise Garbage(f"{self.base_url}: the reply is larger than {LARGEST_REPLY} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    def _parse(self, raw: bytes, content_type: str) -> Any:
        try:
            return json.loads(raw)
        except ValueError:
            start = self.clean(raw[:200].decode("utf-8", "replace"))[:80]
            what = "HTML" if "html" in content_type or start[:1] == "<" else "no JSON"
            raise Garbage(
                f"{self.base_url}: the reply is {what}: {start!r}",
                hint="Is --base-url the API's root? It usually ends in /v1.",
            ) from None

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """POST and yield the JSON events of a server-sent event stream until [DONE]."""
        try:
            async with self._open().post(
                self._url(path),
                json={**body, "stream": True, "stream_options": {"include_usage": True}},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_SECONDS, sock_read=self.timeout
                ),
            ) as reply:
                if reply.status != 200:
                    raise self._status_error(reply, await self._body(reply), self._url(path))
                async for event in _events(reply.content):
                    if event == "[DONE]":
                        return
                    data = self._parse(event.encode(), "")
                    if isinstance(data, dict) and "error" in data:
                        raise Overloaded(f"{self.base_url}: {self.clean(str(data['error']))}")
                    yield data
        except TimeoutError:
            raise Timeout(f"{self.base_url}: the stream stood still too long") from None
        except aiohttp.ClientError as error:
            raise self._connection_error(error) from None
        except ValueError as error:  # a line longer than the reader's buffer
            raise Garbage(f"{self.base_url}: a broken event stream ({error})") from None
        raise Garbage(f"{self.base_url}: the stream ended before it was done")

    def clean(self, text: str) -> str:
        """A server's words as they may stand in a message: short, on one line, without the key."""
        if self._key:
            text = text.replace(self._key, "[key]")
        return " ".join(text.split())[:400]

    def _connection_error(self, error: aiohttp.ClientError) -> CallError:
        if isinstance(error, aiohttp.ClientConnectorError):
            return Overloaded(
                f"{self.base_url}: no connection ({self.clean(str(error.os_error))})",
                hint="Is the server running, and is --base-url right?",
            )
        return Overloaded(f"{self.base_url}: the connection broke ({type(error).__name__})")

    def _status_error(
        self, reply: aiohttp.ClientResponse, raw: bytes, url: str
    ) -> CallError | BadInput:
        status = reply.status
        detail = self._detail(raw)
        said = f"{urlsplit(url).path}: HTTP {status}: {detail}"
        where = f"{self.base_url}: {said}"
        if status in (401, 403):
            return Auth(
                where,
                hint="Put the right key into an environment variable and name it "
                "with --api-key-env.",
            )
        if status == 404:
            return NotFound(where, hint="Check --base-url (it usually ends in /v1) and the model.")
        if status == 429:
            return RateLimited(where, retry_after=_retry_after(reply.headers.get("Retry-After")))
        if status in (408, 504):
            return Timeout(where)
        if status >= 500:
            return Overloaded(where, retry_after=_retry_after(reply.headers.get("Retry-After")))
        lower = detail.lower()
        if status == 413 or any(word in lower for word in _CONTEXT_WORDS):
            return ContextTooLong(where, hint="Shorten the spec or prompt, or lower --max-tokens.")
        if "content_filter" in lower or "content management policy" in lower:
            return Filtered(where)
        if 300 <= status < 400:
            return NotFound(
                where, hint="The server redirects; give the URL that it redirects to as --base-url."
            )
        return BadInput(where, hint="The server does not take this request.")

    def _detail(self, raw: bytes) -> str:
        try:
            data = json.loads(raw)
        except ValueError:
            return self.clean(raw[:200].decode("utf-8", "replace"))
        error = data.get("error", data) if isinstance(data, dict) else data
        if isinstance(error, dict):
            code = error.get("code")
            text = str(error.get("message") or error)
            return self.clean(f"{text} ({code})" if isinstance(code, str) else text)
        return self.clean(str(error))


def _retry_after(value: str | None) -> float | None:
    """Seconds, from the header's number or date."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[str]:
    """The `data` of each server-sent event (several data lines are one event)."""
    lines: list[str] = []
    async for raw in content:
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if line.startswith("data:"):
            lines.append(line[5:].removeprefix(" "))
        elif not line and lines:
            yield "\n".join(lines)
            lines = []
    if lines:
        yield "\n".join(lines)
