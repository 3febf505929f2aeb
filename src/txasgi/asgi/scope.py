"""
The scope of a request (ASGI HTTP and WebSocket specification 2.5).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from txasgi.fields import comma_list
from txasgi.seam import Head

_HTTP_EXTENSIONS: dict[str, dict[str, Any]] = {
    "http.response.trailers": {},
    "http.response.early_hint": {},
    "http.response.pathsend": {},
}
# HTTP/1.0 has neither chunks to put trailers behind, nor 1xx answers.
_OLD_EXTENSIONS: dict[str, dict[str, Any]] = {"http.response.pathsend": {}}
_WEBSOCKET_EXTENSIONS: dict[str, dict[str, Any]] = {"websocket.http.response": {}}


class RootPath:
    """
    The path below which the application lives, in front of each request's path.

    text: decoded, without a slash at its end; quoted: percent-encoded bytes.
    """

    __slots__ = ("quoted", "text")

    def __init__(self, text: str) -> None:
        self.text = text.rstrip("/")
        self.quoted = quote_from_bytes(self.text.encode()).encode()


def http_scope(head: Head, root: RootPath, state: dict[str, Any] | None) -> dict[str, Any]:
    """
    The scope of an HTTP request. *state* is what lifespan startup left, or None without lifespan.
    """
    raw, _, query = head.target.partition(b"?")
    path = (unquote_to_bytes(raw) if b"%" in raw else raw).decode("utf-8", "replace")
    if root.text:
        path, raw = root.text + path, root.quoted + raw
    link = head.link
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": head.version,
        "method": head.method,
        "scheme": link.scheme,
        "path": path,
        "raw_path": raw,
        "query_string": query,
        "root_path": root.text,
        # The application's to change; ours is still looked at.
        "headers": head.headers.copy(),
        "client": link.client,
        "server": link.server,
        "extensions": (_OLD_EXTENSIONS if head.version == "1.0" else _HTTP_EXTENSIONS).copy(),
    }
    if link.tls is not None:
        scope["extensions"]["tls"] = link.tls.copy()
    if head.pushes:
        scope["extensions"]["http.response.push"] = {}
    if state is not None:
        scope["state"] = state.copy()
    return scope


def websocket_scope(head: Head, root: RootPath, state: dict[str, Any] | None) -> dict[str, Any]:
    """
    The scope of a WebSocket.
    """
    scope = http_scope(head, root, state)
    scope["type"] = "websocket"
    scope["scheme"] = "wss" if head.link.scheme == "https" else "ws"
    del scope["method"]
    offered = comma_list(value for name, value in head.headers if name == b"sec-websocket-protocol")
    scope["subprotocols"] = [element.decode("ascii") for element in offered]
    scope["extensions"] = _WEBSOCKET_EXTENSIONS.copy()
    if head.link.tls is not None:
        scope["extensions"]["tls"] = head.link.tls.copy()
    return scope
