"""
An application under load. It counts, and says at its end how many requests it has begun and answered.

GET  anything      ok
GET  /slow         ok, after 20 ms
GET  /download/N   N MiB
POST /upload       size and SHA-256 of the body, as JSON
GET  /promise      promises /promised where it may
"""

import asyncio
import hashlib
import json
from collections import Counter
from typing import Any

from tests.serve.apps.served import reply, say

COUNTS: Counter[str] = Counter()
MIB = 1024 * 1024
# No two MiB of a download are the same.
PATTERN = hashlib.shake_256(b"a pattern").digest(MIB + 4096)


def mebibyte(number: int) -> bytes:
    return PATTERN[number : number + MIB]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    COUNTS["begun"] += 1
    path = scope["path"]
    if path == "/slow":
        await asyncio.sleep(0.02)
    if path.startswith("/download/"):
        await download(int(path[10:]), send)
    elif path == "/upload":
        await upload(receive, send)
    else:
        if path == "/promise" and "http.response.push" in scope["extensions"]:
            await send({"type": "http.response.push", "path": "/promised", "headers": []})
        await reply(send, path.encode())
    COUNTS["answered"] += 1


async def lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            say("begun", COUNTS["begun"], "answered", COUNTS["answered"])
            return


async def download(size: int, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(size):
        await send({"type": "http.response.body", "body": mebibyte(number), "more_body": number < size - 1})


async def upload(receive: Any, send: Any) -> None:
    found = hashlib.sha256()
    size = 0
    more = True
    while more:
        message = await receive()
        assert message["type"] == "http.request", message
        found.update(message["body"])
        size += len(message["body"])
        more = message["more_body"]
    await reply(send, json.dumps({"size": size, "sha256": found.hexdigest()}).encode(), b"application/json")
