"""
The applications under test: plain ASGI, no framework, nothing imported from this project.

The command copies this one file into the working directory of the servers, so that every
server imports it from the same place and the checkout is on nobody's path.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from json import dumps
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HELLO = b"Hello, world!"
HELLO_HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"13")]

# 1,024 bytes once dumped: the shape of a small API answer, not one long string.
DOCUMENT = {
    "items": [
        {"id": n, "name": f"item {n:02d}", "price": 12.5, "tags": ["new", "blue"], "stock": True} for n in range(11)
    ],
    "next": "/items?after=10",
    "note": "x" * 38,
}
JSON_TYPE = (b"content-type", b"application/json")

LARGE = b"x" * 1024 * 1024
LARGE_HEADERS = [(b"content-type", b"application/octet-stream"), (b"content-length", b"1048576")]

CHUNKS = 16
CHUNK = b"x" * 4096
STREAM_HEADERS = [(b"content-type", b"application/octet-stream")]


async def lifespan(receive: Receive, send: Send) -> None:
    """
    Start and stop at once.
    """
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """
    Thirteen bytes of text.
    """
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": HELLO_HEADERS})
    await send({"type": "http.response.body", "body": HELLO})


async def json(scope: Scope, receive: Receive, send: Send) -> None:
    """
    A document of 1 KiB, dumped for every request.
    """
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    body = dumps(DOCUMENT).encode()
    headers = [JSON_TYPE, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def length(scope: Scope, receive: Receive, send: Send) -> None:
    """
    Read the whole body, answer how many bytes it had.
    """
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    parts = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    answer = str(len(b"".join(parts))).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def count(scope: Scope, receive: Receive, send: Send) -> None:
    """
    Read the whole body and keep nothing of it, answer how many bytes it had.
    """
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    size = 0
    more = True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    answer = str(size).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    """
    1 MiB in one message.
    """
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": LARGE_HEADERS})
    await send({"type": "http.response.body", "body": LARGE})


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    """
    Sixteen messages of 4 KiB, length not announced.
    """
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
    for left in range(CHUNKS - 1, -1, -1):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": left > 0})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """
    Send every text message back. Over plain HTTP it is hello(), so that it can be awaited like the others.
    """
    if scope["type"] != "websocket":
        await hello(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": message["text"]})
