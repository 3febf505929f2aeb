"""
Tells its scope: as the answer to a request, as the first message on a WebSocket.
"""

import json
from typing import Any

from tests.serve.apps.served import echo, lifespan, show, shown


async def app(scope: Any, receive: Any, send: Any) -> None:
    match scope["type"]:
        case "lifespan":
            await lifespan(scope, receive, send)
        case "http":
            await show(scope, receive, send)
        case "websocket":

            async def send_scope_first(message: Any) -> None:
                await send(message)
                if message["type"] == "websocket.accept":
                    await send({"type": "websocket.send", "text": json.dumps(shown(dict(scope)))})

            await echo(scope, receive, send_scope_first)
