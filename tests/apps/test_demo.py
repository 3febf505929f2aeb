"""
The demo application, called as ASGI with messages in memory.
"""

import asyncio
import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pytest

from txasgi.apps.demo import Demo

# Longer than any test: with it, a stream that ends has not waited for its tick.
HOUR_S = 3600.0
CONNECT = {"type": "websocket.connect"}
LEFT = {"type": "websocket.disconnect", "code": 1005}


def http_scope(path: str = "/", method: str = "GET", **other: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(errors="surrogateescape"),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"demo.test")],
        "client": ("192.0.2.1", 50234),
        "server": ("192.0.2.2", 8000),
        "extensions": {"http.response.trailers": {}},
        "state": {},
    } | other


def websocket_scope(path: str = "/ws", **other: Any) -> dict[str, Any]:
    return http_scope(path, type="websocket", scheme="ws", subprotocols=["demo.echo"]) | other


def body(*chunks: bytes) -> list[dict[str, Any]]:
    last = len(chunks) - 1
    return [{"type": "http.request", "body": c, "more_body": i < last} for i, c in enumerate(chunks)]


@dataclass
class Answer:
    status: int
    headers: dict[bytes, bytes]
    body: bytes


def answer(sent: list[dict[str, Any]]) -> Answer:
    """
    The answer that *sent* makes; a message out of order fails the test.
    """
    start, *rest = sent
    assert [m["type"] for m in sent] == ["http.response.start"] + ["http.response.body"] * len(rest)
    assert [m.get("more_body", False) for m in rest] == [True] * (len(rest) - 1) + [False]
    return Answer(start["status"], dict(start["headers"]), b"".join(m["body"] for m in rest))


def call(
    scope: dict[str, Any],
    messages: Iterable[dict[str, Any]] = (),
    app: Demo | None = None,
    at_tick: Callable[[], object] | None = None,
) -> Any:
    """
    Call the application with *messages* to receive; what it sent. It may leave no task behind.

    at_tick: called when a part of a body was sent; if it returns a message, that is received next.
    """

    async def run() -> list[dict[str, Any]]:
        inbox: asyncio.Queue[Any] = asyncio.Queue()
        sent: list[dict[str, Any]] = []
        for message in messages:
            inbox.put_nowait(message)

        async def send(message: Any) -> None:
            sent.append(message)
            if at_tick and message.get("more_body") and (reply := at_tick()):
                inbox.put_nowait(reply)

        try:
            async with asyncio.timeout(5):
                await (app or Demo())(scope, inbox.get, send)
        finally:
            assert all(t.cancelling() for t in asyncio.all_tasks() if t is not asyncio.current_task())
        return sent

    return asyncio.run(run())


def get(path: str = "/", **other: Any) -> Answer:
    return answer(call(http_scope(path, **other)))


# The page


