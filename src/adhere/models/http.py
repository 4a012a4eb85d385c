"""JSON over HTTP to one server: the transport below every model that is reached by network.

One aiohttp session for a server. No retries here: `models/limiter.py` owns them. Every failure
becomes one of the project's errors; the key never appears in a message.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import html
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from adhere.errors import BadInput, CallError, Garbage, Overloaded, Timeout
from adhere.models.http_errors import (
    error_detail,
    error_for_status,
    reported_status,
    retry_after,
)

CONNECT_SECONDS = 10.0
LARGEST_REPLY = 32 * 1024 * 1024  # bytes
LARGEST_ERROR = 64 * 1024  # bytes read of an error's body; its status decides, not its text
ERROR_SECONDS = 10.0  # and so long at most


def check_base_url(url: str) -> str:
    """The URL without a trailing slash. Raises BadInput when it is no http(s) URL.

    What could be a secret in it (a user, a password, a query) stands in no message.
    """
    if "@" in url:
        raise BadInput(
            f"--base-url: found a user name or password in the URL (for {_shown(url)!r})",
            hint="Put the key into an environment variable and name it with --api-key-env.",
        )
    try:
        parts = urlsplit(url)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        raise BadInput(f"--base-url: {_shown(url)!r} is no URL") from None
    if not port_ok or parts.query or parts.fragment:
        raise BadInput(
            f"--base-url: {_shown(url)!r} with a query, fragment or port 0; "
            "expected the plain root of an API"
        )
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise BadInput(
            f"--base-url: found {_shown(url)!r}; expected something like http://127.0.0.1:8000/v1",
        )
    return url.rstrip("/")


def _shown(url: str) -> str:
    return url.rpartition("@")[2].partition("?")[0].partition("#")[0]


def _is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for a server; none for this machine."""
    host = urlsplit(url).hostname or ""
    if _is_loopback(url) or proxy_bypass(host):
        return None
    return getproxies().get(urlsplit(url).scheme)


class Endpoint:
    """One server. `timeout` is seconds for a whole answer; in a stream, for each event."""

    def __init__(
        self, base_url: str, *, key: str | None = None, timeout: float = 300.0, pool: int = 64
    ) -> None:
        self.base_url = check_base_url(base_url)
        if key and not (key.isascii() and key.isprintable()):
            raise BadInput(
                "the key holds a line break or another character that no key has",
                hint="Look at the environment variable that holds it.",
            )
        self._key = key
        self._secrets = _spellings(key) if key else ()
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
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                # Not `trust_env`: it would also send passwords of ~/.netrc to the server.
                proxy=_proxy(self.base_url),
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
                if reply.status != 200:
                    raise await self._status_error(reply, url)
                raw = await self._body(reply)
        except TimeoutError:
            raise Timeout(f"{self.base_url}: no whole answer within {timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._connection_error(error) from None
        data = self._parse(raw, reply.headers.get("Content-Type", ""))
        if isinstance(data, dict) and data.get("error") and "choices" not in data:
            raise self._reported(data, url)
        return data

    async def _body(self, reply: aiohttp.ClientResponse) -> bytes:
        pieces, size = [], 0
        async for piece in reply.content.iter_any():
            size += len(piece)
            if size > LARGEST_REPLY:
                raise Garbage(f"{self.base_url}: the reply is larger than {LARGEST_REPLY} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    def _parse(self, raw: bytes, content_type: str) -> Any:
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):
            start = self.clean(raw[:LARGEST_ERROR].decode("utf-8", "replace"))[:80]
            what = "HTML" if "html" in content_type or start[:1] == "<" else "no JSON"
            raise Garbage(
                f"{self.base_url}: the reply is {what}: {start!r}",
                hint="Is --base-url the API's root? It usually ends in /v1.",
            ) from None

    async def stream(
        self, path: str, body: Mapping[str, Any]
    ) -> AsyncGenerator[dict[str, Any] | None, None]:
        """POST and yield the JSON events of a server-sent event stream, and None for [DONE].

        A stream that ends in order without [DONE] ends without None; one that is cut raises.
        """
        url = self._url(path)
        try:
            async with self._open().post(
                url,
                json={**body, "stream": True, "stream_options": {"include_usage": True}},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_SECONDS, sock_read=self.timeout
                ),
            ) as reply:
                if reply.status != 200:
                    raise await self._status_error(reply, url)
                events = _events(reply.content)
                while True:
                    # For a whole event: bytes that drip in one by one are no sign of life.
                    async with asyncio.timeout(self.timeout):
                        event = await anext(events, None)
                    if event is None:
                        return
                    if event == "[DONE]":
                        yield None
                        return
                    data = self._parse(event.encode(), "")
                    if isinstance(data, dict) and data.get("error"):
                        raise self._reported(data, url)
                    yield data
        except TimeoutError:
            raise Timeout(f"{self.base_url}: the stream stood still too long") from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._connection_error(error) from None
        except ValueError as error:  # too long, or a line longer than the reader's buffer
            raise Garbage(f"{self.base_url}: a broken event stream ({error})") from None

    def clean(self, text: str) -> str:
        """A server's words as they may stand in a message: short, on one line, without the key."""
        for secret in self._secrets:
            text = text.replace(secret, "[key]")
        return " ".join(text.split())[:400]

    def _connection_error(self, error: Exception) -> CallError:
        if isinstance(error, aiohttp.ClientConnectorError):
            return Overloaded(
                f"{self.base_url}: no connection ({self.clean(str(error.os_error))})",
                hint="Is the server running, and is --base-url right?",
            )
        return Overloaded(f"{self.base_url}: the connection broke ({type(error).__name__})")

    async def _status_error(self, reply: aiohttp.ClientResponse, url: str) -> CallError | BadInput:
        """The error of a status other than 200. A body that hangs or breaks changes nothing."""
        raw = b""
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(ERROR_SECONDS):
                async for piece in reply.content.iter_any():
                    raw += piece
                    if len(raw) > LARGEST_ERROR:
                        break
        try:
            detail = self.clean(error_detail(json.loads(raw)))
        except (ValueError, RecursionError):
            detail = self.clean(raw.decode("utf-8", "replace"))[:200]
        return error_for_status(
            reply.status,
            f"{self.base_url}: {urlsplit(url).path}: HTTP {reply.status}: ",
            detail,
            retry_after(reply.headers.get("Retry-After")),
        )

    def _reported(self, data: Mapping[str, Any], url: str) -> CallError | BadInput:
        """The error that a server reports in a reply of status 200 or in a stream."""
        return error_for_status(
            reported_status(data),
            f"{self.base_url}: {urlsplit(url).path}: the server reports an error: ",
            self.clean(error_detail(data)),
        )


def _spellings(key: str) -> tuple[str, ...]:
    """The key as a server may send it back, the longest spelling first."""
    found = {key, quote(key, safe=""), html.escape(key), json.dumps(key)[1:-1]}
    for text in (key, f"Bearer {key}"):
        coded = base64.b64encode(text.encode()).decode()
        found |= {coded, coded.rstrip("=")}
    return tuple(sorted(found, key=len, reverse=True))


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[str]:
    """The `data` of each server-sent event (several data lines are one event)."""
    lines: list[str] = []
    size = 0
    async for raw in content:
        size += len(raw)
        if size > LARGEST_REPLY:
            raise ValueError(f"larger than {LARGEST_REPLY} bytes")
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if line.startswith("data:"):
            lines.append(line[5:].removeprefix(" "))
        elif not line and lines:
            yield "\n".join(lines)
            lines = []
    if lines:
        yield "\n".join(lines)
