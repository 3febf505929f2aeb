"""
The demo application: one page that shows a newcomer what the server does, live.

A plain ASGI 3 application on the standard library alone, so that any ASGI server can run it:

    serve txasgi.apps.demo:app

    GET  /          the page: the request's scope, and the panels that use what follows
    GET  /headers   the same scope as JSON
    GET  /events    server-sent events: a clock
    POST /upload    counts a request body as it streams in
    WS   /ws        sends back what it gets, subprotocol demo.echo

Rules. Nothing is kept between requests but what lifespan puts into the state. The page fetches nothing
from elsewhere and runs only the script and the style whose hashes are in its Content-Security-Policy.
Whatever a client sent is escaped before it is shown.

The page's text, style and script are the files beside this one; they are read once, when first asked for.
"""

import asyncio
import json
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from html import escape
from http import HTTPStatus
from importlib.resources import files
from string import Template
from typing import Any
from urllib.parse import quote

__all__ = ["Demo", "app"]

# ASGI leaves the values of these open, hence Any.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Field = tuple[bytes, bytes]

SUBPROTOCOL = "demo.echo"
METHODS = {
    "/": ("GET", "HEAD"),
    "/headers": ("GET", "HEAD"),
    "/events": ("GET", "HEAD"),
    "/upload": ("POST",),
}
SHOWN = (
    "type",
    "method",
    "path",
    "raw_path",
    "query_string",
    "root_path",
    "http_version",
    "scheme",
    "client",
    "server",
    "asgi",
    "extensions",
)
# Scripts can't read these in a browser's cookie jar or password store; a page that repeats them would
# undo that for the whole origin (the reason why TRACE is switched off everywhere).
SECRETS = frozenset({b"authorization", b"cookie", b"proxy-authorization"})
PRIVATE: tuple[Field, ...] = (
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


@dataclass(frozen=True, slots=True)
class Reply:
    """
    A whole answer, small enough to be held in memory.
    """

    status: int
    content_type: bytes
    body: bytes
    headers: tuple[Field, ...] = ()


class Demo:
    """
    The application.

    tick_s: seconds between two ticks of the clock.
    ticks: how many one event stream has, at least 1. A server that drains waits for its answers to end and
    tells the application of the shutdown only then; so a stream must end by itself, and within the 30 s
    that servers commonly allow. The browser comes back for more and says where it was.
    """

    def __init__(self, tick_s: float = 1.0, ticks: int = 20) -> None:
        self.tick_s = tick_s
        self.ticks = ticks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Serve one connection, as ASGI calls it. Raises ValueError for a scope of unknown type.
        """
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "websocket":
                await _websocket(scope, receive, send)
            case "lifespan":
                await _lifespan(scope, receive, send)
            case unknown:
                raise ValueError(f"scope of type {unknown!r}, expected http, websocket or lifespan")

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = _route(scope)
        refusal = _refusal(scope, route)
        if refusal is not None:
            await _answer(scope, send, refusal)
        elif route == "/events":
            await self._events(scope, receive, send)
        elif route == "/upload":
            await _upload(scope, receive, send)
        elif route == "/headers":
            body = json.dumps(_shown(scope), indent=2).encode() + b"\n"
            await _answer(scope, send, Reply(200, b"application/json", body))
        else:
            await _answer(scope, send, _page(scope))

    async def _events(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Send a tick now and every tick_s, until the client leaves, the server stops or the ticks are used up.
        """
        # nginx and those that follow it would hold back a tick until a buffer is full.
        unbuffered = (b"x-accel-buffering", b"no")
        headers = [(b"content-type", b"text/event-stream"), unbuffered, *PRIVATE]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        first = _last_event_id(scope) + 1
        last = first + self.ticks - 1
        gone = asyncio.create_task(_disconnected(receive))
        stopping = asyncio.create_task(_stopping(scope))
        try:
            for tick in range(first, last + 1):
                await send({"type": "http.response.body", "body": _tick(scope, tick), "more_body": True})
                if tick < last:
                    await asyncio.wait({gone, stopping}, timeout=self.tick_s, return_when=asyncio.FIRST_COMPLETED)
                if gone.done() or stopping.done():
                    break
            if not gone.done():
                await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
            stopping.cancel()


async def _lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """
    Put the start time and the event that ends the clocks into the state.
    """
    stopping = asyncio.Event()
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            if "state" in scope:
                scope["state"].update(started=time.monotonic(), stopping=stopping)
            await send({"type": "lifespan.startup.complete"})
        else:
            stopping.set()
            await send({"type": "lifespan.shutdown.complete"})
            return


async def _websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """
    Send back every message as it came, text as text and bytes as bytes.
    """
    await receive()
    if _route(scope) != "/ws":
        await _deny(scope, send)
        return
    subprotocol = SUBPROTOCOL if SUBPROTOCOL in scope.get("subprotocols", ()) else None
    await send({"type": "websocket.accept", "subprotocol": subprotocol})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") is not None:
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


async def _deny(scope: Scope, send: Send) -> None:
    """
    Refuse a WebSocket: with a 404 where the server can say so, else with the 403 that a close becomes.
    """
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close"})
        return
    body = b"The WebSocket of this demo is at /ws.\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "websocket.http.response.start", "status": 404, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


async def _upload(scope: Scope, receive: Receive, send: Send) -> None:
    """
    Count the body as it comes, holding none of it; answer with the count unless the client leaves first.
    """
    began = time.perf_counter()
    size = messages = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        messages += 1
        more = message.get("more_body", False)
    count = {"bytes": size, "messages": messages, "seconds": round(time.perf_counter() - began, 6)}
    await _answer(scope, send, Reply(200, b"application/json", json.dumps(count).encode() + b"\n"))


async def _answer(scope: Scope, send: Send, reply: Reply) -> None:
    headers = [
        (b"content-type", reply.content_type),
        (b"content-length", b"%d" % len(reply.body)),
        *PRIVATE,
        *reply.headers,
    ]
    body = b"" if scope["method"] == "HEAD" else reply.body
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _stopping(scope: Scope) -> None:
    """
    Return at the shutdown of the lifespan; never if the server has none.
    """
    event: asyncio.Event = (scope.get("state") or {}).get("stopping") or asyncio.Event()
    await event.wait()


def _tick(scope: Scope, number: int) -> bytes:
    """
    One event. Its id comes back as Last-Event-ID, so that the count goes on in the next stream.
    """
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    values = {"tick": number, "time": now, "uptime_s": _uptime_s(scope)}
    return b"retry: 1000\nid: %d\nevent: tick\ndata: %b\n\n" % (number, json.dumps(values).encode())


def _last_event_id(scope: Scope) -> int:
    value = _header(scope, b"last-event-id")
    # Twelve digits are 30,000 years of ticks; more than that is no number of ours.
    return int(value) if value.isdigit() and len(value) <= 12 else 0


def _uptime_s(scope: Scope) -> float | None:
    started = (scope.get("state") or {}).get("started")
    return None if started is None else round(time.monotonic() - started, 3)


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")


def _root(scope: Scope) -> str:
    """
    The root path as it stands in an address: percent-encoded, one slash in front unless empty, none behind.
    """
    root = scope.get("root_path", "").strip("/")
    return f"/{quote(root)}" if root else ""


def _route(scope: Scope) -> str:
    """
    The path below the root path; empty for the root path without its slash.

    A path that doesn't have the root path in front is taken as it is: not every server puts it there.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if path == root or path.startswith(f"{root}/") else path


def _refusal(scope: Scope, route: str) -> Reply | None:
    """
    The answer to a request that has no other, None if there is one.
    """
    if route == "":
        query: bytes = scope.get("query_string", b"")
        target = _root(scope).encode() + b"/" + (b"?" + query if query else b"")
        return Reply(308, b"text/plain", b"", ((b"location", target),))
    if route == "/ws":
        # HTTP/2 and 3 have no Upgrade field (RFC 9113 section 8.2.2).
        upgrade = ((b"upgrade", b"websocket"),) if scope["http_version"] == "1.1" else ()
        return _notice(scope, 426, "This address speaks WebSocket.", upgrade)
    if route not in METHODS:
        return _notice(scope, 404, f"Nothing lives at {scope['path']}.")
    if scope["method"] not in METHODS[route]:
        allow = ", ".join(METHODS[route])
        text = f"{scope['path']} takes {allow}, not {scope['method']}."
        return _notice(scope, 405, text, ((b"allow", allow.encode()),))
    return None


# What the pages show


def _shown(scope: Scope) -> dict[str, object]:
    """
    The scope in the shapes of JSON; of the state only the names, of the secrets only the length.
    """
    keys = (
        "type",
        "method",
        "path",
        "raw_path",
        "query_string",
        "http_version",
        "scheme",
        "client",
        "server",
    )
    shown = {key: _plain(scope.get(key)) for key in (*keys, "root_path", "asgi", "extensions")}
    shown["state"] = None if scope.get("state") is None else [str(key) for key in scope["state"]]
    shown["headers"] = [
        [_plain(name), f"hidden, {len(value)} bytes" if name.lower() in SECRETS else _plain(value)]
        for name, value in scope["headers"]
    ]
    return shown


def _plain(value: object) -> object:
    match value:
        case bytes():
            return value.decode("latin-1")
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case None | bool() | int() | float() | str():
            return value
        case _:
            return f"<{type(value).__name__}>"


def _page(scope: Scope) -> Reply:
    shown = _shown(scope)
    headers = shown.pop("headers")
    assert isinstance(headers, list)
    host = _header(scope, b"host").decode("latin-1") or _text(shown["server"])
    uptime_s = _uptime_s(scope)
    content = Template(_file("page.html")).substitute(
        protocol=escape(f"HTTP/{scope['http_version']}"),
        peer=escape(_text(shown["client"] or "an unnamed peer")),
        uptime="no lifespan" if uptime_s is None else f"{int(uptime_s)} s",
        scope_rows=_rows((key, _cell(value)) for key, value in shown.items()),
        header_rows=_rows((name, _cell(value)) for name, value in headers),
        header_count=len(headers),
        address=escape(f"{scope.get('scheme', 'http')}://{host}{_root(scope)}/"),
    )
    return _document(200, "txasgi demo", content, script=_file("page.js"))


def _notice(scope: Scope, status: int, text: str, headers: tuple[Field, ...] = ()) -> Reply:
    """
    A page that says why there is no other.
    """
    phrase = HTTPStatus(status).phrase
    content = Template(_file("notice.html")).substitute(
        status=status, phrase=phrase, text=escape(text), home=escape(f"{_root(scope)}/")
    )
    return _document(status, f"{status} {phrase}", content, headers=headers)


def _document(status: int, title: str, content: str, script: str = "", headers: tuple[Field, ...] = ()) -> Reply:
    """
    *content*, which is HTML, in the frame that all pages share.

    The policy allows this script and this style by their hashes, and connections home; nothing else.
    """
    style = _file("page.css")
    text = Template(_file("frame.html")).substitute(title=title, style=style, content=content, script=script)
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    # A path can hold lone surrogates where a server decoded it so; they must not end the answer.
    body = text.encode(errors="backslashreplace")
    policy_field = (b"content-security-policy", policy.encode())
    return Reply(status, b"text/html; charset=utf-8", body, (policy_field, *headers))


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    return "".join(f'<tr><th scope="row">{escape(name)}</th><td>{cell}</td></tr>\n' for name, cell in rows)


def _cell(value: object) -> str:
    """
    *value* as HTML: a list of names for a mapping or a list of strings, else its text.
    """
    if value is None:
        return '<span class="none">not given</span>'
    if value in ("", [], {}):
        return '<span class="none">empty</span>'
    match value:
        case [str(), int() | None]:
            items = [_text(value)]
        case list():
            items = [_text(item) for item in value]
        case dict():
            items = [f"{name} {_text(item)}" if item else str(name) for name, item in value.items()]
        case _:
            items = [_text(value)]
    codes = [f"<code>{escape(item)}</code>" for item in items]
    return codes[0] if len(codes) == 1 else f"<ul>{''.join(f'<li>{code}</li>' for code in codes)}</ul>"


def _text(value: object) -> str:
    """
    An address as in a URL, a string as it is, anything else as JSON.
    """
    match value:
        case [str(host), int(port)]:
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case [str(path), None]:
            return path
        case str():
            return value
        case _:
            return json.dumps(value)


@cache
def _file(name: str) -> str:
    return files(__name__).joinpath(name).read_text("utf-8")


@cache
def _digest(text: str) -> str:
    """
    The hash source that allows *text* inline, without its quotes (CSP level 3, section 2.3.1).
    """
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


app = Demo()