def test_page_shows_scope() -> None:
    """
    The page has a row for each part of the scope and for each header.
    """
    page = get("/", state={"colour": "red"}, query_string=b"a=1").body.decode()

    rows = dict(re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td></tr>', page))
    expected = {
        "type": "<code>http</code>",
        "method": "<code>GET</code>",
        "path": "<code>/</code>",
        "raw_path": "<code>/</code>",
        "query_string": "<code>a=1</code>",
        "root_path": '<span class="none">empty</span>',
        "http_version": "<code>1.1</code>",
        "scheme": "<code>http</code>",
        "client": "<code>192.0.2.1:50234</code>",
        "server": "<code>192.0.2.2:8000</code>",
        "asgi": "<ul><li><code>version 3.0</code></li><li><code>spec_version 2.5</code></li></ul>",
        "extensions": "<code>http.response.trailers</code>",
        "state": "<code>colour</code>",
        "host": "<code>demo.test</code>",
    }
    assert rows == expected


@pytest.mark.parametrize(
    ("server", "shown"),
    [
        (("::1", 8000), "<code>[::1]:8000</code>"),
        (("/run/demo.sock", None), "<code>/run/demo.sock</code>"),
        (None, '<span class="none">not given</span>'),
    ],
)
def test_page_shows_each_kind_of_address(server: object, shown: str) -> None:
    """
    An IPv6 address stands in brackets, a socket's path alone, and a missing address is said to be missing.
    """
    assert f'<th scope="row">server</th><td>{shown}</td>' in get("/", server=server).body.decode()


def test_page_escapes_what_the_client_sent() -> None:
    """
    Markup in a header's name or value, the query, the host or the path is shown as text.
    """
    evil = "<script>alert('1')</script>&\"$title"
    raw = evil.encode()

    page = get("/", query_string=raw, headers=[(raw, raw), (b"host", raw)]).body.decode()
    missing = get(f"/{evil}").body.decode()

    shown = "&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;&amp;&quot;$title"
    assert page.count(shown) == 7  # the query, a name, two values and three commands of the shell
    assert missing.count(shown) == 1
    assert evil not in page + missing


def test_page_hides_secrets() -> None:
    """
    Of cookies and credentials, in the page and in the JSON, only the length is shown.
    """
    secrets = [(name, b"s3cret") for name in (b"authorization", b"cookie", b"proxy-authorization")]

    both = (get("/", headers=secrets).body + get("/headers", headers=secrets).body).decode()

    assert "s3cret" not in both
    assert both.count("hidden, 6 bytes") == 6


def test_page_is_self_contained() -> None:
    """
    Every address in the page is relative or holds what it names.
    """
    addresses = re.findall(r'(?:href|src|action)="([^":]*)', get("/").body.decode())

    assert addresses == ["data", "headers"]


@pytest.mark.parametrize("path", ["/", "/nowhere"])
def test_policy_allows_the_page(path: str) -> None:
    """
    The Content-Security-Policy has the hash of the one script and the one style, and allows no other.
    """
    page = get(path)

    policy = page.headers[b"content-security-policy"].decode()
    for tag in ("script", "style"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page.body.decode(), re.DOTALL)
        digest = b64encode(sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy


def test_page_shows_up_time() -> None:
    """
    With a start time in the state the page says how long the server has been up.
    """
    state: dict[str, Any] = {}
    call({"type": "lifespan", "state": state}, [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    state["started"] -= 61

    assert '<dd id="uptime">61 s</dd>' in get("/", state=state).body.decode()


def test_page_without_optional_keys() -> None:
    """
    A scope that has only what the specification demands is enough, and the page says what is missing.
    """
    scope = http_scope(headers=[])
    for key in ("scheme", "raw_path", "root_path", "client", "server", "extensions", "state"):
        del scope[key]

    page = answer(call(scope)).body.decode()

    assert page.count('<span class="none">not given</span>') == 7
    assert '<dd id="uptime">no lifespan</dd>' in page


def test_headers_as_json() -> None:
    """
    /headers has the scope as JSON: bytes as text, of the state the names, objects by their type.
    """
    scope = http_scope("/headers", state={"pool": object()}, extensions={"tls": {"version": 772, "cert": {1}}})

    reply = answer(call(scope))

    assert reply.headers[b"content-type"] == b"application/json"
    assert json.loads(reply.body) == scope | {
        "raw_path": "/headers",
        "query_string": "",
        "client": ["192.0.2.1", 50234],
        "server": ["192.0.2.2", 8000],
        "extensions": {"tls": {"version": 772, "cert": "<set>"}},
        "state": ["pool"],
        "headers": [["host", "demo.test"]],
    }


# Paths and methods


# The pages that name the method are one byte longer for HEAD than for GET.
@pytest.mark.parametrize(("path", "more"), [("/", 1), ("/headers", 1), ("/nowhere", 0), ("/upload", 1)])
def test_head_is_get_without_body(path: str, more: int) -> None:
    """
    HEAD has the status and the headers of GET, a content-length too, and no body.
    """
    full = get(path)
    head = answer(call(http_scope(path, "HEAD")))

    length = {b"content-length": b"%d" % (len(full.body) + more)}
    assert (head.status, head.headers, head.body) == (full.status, full.headers | length, b"")


@pytest.mark.parametrize("path", ["/nowhere", "/headers/", "//", "/ws/", "/\udcff"])
def test_unknown_path(path: str) -> None:
    """
    Any other path, even one that is no Unicode text, is a 404 with a page that leads home.
    """
    reply = get(path, root_path="/app")

    assert reply.status == 404
    assert reply.headers[b"content-type"] == b"text/html; charset=utf-8"
    assert '<a href="/app/">' in reply.body.decode()
    assert f"Nothing lives at {path}.".encode(errors="backslashreplace") in reply.body


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/headers", "/events", "/upload"])
def test_wrong_method(method: str, path: str) -> None:
    """
    A method that a path does not take is a 405 whose Allow names those that it takes.
    """
    allow = {"/upload": b"POST"}.get(path, b"GET, HEAD")

    reply = answer(call(http_scope(path, method), body(b""), Demo(tick_s=0)))

    expected = (200, None) if method.encode() in allow.split(b", ") else (405, allow)
    assert (reply.status, reply.headers.get(b"allow")) == expected


@pytest.mark.parametrize(("version", "upgrade"), [("1.1", b"websocket"), ("2", None)])
def test_websocket_address_over_http(version: str, upgrade: bytes | None) -> None:
    """
    A plain request to /ws is a 426, which names the upgrade where HTTP has upgrades.
    """
    reply = get("/ws", http_version=version)

    assert (reply.status, reply.headers.get(b"upgrade")) == (426, upgrade)


@pytest.mark.parametrize("root", ["/app", "/app/"])
def test_root_path_in_front(root: str) -> None:
    """
    Below a root path the routes are found whether the server puts it in front of the path or not.
    """
    assert get("/app/headers", root_path=root).status == 200
    assert get("/headers", root_path=root).status == 200
    assert get("/apples", root_path=root).status == 404


@pytest.mark.parametrize(("root", "location"), [("/app", b"/app/"), ("/ü x", b"/%C3%BC%20x/"), ("//host", b"/host/")])
def test_root_path_without_slash(root: str, location: bytes) -> None:
    """
    The root path itself leads to the page below it, on which relative addresses work, never to another host.
    """
    for query, behind in ((b"", b""), (b"a=1", b"?a=1")):
        reply = get(root, root_path=root, query_string=query)

        assert (reply.status, reply.headers[b"location"]) == (308, location + behind)


def test_unknown_scope_type() -> None:
    """
    A scope of a type that the application does not know raises.
    """
    with pytest.raises(ValueError, match="scope of type 'smtp', expected http, websocket or lifespan"):
        call({"type": "smtp"})


# The clock


def ticks(reply: Answer) -> list[int]:
    """
    The numbers of the events, after a look at their form.
    """
    numbers = []
    for event in reply.body.decode().split("\n\n")[:-1]:
        retry, number, kind, content = event.split("\n")
        values = json.loads(content.removeprefix("data: "))
        assert (retry, kind) == ("retry: 1000", "event: tick")
        assert number == f"id: {values['tick']}"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", values["time"])
        numbers.append(values["tick"])
    return numbers


def test_events_end_by_themselves() -> None:
    """
    A stream has so many ticks and then ends, so that it can't hold up a server that drains.
    """
    reply = answer(call(http_scope("/events"), app=Demo(tick_s=0, ticks=3)))

    assert reply.headers[b"content-type"] == b"text/event-stream"
    assert b"content-length" not in reply.headers
    assert ticks(reply) == [1, 2, 3]


@pytest.mark.parametrize(("last_id", "first"), [(b"20", 21), (b"", 1), (b"-4", 1), (b"\xb2", 1), (b"9" * 5000, 1)])
def test_events_go_on_after_last_event_id(last_id: bytes, first: int) -> None:
    """
    The count goes on where the client says that it was, and starts anew if that is no count.
    """
    scope = http_scope("/events", headers=[(b"last-event-id", last_id)])

    assert ticks(answer(call(scope, app=Demo(tick_s=0, ticks=2)))) == [first, first + 1]


def test_events_end_when_client_leaves() -> None:
    """
    http.disconnect ends the stream at once, with nothing more sent.
    """
    left = {"type": "http.disconnect"}

    sent = call(http_scope("/events"), body(b"ignored", b""), Demo(tick_s=HOUR_S), at_tick=lambda: left)

    assert [m["type"] for m in sent] == ["http.response.start", "http.response.body"]


def test_events_end_at_shutdown() -> None:
    """
    The shutdown of the lifespan ends a stream that is still open.
    """
    stopping = asyncio.Event()
    scope = http_scope("/events", state={"stopping": stopping})

    sent = call(scope, app=Demo(tick_s=HOUR_S), at_tick=stopping.set)

    assert ticks(answer(sent)) == [1]


def test_events_end_when_send_raises() -> None:
    """
    The error of a send to a client that is gone comes out.
    """

    def gone() -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        call(http_scope("/events"), app=Demo(tick_s=HOUR_S), at_tick=gone)


def test_events_to_head() -> None:
    """
    HEAD of the events has their headers and ends.
    """
    reply = answer(call(http_scope("/events", "HEAD"), app=Demo(tick_s=HOUR_S)))

    assert (reply.status, reply.headers[b"content-type"], reply.body) == (200, b"text/event-stream", b"")


# The upload


@pytest.mark.parametrize(
    ("messages", "size"),
    [([{"type": "http.request"}], 0), (body(*[b"x"] * 1000), 1000), (body(b"x" * 65536, b""), 65536)],
)
def test_upload_is_counted(messages: list[dict[str, Any]], size: int) -> None:
    """
    The answer counts the bytes and the messages, however the body was cut.
    """
    count = json.loads(answer(call(http_scope("/upload", "POST"), messages)).body)

    assert (count["bytes"], count["messages"]) == (size, len(messages))
    assert count["seconds"] >= 0


def test_upload_that_breaks_off() -> None:
    """
    A client that leaves in the middle of its upload gets no answer.
    """
    messages = [*body(b"abc", b"")[:1], {"type": "http.disconnect"}]

    assert call(http_scope("/upload", "POST"), messages) == []


# The echo


def test_echo() -> None:
    """
    Text comes back as text and bytes as bytes, empty ones too, until the client closes.
    """
    said: list[dict[str, Any]] = [{"text": "héllo"}, {"bytes": b"\x00\xff"}, {"text": ""}, {"bytes": b""}]
    nulls = {"text": None, "bytes": None}  # the specification lets a server name both

    for other in ({}, nulls):
        received = [{"type": "websocket.receive"} | other | content for content in said]
        accept, *sent = call(websocket_scope(), [CONNECT, *received, LEFT])

        assert accept == {"type": "websocket.accept", "subprotocol": "demo.echo"}
        assert sent == [{"type": "websocket.send"} | content for content in said]


@pytest.mark.parametrize(("path", "offered"), [("/ws", ["other"]), ("/ws", []), ("/app/ws", ["demo.echo"])])
def test_echo_accepts(path: str, offered: list[str]) -> None:
    """
    The WebSocket is found with and without a root path, and has a subprotocol only if demo.echo was offered.
    """
    sent = call(websocket_scope(path, root_path="/app", subprotocols=offered), [CONNECT, LEFT])

    assert sent == [{"type": "websocket.accept", "subprotocol": offered[0] if path == "/app/ws" else None}]


def test_websocket_elsewhere() -> None:
    """
    A WebSocket to another path is refused, with a 404 where the server has the extension for it.
    """
    plain = call(websocket_scope("/", extensions=None), [CONNECT])
    start, rest = call(websocket_scope("/", extensions={"websocket.http.response": {}}), [CONNECT])

    assert plain == [{"type": "websocket.close"}]
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 404)
    assert rest["type"] == "websocket.http.response.body"
    assert dict(start["headers"])[b"content-length"] == b"%d" % len(rest["body"])


# The lifespan


@pytest.mark.parametrize("other", [{}, {"state": {}}])
def test_lifespan(other: dict[str, Any]) -> None:
    """
    Startup and shutdown are completed, on servers with a state and on those without.
    """
    sent = call({"type": "lifespan"} | other, [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    assert sent == [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]
    if other:
        assert sorted(other["state"]) == ["started", "stopping"]
        assert other["state"]["stopping"].is_set()
