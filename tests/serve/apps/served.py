"""
The application that these tests serve. It says on standard error what happens to it.

GET  anything   the scope as JSON
POST /body      answers with the body once all of it has come
GET  /hang      never answers
GET  /stubborn  never answers, and does not let itself be cancelled
GET  /thread    never answers, in a thread
GET  /raise     raises
WS   anything   sends back what it gets
"""

import asyncio
import json
import logging
import sys
import threading
from typing import Any


def say(*words: object) -> None:
    print("app:", *words, file=sys.stderr, flush=True)


async def app(scope: Any, receive: Any, send: Any) -> None:
    match scope["type"]:
        case "lifespan":
            await lifespan(scope, receive, send)
        case "http":
            say(scope["method"], scope["path"])
            await PLACES.get(scope["path"], show)(scope, receive, send)
            say("answered", scope["path"])
        case "websocket":
            await echo(scope, receive, send)


async def lifespan(scope: Any, receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        say(message["type"].removeprefix("lifespan."))
        scope["state"]["begun"] = True
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def reply(send: Any, body: bytes, kind: bytes = b"text/plain") -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": body})


def shown(value: Any) -> Any:
    """
    As JSON can have it: bytes become text.
    """
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, dict):
        return {name: shown(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(inner) for inner in value]
    return value


async def show(scope: Any, receive: Any, send: Any) -> None:
    await reply(send, json.dumps(shown(dict(scope))).encode(), b"application/json")


async def body(scope: Any, receive: Any, send: Any) -> None:
    whole = b""
    more = True
    while more:
        message = await receive()
        assert message["type"] == "http.request", message
        whole += message["body"]
        more = message["more_body"]
    await reply(send, whole)


async def hang(scope: Any, receive: Any, send: Any) -> None:
    try:
        await asyncio.Future()
    except asyncio.CancelledError:
        say("cancelled", scope["path"])
        raise


async def stubborn(scope: Any, receive: Any, send: Any) -> None:
    while True:
        try:
            await hang(scope, receive, send)
        except asyncio.CancelledError:
            continue


async def thread(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)


async def fault(scope: Any, receive: Any, send: Any) -> None:
    raise LookupError("on purpose")


async def warn(scope: Any, receive: Any, send: Any) -> None:
    from twisted.logger import Logger

    Logger("somewhere").info("Twisted informs")
    Logger("somewhere").warn("Twisted warns")
    logging.getLogger("txasgi").debug("a detail")
    await reply(send, b"warned")


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})
    say("websocket ended", message["code"])


PLACES = {
    "/body": body,
    "/hang": hang,
    "/stubborn": stubborn,
    "/thread": thread,
    "/raise": fault,
    "/warn": warn,
}


async def without_lifespan(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] != "lifespan"
    await app(scope, receive, send)


async def failing(scope: Any, receive: Any, send: Any) -> None:
    """
    Its startup fails.
    """
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the database\nis away"})


async def slow_to_start(scope: Any, receive: Any, send: Any) -> None:
    """
    Its startup never ends.
    """
    await receive()
    say("starting")
    await hang({"path": "startup"}, receive, send)


async def slow_to_stop(scope: Any, receive: Any, send: Any) -> None:
    """
    Its shutdown never ends.
    """
    if scope["type"] != "lifespan":
        await app(scope, receive, send)
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    say("stopping")
    await hang({"path": "shutdown"}, receive, send)
