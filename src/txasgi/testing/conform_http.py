"""
The conformance suite of a wire, for HTTP: each behaviour once, whatever carries it.

A wire is tested by a subclass of `HttpConformance` whose `make` returns a `Rig` and a peer that speaks the wire's
protocol, best with a parser that is not ours:

    class TestH1Conformance(HttpConformance):
        def make(self, application, **gate_options):
            rig = Rig(application, **gate_options)
            return rig, H1Peer(rig)

Written for pytest, which collects the subclass; `caplog` and `tmp_path` are its fixtures. What a test expects comes
from the ASGI specification (HTTP 2.5 and extensions) and from RFC 9110, never from what a wire happens to do. Where
these leave a choice, the tests accept each of them.
"""

from __future__ import annotations

import asyncio
import contextvars
import http
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from txasgi.asgi.task import Application, Message, Receive, Send
from txasgi.errors import ApplicationError, ClientDisconnected
from txasgi.seam import Address, Field
from txasgi.testing.rig import Call, Rig, Script, response_body, response_start

if TYPE_CHECKING:
    import pytest

KIB = 1024
MIB = 1024 * KIB

# More than any wire may hold of a body that the other side does not take.
HELD = MIB

TEXT: Field = (b"content-type", b"text/plain")
DISCONNECT: Message = {"type": "http.disconnect"}


@dataclass(slots=True)
class Answer:
    """
    One answer, as far as the peer has read it.

    status: 0 while no head has come.
    headers: names as they came.
    complete: the wire said that this was all of it.
    reset: the wire broke it off, or ended without it.
    informational: (status, headers) of each 1xx.
    """

    status: int = 0
    headers: list[Field] = field(default_factory=list)
    body: bytes = b""
    complete: bool = False
    reset: bool = False
    informational: list[tuple[int, list[Field]]] = field(default_factory=list)
    trailers: list[Field] = field(default_factory=list)

    def values(self, name: bytes) -> list[bytes]:
        """
        The values of a field, in order.
        """
        return [value for other, value in self.headers if other.lower() == name]


class HttpPeer(Protocol):
    """
    A client on one connection. After each call the rig has settled.

    version: what scope["http_version"] is.
    client, server: the two ends of the connection.
    multiplexed: requests are answered side by side, not in turn.
    trailers_out, trailers_in: the wire carries the trailers of an answer, of a request.
    early_hints: the wire carries 103.
    """

    version: str
    client: Address
    server: Address
    multiplexed: bool
    trailers_out: bool
    trailers_in: bool
    early_hints: bool

    @property
    def alive(self) -> bool:
        """
        The connection takes a further request.
        """

    def request(
        self,
        method: str = "GET",
        target: bytes = b"/",
        headers: Sequence[Field] = (),
        body: bytes | None = None,
        end: bool = True,
    ) -> int:
        """
        Begin a request; the number returned stands for it. May be called while earlier ones are not answered.

        headers: without host and without framing, which the peer adds; a content-length given is used.
        """

    def body(self, handle: int, chunk: bytes = b"", end: bool = False, trailers: Sequence[Field] = ()) -> None:
        """
        Send more of a body that was begun with end=False.
        """

    def unsent(self, handle: int) -> int:
        """
        How many bytes of the request the server does not take yet. Passes on what it takes now.
        """

    def answer(self, handle: int) -> Answer:
        """
        What has been read of the answer by now.
        """

    def abandon(self, handle: int) -> None:
        """
        Give up one request; takes the connection with it where there is no other way.
        """

    def leave(self) -> None:
        """
        The connection is gone.
        """

    def clog(self) -> None:
        """
        Stop reading.
        """

    def unclog(self) -> None:
        """
        Read everything, from now on.
        """


def read_body(call: Call) -> bytes:
    """
    The request body, by receive() that never waits.
    """
    body: bytes = b""
    while True:
        message = call.receive()
        assert message["type"] == "http.request", message
        assert type(message["body"]) is bytes
        body += message["body"]
        if not message["more_body"]:
            return body


def refused(call: Call, message: Any) -> ApplicationError:
    """
    The error that send() raises for a message that is not allowed.
    """
    task = call.sending(message)
    assert task.done(), f"send({message!r}) waits"
    error = task.exception()
    assert isinstance(error, ApplicationError), f"send({message!r}) raised {error!r}"
    return error


def answer_with(call: Call, body: bytes = b"ok", status: int = 200, headers: Sequence[Field] = ()) -> None:
    """
    A small answer, and the end of the application.
    """
    call.send(response_start(status, headers), response_body(body))
    call.finish()


def sends(*messages: Message) -> Application:
    """
    An application that sends these, without letting the loop turn in between, and returns.
    """

    async def application(_scope: Any, _receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return application


def errors_logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """
    What the operator would see as an error.
    """
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


def pieces(total: int, size: int = 64 * KIB) -> Iterable[bytes]:
    """
    So many bytes in parts that can be told apart.
    """
    for start in range(0, total, size):
        yield bytes([start // size % 251]) * min(size, total - start)


class _Conformance:
    """
    What the groups of tests below share.
    """

    _rigs: list[Rig]

    def make(self, application: Application, **gate_options: Any) -> tuple[Rig, HttpPeer]:
        """
        An application served over the wire under test, and a peer that is connected to it.
        """
        raise NotImplementedError

    def serve(self, application: Application, **gate_options: Any) -> tuple[Rig, HttpPeer]:
        """
        `make`, cleaned up after the test.
        """
        rig, peer = self.make(application, **gate_options)
        self._rigs.append(rig)
        return rig, peer

    def script(self, **gate_options: Any) -> tuple[Rig, HttpPeer, Script]:
        """
        A scripted application.
        """
        script = Script()
        return *self.serve(script, **gate_options), script

    def answer_to(
        self,
        application: Application,
        method: str = "GET",
        headers: Sequence[Field] = (),
        **gate_options: Any,
    ) -> Answer:
        """
        What the client of an application gets that does not need it any further.
        """
        _, peer = self.serve(application, **gate_options)
        return peer.answer(peer.request(method, b"/", headers))

    def setup_method(self) -> None:
        """
        pytest calls this before each test.
        """
        self._rigs = []

    def teardown_method(self) -> None:
        """
        pytest calls this after each test; a fault that went to the loop's exception handler fails it.
        """
        for rig in self._rigs:
            faults = list(rig.errors)
            rig.close()
            assert faults == []

    def check_usable(self, peer: HttpPeer, script: Script) -> None:
        """
        The connection answers another request.
        """
        assert peer.alive, "the connection is gone"
        handle = peer.request("GET", b"/next")
        assert script.call.scope["path"] == "/next"
        answer_with(script.call, b"next")
        answer = peer.answer(handle)
        assert (answer.status, answer.body, answer.complete) == (200, b"next", True)


class ScopeConformance(_Conformance):
    """
    What the application is called with.
    """

    def scope_of(self, target: bytes, headers: Sequence[Field] = (), **gate_options: Any) -> Any:
        """
        The scope of a GET.
        """
        _, peer, script = self.script(**gate_options)
        peer.request("GET", target, headers)
        return script.call.scope

    def test_scope_keys(self) -> None:
        """
        The scope has every key of the HTTP specification 2.5, each of its type.
        """
        _, peer, script = self.script(state={})

        peer.request("DELETE", b"/a?b=c", [(b"x-a", b"1")])

        scope = script.call.scope
        assert scope["type"] == "http"
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
        assert peer.version == scope["http_version"]
        assert scope["method"] == "DELETE"
        assert scope["scheme"] == "http"
        assert scope["path"] == "/a"
        assert scope["raw_path"] == b"/a"
        assert scope["query_string"] == b"b=c"
        assert scope["root_path"] == ""
        assert (b"x-a", b"1") in [tuple(pair) for pair in scope["headers"]]
        assert peer.client == tuple(scope["client"])
        assert peer.server == tuple(scope["server"])
        assert scope["state"] == {}
        assert isinstance(scope["extensions"], dict)

    def test_extensions(self) -> None:
        """
        The scope names the extensions that work, each with a dict, and never debug.
        """
        _, peer, script = self.script()

        peer.request()

        extensions = script.call.scope["extensions"]
        assert all(isinstance(value, dict) for value in extensions.values())
        assert peer.trailers_out == ("http.response.trailers" in extensions)
        assert peer.early_hints == ("http.response.early_hint" in extensions)
        assert "http.response.pathsend" in extensions
        assert "http.response.debug" not in extensions
        assert "tls" not in extensions

    def test_extensions_are_not_shared(self) -> None:
        """
        An application that writes into its scope changes no other request's.
        """
        _, peer, script = self.script(state={"a": 1})
        peer.request()
        first = script.call.scope
        first["extensions"]["mine"] = {}
        first["asgi"]["mine"] = "x"
        first["state"]["mine"] = 1
        first["headers"] = []
        answer_with(script.call)

        peer.request()

        scope = script.call.scope
        assert "mine" not in scope["extensions"]
        assert "mine" not in scope["asgi"]
        assert scope["state"] == {"a": 1}
        assert scope["headers"]

    def test_scope_is_the_applications(self) -> None:
        """
        What an application does to its scope does not change how it is answered for.
        """
        _, peer, script = self.script()
        handle = peer.request("POST", b"/", [(b"te", b"trailers"), (b"content-length", b"5")], end=False)
        scope = script.call.scope
        scope["headers"][:] = [(b"content-length", b"nonsense"), (b"te", b"")]
        scope["method"], scope["http_version"] = "HEAD", "0.9"
        script.call.send(response_start(200, trailers=True), response_body(b"ok"))
        script.call.send({"type": "http.response.trailers", "headers": [(b"x-a", b"1")]})

        answer = peer.answer(handle)
        assert (answer.status, answer.body, answer.complete) == (200, b"ok", True)
        assert not peer.trailers_out or answer.trailers == [(b"x-a", b"1")]

    def test_path_is_decoded(self) -> None:
        """
        path is percent-decoded as UTF-8, raw_path is as it came; a slash that was encoded is told apart only there.
        """
        scope = self.scope_of(b"/a%2Fb%20c/%E2%82%AC/%e2%82%ac?%E2%82%AC=%2F")

        assert scope["path"] == "/a/b c/€/€"
        assert scope["raw_path"] == b"/a%2Fb%20c/%E2%82%AC/%e2%82%ac"
        assert scope["query_string"] == b"%E2%82%AC=%2F"

    def test_path_that_is_not_utf8(self) -> None:
        """
        Percent-encoded bytes that are not UTF-8 reach the application as a text that can be encoded again.
        """
        scope = self.scope_of(b"/a%ffb%c3")

        assert scope["raw_path"] == b"/a%ffb%c3"
        assert scope["path"].startswith("/a")
        scope["path"].encode()

    def test_path_is_not_tidied(self) -> None:
        """
        Dots, doubled slashes, plus signs and semicolons are the application's business.
        """
        scope = self.scope_of(b"//a/../b/./;c=1+2//?")

        assert scope["path"] == "//a/../b/./;c=1+2//"
        assert scope["raw_path"] == b"//a/../b/./;c=1+2//"
        assert scope["query_string"] == b""

    def test_path_with_a_lone_percent_sign(self) -> None:
        """
        A percent sign without two digits stands for itself.
        """
        scope = self.scope_of(b"/100%/%zz/%4")

        assert scope["path"] == "/100%/%zz/%4"
        assert scope["raw_path"] == b"/100%/%zz/%4"

    def test_path_decoded_once(self) -> None:
        """
        An encoded percent sign is not decoded again.
        """
        assert self.scope_of(b"/%2541")["path"] == "/%41"

    def test_encoded_controls_in_path(self) -> None:
        """
        Encoded line breaks and NUL are decoded in path and stay encoded in raw_path.
        """
        scope = self.scope_of(b"/a%0d%0ab%00")

        assert scope["path"] == "/a\r\nb\0"
        assert scope["raw_path"] == b"/a%0d%0ab%00"

    def test_query_string(self) -> None:
        """
        The query is everything behind the first question mark, as it came.
        """
        scope = self.scope_of(b"/a?b=c?d&e=%20+%ff")

        assert scope["path"] == "/a"
        assert scope["query_string"] == b"b=c?d&e=%20+%ff"

    def test_root_path(self) -> None:
        """
        root_path stands in front of path and of raw_path.
        """
        scope = self.scope_of(b"/a%20b?c", root_path="/mount")

        assert scope["root_path"] == "/mount"
        assert scope["path"] == "/mount/a b"
        assert scope["raw_path"] == b"/mount/a%20b"
        assert scope["query_string"] == b"c"

    def test_root_path_is_not_the_clients(self) -> None:
        """
        No header sets root_path, client or scheme of a server that trusts nobody.
        """
        scope = self.scope_of(
            b"/",
            [
                (b"daphne-root-path", b"/evil"),
                (b"x-forwarded-for", b"203.0.113.1"),
                (b"x-forwarded-proto", b"https"),
                (b"x-forwarded-prefix", b"/evil"),
                (b"forwarded", b"for=203.0.113.1;proto=https"),
                (b"script-name", b"/evil"),
            ],
        )

        assert scope["root_path"] == ""
        assert scope["path"] == "/"
        assert scope["scheme"] == "http"
        assert scope["client"][0] != "203.0.113.1"

    def test_headers(self) -> None:
        """
        Header names are lower case, values bytes without white space around them; order and duplicates are kept.
        """
        scope = self.scope_of(
            b"/",
            [
                (b"accept", b"a"),
                (b"x-b", b"2"),
                (b"accept", b"b, c"),
                (b"x-empty", b""),
                (b"x-latin", b"\xe9\xff"),
                (b"x-b", b"1"),
            ],
        )

        headers = [tuple(pair) for pair in scope["headers"]]
        assert [value for name, value in headers if name == b"accept"] == [b"a", b"b, c"]
        assert [value for name, value in headers if name == b"x-b"] == [b"2", b"1"]
        assert (b"x-empty", b"") in headers
        assert (b"x-latin", b"\xe9\xff") in headers
        assert all(name == name.lower() and not name.startswith(b":") for name, _ in headers)
        assert len([name for name, _ in headers if name == b"host"]) == 1
        ours = [pair for pair in headers if pair[0] in (b"accept", b"x-b", b"x-empty")]
        assert [name for name, _ in ours] == [b"accept", b"x-b", b"accept", b"x-empty", b"x-b"]

    def test_state_is_a_shallow_copy(self) -> None:
        """
        Each request has its own state dict that holds the same objects.
        """
        shared: list[str] = []
        state = {"shared": shared}
        _, peer, script = self.script(state=state)
        peer.request()
        scope = script.call.scope
        assert scope["state"]["shared"] is shared
        scope["state"]["own"] = 1
        answer_with(script.call)

        peer.request()

        assert {"shared": shared} == script.call.scope["state"]
        assert {"shared": shared} == state

    def test_state_follows_lifespan(self) -> None:
        """
        What lifespan puts into the state later is seen by later requests.
        """
        state: dict[str, Any] = {}
        _, peer, script = self.script(state=state)
        state["late"] = 1

        peer.request()

        assert script.call.scope["state"] == {"late": 1}

    def test_methods(self) -> None:
        """
        Each method of RFC 9110 and PATCH reaches the application.
        """
        _, peer, script = self.script()
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
            handle = peer.request(method)
            assert method == script.call.scope["method"]
            answer_with(script.call)
            assert peer.answer(handle).complete, method


class ReceiveConformance(_Conformance):
    """
    What the application receives.
    """

    def test_body(self) -> None:
        """
        A body that came whole is received, more_body False at its end.
        """
        _, peer, script = self.script()

        peer.request("POST", body=b"hello")

        assert read_body(script.call) == b"hello"

    def test_no_body(self) -> None:
        """
        A request without body is one empty http.request.
        """
        _, peer, script = self.script()

        peer.request()

        message = script.call.receive()
        assert message == {"type": "http.request", "body": b"", "more_body": False}

    def test_empty_body(self) -> None:
        """
        An announced body of no bytes is received as empty.
        """
        _, peer, script = self.script()
        for at_once in (True, False):
            handle = peer.request("POST", body=b"", end=at_once)
            if not at_once:
                peer.body(handle, end=True)
            assert read_body(script.call) == b""
            answer_with(script.call)
            assert peer.answer(handle).complete

    def test_body_in_parts(self) -> None:
        """
        Each part of a body is received when it comes, more_body True until the last.
        """
        _, peer, script = self.script()
        handle = peer.request("POST", end=False)
        call = script.call
        receiving = call.receiving()
        assert not receiving.done()

        peer.body(handle, b"a")
        assert receiving.result() == {"type": "http.request", "body": b"a", "more_body": True}

        receiving = call.receiving()
        assert not receiving.done()
        peer.body(handle, b"b", end=True)
        message = receiving.result()
        rest = read_body(call) if message["more_body"] else b""
        assert message["body"] + rest == b"b"

    def test_body_ends_late(self) -> None:
        """
        The end of a body that comes by itself wakes a receive() that waits.
        """
        _, peer, script = self.script()
        handle = peer.request("POST", body=b"hello", end=False)
        message = script.call.receive()
        assert (message["body"], message["more_body"]) == (b"hello", True)
        receiving = script.call.receiving()
        assert not receiving.done()

        peer.body(handle, end=True)

        assert receiving.result() == {"type": "http.request", "body": b"", "more_body": False}

    def test_no_empty_parts(self) -> None:
        """
        receive() never returns an empty part in the middle of a body.
        """
        _, peer, script = self.script()
        handle = peer.request("POST", end=False)
        for letter in b"abc":
            peer.body(handle, bytes([letter]))
        peer.body(handle, b"d", end=True)

        parts: list[Message] = []
        while not parts or parts[-1]["more_body"]:
            parts.append(script.call.receive())

        assert b"".join(part["body"] for part in parts) == b"abcd"
        assert all(part["body"] for part in parts[:-1])

    def test_large_body(self) -> None:
        """
        A body of many reads comes complete and in order.
        """
        _, peer, script = self.script()
        sent = b"".join(pieces(3 * MIB, 100_000))
        handle = peer.request("POST", end=False)
        peer.body(handle, sent, end=True)
        received = bytearray()
        while True:
            message = script.call.receive()
            received += message["body"]
            peer.unsent(handle)
            if not message["more_body"]:
                break

        assert sent == received

    def test_request_trailers(self) -> None:
        """
        Trailers of a request end its body and are not taken for headers.
        """
        _, peer, script = self.script()
        if not peer.trailers_in:
            return
        handle = peer.request("POST", body=b"hello", end=False)
        peer.body(handle, end=True, trailers=[(b"x-sum", b"1")])

        assert read_body(script.call) == b"hello"
        assert b"x-sum" not in [name for name, _ in script.call.scope["headers"]]
        answer_with(script.call)
        assert peer.answer(handle).complete
        self.check_usable(peer, script)

    def test_receive_waits_for_the_end_of_the_answer(self) -> None:
        """
        receive() after the body waits, and gives http.disconnect once the answer is complete.
        """
        _, peer, script = self.script()
        peer.request()
        read_body(script.call)
        waiting = script.call.receiving()
        script.call.send(response_start())
        assert not waiting.done()
        script.call.send(response_body(b"a", more=True))
        assert not waiting.done()

        script.call.send(response_body(b"b"))

        assert waiting.result() == DISCONNECT
        assert script.call.receive() == DISCONNECT

    def test_disconnect_wakes_every_receive(self) -> None:
        """
        When the client leaves, each receive() that waits gives http.disconnect.
        """
        _, peer, script = self.script()
        peer.request()
        read_body(script.call)
        waiting = [script.call.receiving() for _ in range(3)]

        peer.leave()

        assert [task.result() for task in waiting] == [DISCONNECT] * 3

    def test_disconnect_before_the_body(self) -> None:
        """
        A receive() that waits for the body gives http.disconnect when the client gives up.
        """
        _, peer, script = self.script()
        handle = peer.request("POST", end=False)
        waiting = script.call.receiving()
        assert not waiting.done()

        peer.abandon(handle)

        assert waiting.result() == DISCONNECT

    def test_broken_off_body_never_ends(self) -> None:
        """
        A body that the client broke off is followed by http.disconnect, never by more_body False.
        """
        _, peer, script = self.script()
        handle = peer.request("POST", headers=[(b"content-length", b"10")], body=b"hello", end=False)

        peer.abandon(handle)

        messages = [script.call.receive(), script.call.receive(), script.call.receive()]
        assert messages[-1] == DISCONNECT
        assert all(message["more_body"] for message in messages if message["type"] == "http.request")

    def test_receive_after_disconnect_returns(self) -> None:
        """
        receive() after http.disconnect gives it again, as often as asked.
        """
        _, peer, script = self.script()
        peer.request()
        read_body(script.call)
        peer.leave()

        assert [script.call.receive() for _ in range(5)] == [DISCONNECT] * 5

    def test_receive_after_disconnect_does_not_hog_the_loop(self) -> None:
        """
        An application that goes on receiving after its client left lets others run.
        """
        many = 100_000
        counts: list[int] = []

        async def application(_scope: Any, receive: Receive, _send: Send) -> None:
            mine = len(counts)
            counts.append(0)
            for _ in range(many):
                await receive()
                counts[mine] += 1

        _, peer = self.serve(application)
        peer.request()
        peer.leave()

        assert 1 < counts[0] < many

    def test_receive_after_the_answer_does_not_hog_the_loop(self) -> None:
        """
        Nor does one that goes on receiving after its answer.
        """
        many = 100_000
        count = 0

        async def application(scope: Any, receive: Receive, send: Send) -> None:
            nonlocal count
            await send(response_start())
            await send(response_body(b"ok"))
            for _ in range(many if scope["path"] == "/loop" else 0):
                await receive()
                count += 1

        _, peer = self.serve(application)
        peer.request("GET", b"/loop")
        handle = peer.request("GET", b"/other")

        assert peer.answer(handle).complete
        assert 1 < count < many

    def test_cancelled_receive_loses_nothing(self) -> None:
        """
        A receive() that was cancelled while it waited takes no message with it.
        """
        rig, peer, script = self.script()
        handle = peer.request("POST", end=False)
        waiting = script.call.receiving()
        waiting.cancel()
        rig.settle()
        assert waiting.cancelled()

        peer.body(handle, b"hello", end=True)

        assert read_body(script.call) == b"hello"

    def test_each_part_goes_to_one_receive(self) -> None:
        """
        Of several receive() that wait, each part of the body wakes one, or all of them see the end.
        """
        _, peer, script = self.script()
        handle = peer.request("POST", end=False)
        waiting = [script.call.receiving() for _ in range(2)]

        peer.body(handle, b"a")
        got = [task.result() for task in waiting if task.done()]
        assert [message["body"] for message in got] == [b"a"]

        peer.body(handle, b"b", end=True)
        got = [task.result() for task in waiting if task.done()]
        rest = b"" if all(task.done() for task in waiting) and not got[-1]["more_body"] else read_body(script.call)
        assert sorted([*(message["body"] for message in got), rest])[-2:] == [b"a", b"b"]
        script.call.finish()

    def test_receive_after_an_early_answer(self) -> None:
        """
        receive() after a complete answer does not wait for a body that is still to come.
        """
        _, peer, script = self.script()
        handle = peer.request("POST", headers=[(b"content-length", b"10")], body=b"hello", end=False)
        script.call.send(response_start(), response_body(b"ok"))

        messages = [script.call.receive(), script.call.receive()]
        assert messages[-1] == DISCONNECT
        assert all(message["more_body"] for message in messages if message["type"] == "http.request")
        answer = peer.answer(handle)
        assert (answer.status, answer.body, answer.complete) == (200, b"ok", True)

    def test_waiting_receive_and_early_answer(self) -> None:
        """
        A receive() that waits for a body gives http.disconnect when the answer is complete without it.
        """
        _, peer, script = self.script()
        peer.request("POST", headers=[(b"content-length", b"10")], end=False)
        waiting = script.call.receiving()
        assert not waiting.done()

        script.call.send(response_start(), response_body(b"ok"))

        assert waiting.result() == DISCONNECT

    def test_body_back_pressure(self) -> None:
        """
        The peer of an application that does not receive is stopped, and goes on once it does.
        """
        _, peer, script = self.script()
        handle = peer.request("POST", headers=[(b"content-length", b"%d" % (4 * MIB))], end=False)
        sent = b"".join(pieces(4 * MIB))
        peer.body(handle, sent, end=True)
        held = len(sent) - peer.unsent(handle)
        assert held <= HELD, f"{held} bytes held"

        received = bytearray()
        while True:
            message = script.call.receive()
            received += message["body"]
            # What is taken by the application and by nobody else lets the peer go on, but not further.
            assert len(sent) - peer.unsent(handle) - len(received) <= HELD
            if not message["more_body"]:
                break

        assert sent == received
        assert peer.unsent(handle) == 0

    def test_client_is_seen_leaving_while_its_body_waits(self) -> None:
        """
        A client that leaves while its body is not received: the application gets http.disconnect soon.
        """
        _, peer, script = self.script()
        handle = peer.request("POST", headers=[(b"content-length", b"%d" % (4 * MIB))], end=False)
        peer.body(handle, bytes(2 * MIB))

        peer.leave()

        for _ in range(1000):
            message = script.call.receive()
            if message["type"] == "http.disconnect":
                return
            assert message["more_body"]
        raise AssertionError("no http.disconnect")


class SendConformance(_Conformance):
    """
    What the application sends, as the client sees it.
    """

    def test_one_shot(self) -> None:
        """
        An answer sent at once has a content-length, though the application gave none.
        """
        answer = self.answer_to(sends(response_start(200, [TEXT]), response_body(b"ok")))

        assert (answer.status, answer.body, answer.complete) == (200, b"ok", True)
        assert answer.values(b"content-length") == [b"2"]
        assert answer.values(b"content-type") == [b"text/plain"]

    def test_one_shot_empty(self) -> None:
        """
        An empty answer has a content-length of 0; keys that may be missing are not missed.
        """
        answer = self.answer_to(sends({"type": "http.response.start", "status": 404}, {"type": "http.response.body"}))

        assert (answer.status, answer.body, answer.complete) == (404, b"", True)
        assert answer.values(b"content-length") == [b"0"]

    def test_streaming(self) -> None:
        """
        Each part reaches the client when it is sent, without a content-length.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call

        call.send(response_start(200, [TEXT]), response_body(b"a", more=True))
        assert _seen(peer, handle) == (200, b"a", False)
        call.send(response_body(b"bc", more=True))
        assert _seen(peer, handle) == (200, b"abc", False)
        call.send(response_body(b"d"))

        assert _seen(peer, handle) == (200, b"abcd", True)
        assert peer.answer(handle).values(b"content-length") == []
        call.finish()
        self.check_usable(peer, script)

    def test_head_is_flushed(self) -> None:
        """
        The head goes out although the first part of the body is late.
        """
        _, peer, script = self.script()
        handle = peer.request()

        script.call.send(response_start(200, [(b"x-a", b"1")]))

        assert _seen(peer, handle) == (200, b"", False)
        assert peer.answer(handle).values(b"x-a") == [b"1"]

    def test_empty_parts(self) -> None:
        """
        An empty part in the middle of a body does not end it.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call

        call.send(response_start(), response_body(b"", more=True), response_body(b"a", more=True))
        call.send(response_body(b"", more=True))
        assert _seen(peer, handle) == (200, b"a", False)
        call.send(response_body(b"b", more=True), response_body(b""))

        assert _seen(peer, handle) == (200, b"ab", True)

    def test_parts_in_one_turn(self) -> None:
        """
        Parts that are sent in one turn of the loop come complete and in order.
        """
        answer = self.answer_to(sends(response_start(), *(response_body(b"%d," % n, more=n < 99) for n in range(100))))

        assert answer.complete
        assert b"".join(b"%d," % n for n in range(100)) == answer.body

    def test_large_answer(self) -> None:
        """
        A large answer comes complete, in one message and in many.
        """
        body = b"".join(pieces(2 * MIB, 100_000))
        for messages in (
            [response_body(body)],
            [*(response_body(piece, more=True) for piece in pieces(2 * MIB, 100_000)), response_body()],
        ):
            answer = self.answer_to(sends(response_start(), *messages))
            assert answer.complete
            assert body == answer.body

    def test_headers_as_any_iterable(self) -> None:
        """
        Headers may be any iterable of two-item iterables; order and duplicates are kept.
        """
        pairs = ([b"set-cookie", b"b=1"], (b"x-a", b"\xe9"), [b"set-cookie", b"a=2"], (b"x-empty", b""))
        for headers in (pairs, list(pairs), iter(pairs), (list(pair) for pair in pairs)):
            message = {"type": "http.response.start", "status": 200, "headers": headers}
            answer = self.answer_to(sends(message, response_body(b"ok")))
            assert answer.status == 200
            assert answer.values(b"set-cookie") == [b"b=1", b"a=2"]
            assert answer.values(b"x-a") == [b"\xe9"]
            assert answer.values(b"x-empty") == [b""]
            names = [name for name, _ in answer.headers]
            assert names.index(b"set-cookie") < names.index(b"x-a") < names.index(b"x-empty")

    def test_statuses(self) -> None:
        """
        Each final status from 200 to 599 goes out, also as an http.HTTPStatus.
        """
        _, peer, script = self.script()
        for status in (200, 201, 206, 226, 299, 302, 404, 418, 499, 500, 503, 599, http.HTTPStatus.ACCEPTED):
            handle = peer.request()
            answer_with(script.call, status=status)
            answer = peer.answer(handle)
            assert (int(status), b"ok", True) == (answer.status, answer.body, answer.complete)

    def test_head(self) -> None:
        """
        The answer to HEAD has the header fields of the one to GET and no body.
        """
        for application in (
            sends(response_start(200, [TEXT]), response_body(b"hello")),
            sends(response_start(200, [TEXT, (b"content-length", b"5")]), response_body(b"hello")),
            sends(response_start(200, [TEXT, (b"content-length", b"5")]), response_body(b"")),
        ):
            answer = self.answer_to(application, "HEAD")
            assert (answer.status, answer.body, answer.complete) == (200, b"", True)
            assert answer.values(b"content-length") == [b"5"]
            assert answer.values(b"content-type") == [b"text/plain"]

    def test_head_streaming(self) -> None:
        """
        A streamed answer to HEAD is complete and empty, and the connection usable.
        """
        _, peer, script = self.script()
        handle = peer.request("HEAD")

        script.call.send(response_start(), response_body(b"a", more=True), response_body(b"b"))

        assert _seen(peer, handle) == (200, b"", True)
        script.call.finish()
        self.check_usable(peer, script)

    def test_no_content(self) -> None:
        """
        204 has neither body nor content-length.
        """
        for headers in ([], [(b"content-length", b"0")]):
            answer = self.answer_to(sends(response_start(204, headers), response_body()))
            assert (answer.status, answer.body, answer.complete) == (204, b"", True)
            assert answer.values(b"content-length") == []

    def test_not_modified(self) -> None:
        """
        304 has no body, and only the content-length that the application gave.
        """
        for headers, expected in (([], []), ([(b"content-length", b"123")], [b"123"])):
            answer = self.answer_to(sends(response_start(304, headers), response_body()))
            assert (answer.status, answer.body, answer.complete) == (304, b"", True)
            assert expected == answer.values(b"content-length")

    def test_body_where_none_may_be(self) -> None:
        """
        A body sent with 204 or 304 reaches nobody, least of all the next answer.
        """
        _, peer, script = self.script()
        for status in (204, 304):
            handle = peer.request()
            call = script.call
            call.send(response_start(status))
            task = call.sending(response_body(b"HTTP/1.1 200 OK\r\n\r\n"))
            assert task.done()
            if task.exception() is not None:
                call.send(response_body())
            call.finish()
            assert (status, b"", True) == _seen(peer, handle)
            self.check_usable(peer, script)

    def test_content_length_is_kept(self) -> None:
        """
        The application's content-length is sent, once, and the body as it comes.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call

        call.send(response_start(200, [(b"Content-Length", b"5")]), response_body(b"he", more=True))
        assert _seen(peer, handle) == (200, b"he", False)
        call.send(response_body(b"llo", more=True), response_body())

        assert _seen(peer, handle) == (200, b"hello", True)
        assert peer.answer(handle).values(b"content-length") == [b"5"]
        call.finish()
        self.check_usable(peer, script)

    def test_body_too_long(self) -> None:
        """
        The part that exceeds content-length is refused and not sent; the right one may follow.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call
        call.send(response_start(200, [(b"content-length", b"5")]), response_body(b"123", more=True))

        refused(call, response_body(b"456"))
        refused(call, response_body(b"456", more=True))
        assert _seen(peer, handle) == (200, b"123", False)

        call.send(response_body(b"45"))
        assert _seen(peer, handle) == (200, b"12345", True)
        call.finish()
        self.check_usable(peer, script)

    def test_body_too_long_is_never_complete(self) -> None:
        """
        An application that fails over a body too long leaves an answer that is seen to be incomplete.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call
        call.send(response_start(200, [(b"content-length", b"5")]), response_body(b"123", more=True))

        call.fail(refused(call, response_body(b"456")))

        answer = peer.answer(handle)
        assert (answer.body, answer.complete, answer.reset) == (b"123", False, True)

    def test_body_too_long_at_once(self) -> None:
        """
        A body too long from the start is a 500, nothing of it sent.
        """
        answer = self.answer_to(sends(response_start(200, [(b"content-length", b"2")]), response_body(b"12345")))

        assert (answer.status, answer.complete) == (500, True)
        assert b"12" not in answer.body

    def test_body_too_short(self) -> None:
        """
        A body that ends before its content-length is never complete.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call
        call.send(response_start(200, [(b"content-length", b"5")]), response_body(b"123", more=True))

        task = call.sending(response_body())
        assert task.done()
        error = task.exception()
        if error is None:
            call.finish()
        else:
            call.fail(error)

        answer = peer.answer(handle)
        assert (answer.body, answer.complete, answer.reset) == (b"123", False, True)

    def test_body_too_short_at_once(self) -> None:
        """
        A body too short from the start is a 500.
        """
        answer = self.answer_to(sends(response_start(200, [(b"content-length", b"5")]), response_body(b"12")))

        assert (answer.status, answer.complete) == (500, True)

    def test_content_length_that_is_none(self) -> None:
        """
        A content-length that is not one decimal number is refused.
        """
        _, peer, script = self.script()
        for lengths in (
            [b"abc"],
            [b"-1"],
            [b"+1"],
            [b"1_0"],
            [b"0x2"],
            [b""],
            [b"2, 2"],
            [b"2", b"3"],
            [b"9" * 5000],
        ):
            handle = peer.request()
            headers = [(b"content-length", length) for length in lengths]
            script.call.fail(refused(script.call, response_start(200, headers)))
            answer = peer.answer(handle)
            assert (answer.status, answer.complete) == (500, True), lengths
        self.check_usable(peer, script)

    def test_hop_by_hop_fields_are_dropped(self) -> None:
        """
        Fields of the connection are the wire's: the application's are not sent.
        """
        answer = self.answer_to(
            sends(
                response_start(
                    200,
                    [
                        (b"connection", b"x-hop, upgrade"),
                        (b"Keep-Alive", b"timeout=99"),
                        (b"proxy-connection", b"keep-alive"),
                        (b"transfer-encoding", b"gzip, chunked"),
                        (b"upgrade", b"h2c"),
                        (b"x-end-to-end", b"1"),
                    ],
                ),
                response_body(b"ok"),
            )
        )

        assert (answer.status, answer.body, answer.complete) == (200, b"ok", True)
        assert answer.values(b"x-end-to-end") == [b"1"]
        for name in (b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"):
            assert answer.values(name) == [], name
        assert not any(b"x-hop" in value for value in answer.values(b"connection"))

    def test_transfer_encoding_does_not_beat_content_length(self) -> None:
        """
        With content-length and transfer-encoding from the application the first one counts.
        """
        answer = self.answer_to(
            sends(
                response_start(200, [(b"content-length", b"2"), (b"Transfer-Encoding", b"chunked")]),
                response_body(b"ok"),
            )
        )

        assert (answer.status, answer.body, answer.complete) == (200, b"ok", True)
        assert answer.values(b"content-length") == [b"2"]
        assert answer.values(b"transfer-encoding") == []

    def test_date_and_server(self) -> None:
        """
        Date and Server are sent once with each answer, also with one that is not the application's.
        """
        for application in (sends(response_start(), response_body(b"ok")), sends()):
            answer = self.answer_to(application)
            assert answer.values(b"server") == [b"txasgi"]
            (date,) = answer.values(b"date")
            assert parsedate_to_datetime(date.decode()).timestamp() == 784111777.0

    def test_own_date_and_server(self) -> None:
        """
        The application's Date and Server are sent instead, in whatever case.
        """
        own = [(b"Server", b"mine"), (b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")]

        answer = self.answer_to(sends(response_start(200, own), response_body(b"ok")))

        assert answer.values(b"server") == [b"mine"]
        assert answer.values(b"date") == [b"Thu, 01 Jan 1970 00:00:00 GMT"]

    def test_one_of_date_and_server(self) -> None:
        """
        One of the two from the application does not cost the other.
        """
        answer = self.answer_to(sends(response_start(200, [(b"server", b"mine")]), response_body(b"ok")))

        assert answer.values(b"server") == [b"mine"]
        assert len(answer.values(b"date")) == 1

    def test_no_date_and_server(self) -> None:
        """
        Either can be turned off, and fields be added to every answer.
        """
        answer = self.answer_to(
            sends(response_start(), response_body(b"ok")),
            server=None,
            date=False,
            extra_fields=[(b"x-extra", b"1")],
        )

        assert answer.values(b"server") == []
        assert answer.values(b"date") == []
        assert answer.values(b"x-extra") == [b"1"]

    def test_back_pressure(self) -> None:
        """
        send() waits when the client does not read, and goes on once it does; nothing is lost.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call
        call.send(response_start())
        peer.clog()
        sent = b""
        waiting = None
        for piece in pieces(4 * MIB):
            sent += piece
            task = call.sending(response_body(piece, more=True))
            if not task.done():
                waiting = task
                break
            task.result()
        assert waiting is not None, "send() never waits"
        assert len(sent) <= HELD

        peer.unclog()

        assert peer.answer(handle).body == sent
        assert waiting.done()
        waiting.result()
        call.send(response_body())
        assert (200, sent, True) == _seen(peer, handle)
        call.finish()

    def test_back_pressure_of_several_senders(self) -> None:
        """
        Each send() that waits goes on.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call
        call.send(response_start())
        peer.clog()
        tasks = [call.sending(response_body(piece, more=True)) for piece in pieces(2 * MIB)]
        assert not tasks[-1].done()
        assert not tasks[-2].done()

        peer.unclog()
        peer.answer(handle)

        assert [None] * len(tasks) == [task.result() for task in tasks]
        call.send(response_body())
        assert (200, len(peer.answer(handle).body), peer.answer(handle).complete) == (200, 2 * MIB, True)

    def test_cancelled_send(self) -> None:
        """
        A send() that was cancelled while it waited was sent whole or not at all, and others may follow.
        """
        rig, peer, script = self.script()
        handle = peer.request()
        call = script.call
        call.send(response_start())
        peer.clog()
        sent = b""
        for piece in pieces(4 * MIB):
            task = call.sending(response_body(piece, more=True))
            if not task.done():
                break
            sent += piece
        task.cancel()
        rig.settle()
        assert task.cancelled()

        peer.unclog()
        peer.answer(handle)
        call.send(response_body(b"end"))

        answer = peer.answer(handle)
        assert answer.complete
        assert answer.body in (sent + piece + b"end", sent + b"end")
        call.finish()
        self.check_usable(peer, script)

    def test_last_send_to_a_client_that_leaves(self) -> None:
        """
        A last send() that waits when the client leaves ends, and so may the application.
        """
        rig, peer, script = self.script()
        peer.request()
        peer.clog()
        call = script.call
        call.send(response_start(200, [(b"content-length", b"%d" % MIB)]))
        task = call.sending(response_body(bytes(MIB)))

        peer.leave()

        assert task.done()
        error = task.exception()
        assert error is None or isinstance(error, ClientDisconnected)
        call.finish()
        assert not rig.gate.tasks
        assert len(rig.outcomes) == 1

    def test_one_shot_to_a_clogged_client(self) -> None:
        """
        A large answer in one message is complete once the client reads, whether its send() waited or not.
        """
        rig, peer, script = self.script()
        handle = peer.request()
        peer.clog()
        call = script.call
        call.send(response_start(200, [(b"content-length", b"%d" % MIB)]))
        task = call.sending(response_body(bytes(MIB)))

        peer.unclog()
        answer = peer.answer(handle)
        rig.settle()

        assert (len(answer.body), answer.complete) == (MIB, True)
        task.result()
        call.finish()
        self.check_usable(peer, script)


def _seen(peer: HttpPeer, handle: int) -> tuple[int, bytes, bool]:
    answer = peer.answer(handle)
    assert not answer.reset
    return answer.status, answer.body, answer.complete


class RefusalConformance(_Conformance):
    """
    Messages that are not allowed raise at the send() that brought them, and nothing of them is sent.
    """

    def check_500(self, bad: Message) -> None:
        """
        The message is refused; the client of an application that fails over it gets 500, and may go on.
        """
        _, peer, script = self.script()
        handle = peer.request()
        script.call.fail(refused(script.call, bad))
        answer = peer.answer(handle)
        assert (answer.status, answer.complete) == (500, True), bad
        assert not [name for name, _ in answer.headers if name.startswith(b"x-")]
        self.check_usable(peer, script)

        # The application may also do better.
        handle = peer.request()
        call = script.call
        refused(call, bad)
        call.send(response_start(200), response_body(b"better"))
        call.finish()
        assert _seen(peer, handle) == (200, b"better", True)

    def test_status(self) -> None:
        """
        A status is an int from 200 to 599 or so, never an informational one.
        """
        for status in (0, 20, 99, 100, 101, 103, 199, 1000, 2000, -200, "200", b"200", None, [200], 10**30):
            self.check_500({"type": "http.response.start", "status": status, "headers": []})
        self.check_500({"type": "http.response.start", "headers": []})

    def test_header_names(self) -> None:
        """
        Header names are tokens in bytes.
        """
        for name in (
            b"",
            b" x-a",
            b"x-a ",
            b"x a",
            b"x-a:",
            b"x-a\r",
            b"x-a\n",
            b"x-a\r\nx-b",
            b"x-a\0",
            b"x-\xe9",
            b"x(a)",
            b'"x"',
            b":status",
            "x-a",
            None,
            1,
        ):
            self.check_500(_start_with([(name, b"1")]))

    def test_header_values(self) -> None:
        """
        Header values are bytes without control characters.
        """
        for value in (
            b"a\r\nset-cookie: b",
            b"a\nb",
            b"a\rb",
            b"a\r\n b",
            b"a\0b",
            b"\x1b[2J",
            b"a\x7f",
            b"a\r",
            b"a\n",
            b"\na",
            "text",
            None,
            1,
        ):
            self.check_500(_start_with([(b"x-a", value)]))

    def test_header_values_of_known_fields(self) -> None:
        """
        Fields that the server knows are checked no less than others.
        """
        for name in (b"date", b"server", b"location", b"Content-Type", b"connection", b"transfer-encoding"):
            self.check_500(_start_with([(name, b"a\r\nx-b: c")]))
        for name in (b"date", b"server", b"content-length"):
            self.check_500(_start_with([(name, "1")]))

    def test_headers_of_another_shape(self) -> None:
        """
        Headers are pairs.
        """
        for headers in ([(b"x-a",)], [(b"x-a", b"1", b"2")], [b"x-a"], [None], 5, {b"x-a": b"1"}, b"x-a: 1"):
            self.check_500(_start_with(headers))

    def test_refused_start_leaves_nothing(self) -> None:
        """
        A start that was refused leaves nothing behind: neither its status nor its content-length.
        """
        bad = response_start(404, [(b"content-length", b"5"), (b"x-a", b"1"), (b"bad name", b"x")])
        for headers in ([], [(b"content-length", b"2")]):
            _, peer, script = self.script()
            handle = peer.request()
            refused(script.call, bad)
            answer_with(script.call, b"ok", 200, headers)

            assert _seen(peer, handle) == (200, b"ok", True)
            assert peer.answer(handle).values(b"x-a") == []
            assert b"5" not in peer.answer(handle).values(b"content-length")

    def test_bad_header_behind_good_ones(self) -> None:
        """
        One bad header spoils the lot.
        """
        self.check_500(_start_with([(b"x-a", b"1"), (b"x-b", b"2"), (b"x-c", b"3\r\n")]))

    def test_upper_case_names(self) -> None:
        """
        Upper case in names is forgiven and sent in lower case.
        """
        answer = self.answer_to(
            sends(response_start(200, [(b"X-Upper", b"1"), (b"Content-TYPE", b"text/html")]), response_body())
        )

        assert answer.status == 200
        assert (b"x-upper", b"1") in answer.headers
        assert (b"content-type", b"text/html") in answer.headers

    def test_no_message(self) -> None:
        """
        Messages of an unknown type, or without one, are refused.
        """
        for message in (
            {"type": "http.response.nonsense"},
            {"type": "http.response.push", "path": "/", "headers": []},
            {"type": "http.response.debug", "info": {}},
            {"type": "http.request"},
            {"type": "http.disconnect"},
            {"type": "websocket.accept"},
            {"type": "lifespan.startup.complete"},
            {"type": ""},
            {"type": None},
            {},
        ):
            self.check_500(message)

    def test_body_before_start(self) -> None:
        """
        A body without start is refused.
        """
        self.check_500(response_body(b"ok"))
        self.check_500(response_body(b"ok", more=True))

    def test_trailers_before_start(self) -> None:
        """
        Trailers without start are refused.
        """
        self.check_500({"type": "http.response.trailers", "headers": []})

    def test_second_start(self) -> None:
        """
        A second start is refused, before the body and within it, and changes nothing.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call
        call.send(response_start(200))
        refused(call, response_start(404))
        call.send(response_body(b"a", more=True))
        refused(call, response_start(404))
        call.send(response_body(b"b"))
        call.finish()

        assert _seen(peer, handle) == (200, b"ab", True)
        self.check_usable(peer, script)

    def test_second_start_at_once(self) -> None:
        """
        A second start in the same turn is refused, before anything went out, or the answer broken off.
        """
        answer = self.answer_to(sends(response_start(200), response_start(404), response_body(b"ok")))

        assert (answer.status, answer.complete) == (500, True) or (
            answer.complete,
            answer.reset,
        ) == (False, True)

    def test_after_the_end(self) -> None:
        """
        Whatever is sent after the end of the answer is refused, and reaches nobody.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call
        call.send(response_start(), response_body(b"ok"))

        for message in (response_body(b"more"), response_body(), response_start(), {"type": "nonsense"}):
            refused(call, message)

        call.finish()
        assert _seen(peer, handle) == (200, b"ok", True)
        self.check_usable(peer, script)

    def test_body_that_is_not_bytes(self) -> None:
        """
        A body that is not bytes is refused; the right one may follow.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call
        call.send(response_start())
        for body in ("text", None, 5, [b"a"]):
            refused(call, {"type": "http.response.body", "body": body})
            refused(call, {"type": "http.response.body", "body": body, "more_body": True})
        call.send(response_body(b"ok"))
        call.finish()

        assert _seen(peer, handle) == (200, b"ok", True)
        self.check_usable(peer, script)

    def test_body_that_is_not_bytes_at_once(self) -> None:
        """
        A body that is not bytes is a 500 as long as nothing went out.
        """
        answer = self.answer_to(
            sends(response_start(), {"type": "http.response.body", "body": "text"}),
        )

        assert (answer.status, answer.complete) == (500, True)


def _start_with(headers: Any) -> Message:
    return {"type": "http.response.start", "status": 200, "headers": headers}


class FailureConformance(_Conformance):
    """
    Applications that fail.
    """

    def test_exception_before_start(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        An exception before the start is a 500 at once, logged once with its traceback, and told to nobody outside.
        """
        _, peer, script = self.script()
        handle = peer.request()

        script.call.fail(ValueError("a secret"))

        answer = peer.answer(handle)
        assert (answer.status, answer.complete) == (500, True)
        assert b"secret" not in answer.body
        assert b"ValueError" not in answer.body
        _logged_once(caplog, "a secret")
        self.check_usable(peer, script)

    def test_exception_before_start_with_body_to_come(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        The 500 does not wait for a request body that is still to come.
        """
        _, peer, script = self.script()
        handle = peer.request("POST", headers=[(b"content-length", b"10")], body=b"hello", end=False)

        script.call.fail(ValueError("oops"))

        answer = peer.answer(handle)
        assert (answer.status, answer.complete) == (500, True)
        _logged_once(caplog, "oops")

    def test_exception_in_the_turn_of_the_start(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        An exception right after the start is a 500 or a broken off answer, never a complete one.
        """

        async def application(_scope: Any, _receive: Receive, send: Send) -> None:
            await send(response_start(200))
            raise ValueError("oops")

        answer = self.answer_to(application)

        assert (answer.status, answer.complete) == (500, True) or (
            answer.complete,
            answer.reset,
        ) == (False, True)
        _logged_once(caplog, "oops")

    def test_exception_after_start(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        An exception after the start breaks the answer off, with and without content-length; logged once.
        """
        for headers in ([], [(b"content-length", b"5")], [(b"content-length", b"3")]):
            for body in ([], [response_body(b"abc", more=True)]):
                caplog.clear()
                _, peer, script = self.script()
                handle = peer.request()
                script.call.send(response_start(200, headers), *body)

                script.call.fail(ValueError("oops"))

                answer = peer.answer(handle)
                whole = body and headers == [(b"content-length", b"3")]
                if not whole or peer.multiplexed:
                    # Over HTTP/1.1 three of three bytes are complete, whatever comes after.
                    assert (answer.status, answer.complete, answer.reset) == (200, False, True)
                _logged_once(caplog, "oops")

    def test_exception_after_the_answer(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        An exception after a complete answer is logged once and harms neither answer nor connection.
        """
        _, peer, script = self.script()
        handle = peer.request()
        script.call.send(response_start(), response_body(b"ok"))

        script.call.fail(ValueError("oops"))

        assert _seen(peer, handle) == (200, b"ok", True)
        _logged_once(caplog, "oops")
        self.check_usable(peer, script)

    def test_returns_without_answer(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        An application that returns without an answer is answered for by a 500, and the operator told.
        """
        _, peer, script = self.script()
        handle = peer.request()

        script.call.finish()

        answer = peer.answer(handle)
        assert (answer.status, answer.complete) == (500, True)
        assert len(errors_logged(caplog)) == 1
        self.check_usable(peer, script)

    def test_returns_after_start(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        An application that returns between start and body leaves no complete answer.
        """
        answer = self.answer_to(sends(response_start(200)))

        assert (answer.status, answer.complete) == (500, True) or (
            answer.complete,
            answer.reset,
        ) == (False, True)
        assert len(errors_logged(caplog)) == 1

    def test_returns_in_the_middle(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        An application that returns in the middle of its answer leaves it broken off.
        """
        for headers in ([], [(b"content-length", b"5")]):
            caplog.clear()
            _, peer, script = self.script()
            handle = peer.request()
            script.call.send(response_start(200, headers), response_body(b"abc", more=True))

            script.call.finish()

            answer = peer.answer(handle)
            assert (answer.body, answer.complete, answer.reset) == (b"abc", False, True)
            assert len(errors_logged(caplog)) == 1

    def test_application_cancels_itself(self) -> None:
        """
        An application that ends by CancelledError is answered for like one that failed.
        """
        _, peer, script = self.script()
        handle = peer.request()

        script.call.fail(asyncio.CancelledError())

        answer = peer.answer(handle)
        assert (answer.status, answer.complete) == (500, True)
        self.check_usable(peer, script)

    def test_application_that_is_no_coroutine(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        An application that fails when it is called, or returns no awaitable, is a 500.
        """

        def fails(_scope: Any, _receive: Receive, _send: Send) -> Any:
            raise ValueError("oops")

        def returns_none(_scope: Any, _receive: Receive, _send: Send) -> Any:
            return None

        for application in (fails, returns_none):
            caplog.clear()
            answer = self.answer_to(application)
            assert (answer.status, answer.complete) == (500, True)
            assert len(errors_logged(caplog)) == 1

    def test_awaitable_that_is_no_coroutine(self) -> None:
        """
        An application may return any awaitable.
        """

        class Answering:
            def __init__(self, send: Send) -> None:
                self.send = send

            def __await__(self) -> Any:
                yield from sends(response_start(), response_body(b"ok"))({}, self.receive, self.send).__await__()

            async def receive(self) -> Message:
                raise NotImplementedError

        def application(_scope: Any, _receive: Receive, send: Send) -> Any:
            return Answering(send)

        answer = self.answer_to(application)

        assert (answer.status, answer.body, answer.complete) == (200, b"ok", True)

    def test_refused_message_is_logged_once(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        A refused message that the application lets out is logged once; one that it catches is not.
        """
        _, peer, script = self.script()
        peer.request()
        error = refused(script.call, response_start(99))
        assert errors_logged(caplog) == []

        script.call.fail(error)

        _logged_once(caplog, "99")

    def test_no_response_splitting_in_the_500(self) -> None:
        """
        The 500 carries nothing of the request.
        """
        _, peer = self.serve(sends())
        answer = peer.answer(peer.request("GET", b"/<script>%0d%0a", [(b"x-a", b"<b>")]))

        assert (answer.status, answer.complete) == (500, True)
        assert b"script" not in answer.body
        assert b"<b>" not in answer.body
        assert all(value.startswith(b"text/plain") for value in answer.values(b"content-type"))

    def test_500_to_head(self) -> None:
        """
        The 500 to a HEAD has no body.
        """
        _, peer, script = self.script()
        handle = peer.request("HEAD")

        script.call.fail(ValueError("oops"))

        assert _seen(peer, handle) == (500, b"", True)
        self.check_usable(peer, script)


def _logged_once(caplog: pytest.LogCaptureFixture, text: str) -> None:
    (record,) = errors_logged(caplog)
    assert record.name == "txasgi.error"
    assert record.exc_info is not None
    assert record.exc_info[1] is not None
    assert text in str(record.exc_info[1])


class DisconnectConformance(_Conformance):
    """
    Clients that leave.
    """

    def test_send_raises(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        send() to a client that left raises ClientDisconnected, an OSError, which is not logged.
        """
        for before in ([], [response_start()], [response_start(), response_body(b"a", more=True)]):
            rig, peer, script = self.script()
            peer.request()
            call = script.call
            call.send(*before)
            peer.leave()

            for message in (response_start() if not before else response_body(b"b"), response_body(b"c")):
                error = call.sending(message).exception()
                assert isinstance(error, ClientDisconnected)
                assert isinstance(error, OSError)
                if error is not None:
                    last = error
            call.fail(last)

            assert not rig.gate.tasks
            assert errors_logged(caplog) == []

    def test_waiting_send_raises(self) -> None:
        """
        A send() that waits for a client that does not read raises once the client leaves.
        """
        _, peer, script = self.script()
        peer.request()
        call = script.call
        call.send(response_start())
        peer.clog()
        tasks = [call.sending(response_body(piece, more=True)) for piece in pieces(2 * MIB)]
        assert not tasks[-1].done()

        peer.leave()

        waited = [task for task in tasks if task.exception() is not None]
        assert tasks[-1] in waited
        assert all(isinstance(task.exception(), ClientDisconnected) for task in waited)

    def test_wrapped_disconnect_is_not_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        ClientDisconnected is not logged either as the cause of another exception or within a group.
        """

        def raised_from(error: Exception) -> Exception:
            try:
                raise ValueError("wrapped") from error
            except ValueError as wrapped:
                return wrapped

        for wrap in (
            raised_from,
            lambda error: raised_from(raised_from(error)),
            lambda error: ExceptionGroup("several", [error]),
            lambda error: ExceptionGroup("outer", [ExceptionGroup("inner", [error]), raised_from(error)]),
            lambda error: raised_from(ExceptionGroup("several", [error])),
        ):
            _, peer, script = self.script()
            peer.request()
            peer.leave()
            error = script.call.sending(response_start()).exception()
            assert isinstance(error, ClientDisconnected)

            script.call.fail(wrap(error))

            assert errors_logged(caplog) == []

    def test_other_faults_are_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        A fault that has nothing to do with the client is logged, though the client left.
        """
        for other in (False, True):
            caplog.clear()
            _, peer, script = self.script()
            peer.request()
            peer.leave()
            error = script.call.sending(response_start()).exception()
            assert isinstance(error, ClientDisconnected)
            fault: Exception = ValueError("oops")
            if other:
                fault = ExceptionGroup("oops", [error, fault])

            script.call.fail(fault)

            _logged_once(caplog, "oops")

    def test_returning_is_not_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        An application that returns without a complete answer, its client having left, does nothing wrong.
        """
        for before in ([], [response_start()], [response_start(), response_body(b"a", more=True)]):
            _, peer, script = self.script()
            peer.request()
            script.call.send(*before)
            peer.leave()
            script.call.finish()

        assert errors_logged(caplog) == []

    def test_grace(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        An application whose client left is cancelled after ten seconds, not before; that is no error.
        """
        for before in ([], [response_start()], [response_start(), response_body(b"a", more=True)]):
            rig, peer, script = self.script()
            peer.request()
            call = script.call
            call.send(*before)

            peer.leave()
            rig.advance(9.5)
            assert not call.ended

            rig.advance(2.5)
            assert call.cancelled
            assert call.ended
            assert not rig.gate.tasks
        assert errors_logged(caplog) == []

    def test_grace_is_an_option(self) -> None:
        """
        The time of grace can be set.
        """
        rig, peer, script = self.script(disconnect_grace_s=3.0)
        peer.request()
        peer.leave()
        rig.advance(2.5)
        assert not script.call.ended
        rig.advance(2.5)

        assert script.call.cancelled

    def test_abandoned_request(self) -> None:
        """
        A client that gives up one request counts as gone for this one.
        """
        rig, peer, script = self.script()
        handle = peer.request()
        read_body(script.call)
        waiting = script.call.receiving()

        peer.abandon(handle)

        assert waiting.result() == DISCONNECT
        assert isinstance(script.call.sending(response_start()).exception(), ClientDisconnected)
        rig.advance(12)
        assert script.call.cancelled

    def test_ends_within_grace(self) -> None:
        """
        An application that ends by itself in time is not cancelled.
        """
        rig, peer, script = self.script()
        peer.request()
        peer.leave()
        rig.advance(5)

        script.call.finish()

        rig.advance(60)
        assert not script.call.cancelled
        assert not rig.gate.tasks

    def test_application_that_will_not_be_cancelled(self) -> None:
        """
        An application that goes on after it was cancelled is left alone.
        """
        rounds = 0

        async def application(_scope: Any, _receive: Receive, _send: Send) -> None:
            nonlocal rounds
            for _ in range(2):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    rounds += 1
                    return

        rig, peer = self.serve(application)
        peer.request()
        peer.leave()
        rig.advance(60)

        assert rounds == 1
        assert not rig.gate.tasks

    def test_finished_answer_is_never_cancelled(self) -> None:
        """
        What an application does after its answer is not disturbed by a client that leaves.
        """
        rig, peer, script = self.script()
        handle = peer.request()
        script.call.send(response_start(), response_body(b"ok"))
        assert peer.answer(handle).complete

        peer.leave()
        rig.advance(600)

        assert not script.call.ended
        script.call.finish()
        assert not script.call.cancelled
        assert not rig.gate.tasks

    def test_background_work_does_not_hold_up_the_next_request(self) -> None:
        """
        The next request is served while the application still works on behalf of the one before.
        """
        _, peer, script = self.script()
        handle = peer.request()
        background = script.call
        background.send(response_start(), response_body(b"ok"))
        assert peer.answer(handle).complete

        self.check_usable(peer, script)

        assert not background.ended
        background.finish()
        self.check_usable(peer, script)

    def test_background_work_of_one_does_not_touch_the_next(self) -> None:
        """
        A client that leaves during its second request costs only this one's task.
        """
        rig, peer, script = self.script()
        peer.request()
        first = script.call
        first.send(response_start(), response_body(b"ok"))
        peer.request()
        second = script.call
        assert first is not second

        peer.leave()
        rig.advance(60)

        assert second.cancelled
        assert not first.ended
        refused(first, response_body(b"more"))

    def test_leaving_before_the_application_runs(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        A client that is gone before the application had its first turn is no fault of anybody's.
        """

        async def application(_scope: Any, receive: Receive, send: Send) -> None:
            await receive()
            await send(response_start())
            await send(response_body(b"ok"))

        rig, peer = self.serve(application)
        peer.request()
        peer.leave()
        rig.advance(30)

        assert not rig.gate.tasks
        assert errors_logged(caplog) == []

    def test_concurrent_requests_fail_alone(self) -> None:
        """
        On a wire that carries several requests at a time, one that fails or is given up does not touch the others.
        """
        _, peer, script = self.script()
        if not peer.multiplexed:
            return
        handles = [peer.request("GET", b"/%d" % n) for n in range(4)]
        failing, abandoned, slow, quick = script.calls
        failing.send(response_start(), response_body(b"a", more=True))
        failing.fail(ValueError("oops"))
        peer.abandon(handles[1])
        answer_with(quick, b"quick")

        assert peer.answer(handles[0]).reset
        assert DISCONNECT in (abandoned.receive(), abandoned.receive())
        assert _seen(peer, handles[3]) == (200, b"quick", True)
        assert peer.answer(handles[2]).status == 0
        answer_with(slow, b"slow")
        assert _seen(peer, handles[2]) == (200, b"slow", True)


class ExtensionConformance(_Conformance):
    """
    Trailers, early hints, files.
    """

    TE: ClassVar[list[Field]] = [(b"te", b"trailers")]

    def test_trailers(self) -> None:
        """
        Promised trailers end the answer and reach a client that asked for them.
        """
        _, peer, script = self.script()
        handle = peer.request("GET", b"/", self.TE)
        call = script.call
        call.send(response_start(200, [(b"trailer", b"x-sum")], trailers=True), response_body(b"ok"))
        assert _seen(peer, handle) == (200, b"ok", False)

        call.send({"type": "http.response.trailers", "headers": [(b"X-Sum", b"1"), (b"x-more", b"2")]})

        assert _seen(peer, handle) == (200, b"ok", True)
        if peer.trailers_out:
            assert peer.answer(handle).trailers == [(b"x-sum", b"1"), (b"x-more", b"2")]
        call.finish()
        self.check_usable(peer, script)

    def test_trailers_at_once(self) -> None:
        """
        Body and trailers in one turn of the loop are no different.
        """
        answer = self.answer_to(
            sends(
                response_start(200, trailers=True),
                response_body(b"ok"),
                {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]},
            ),
            headers=self.TE,
        )

        assert (answer.status, answer.body, answer.complete) == (200, b"ok", True)
        assert answer.trailers in ([(b"x-sum", b"1")], [])

    def test_trailers_in_parts(self) -> None:
        """
        more_trailers adds up, and the answer waits for the last.
        """
        _, peer, script = self.script()
        handle = peer.request("GET", b"/", self.TE)
        call = script.call
        call.send(response_start(200, trailers=True), response_body(b"ok"))
        call.send({"type": "http.response.trailers", "headers": [(b"x-a", b"1")], "more_trailers": True})
        assert _seen(peer, handle) == (200, b"ok", False)

        call.send({"type": "http.response.trailers", "headers": [(b"x-b", b"2")]})

        assert _seen(peer, handle) == (200, b"ok", True)
        if peer.trailers_out:
            assert peer.answer(handle).trailers == [(b"x-a", b"1"), (b"x-b", b"2")]

    def test_trailers_nobody_asked_for(self) -> None:
        """
        A client that did not send TE: trailers gets none, and a complete answer all the same.
        """
        _, peer, script = self.script()
        handle = peer.request()
        script.call.send(
            response_start(200, trailers=True),
            response_body(b"ok"),
            {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]},
        )

        answer = peer.answer(handle)
        assert (answer.status, answer.body, answer.complete, answer.trailers) == (200, b"ok", True, [])
        script.call.finish()
        self.check_usable(peer, script)

    def test_trailers_with_content_length(self) -> None:
        """
        An answer with content-length and trailers is complete, whichever of the two the wire can keep.
        """
        _, peer, script = self.script()
        handle = peer.request("GET", b"/", self.TE)
        script.call.send(
            response_start(200, [(b"content-length", b"2")], trailers=True),
            response_body(b"ok"),
            {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]},
        )

        assert _seen(peer, handle) == (200, b"ok", True)
        script.call.finish()
        self.check_usable(peer, script)

    def test_trailers_of_a_head(self) -> None:
        """
        An answer without body has no trailers, but may have promised them.
        """
        for method, status in (("HEAD", 200), ("GET", 204), ("GET", 304)):
            _, peer, script = self.script()
            handle = peer.request(method, b"/", self.TE)
            script.call.send(
                response_start(status, trailers=True),
                response_body(),
                {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]},
            )

            assert (status, b"", True) == _seen(peer, handle)
            script.call.finish()
            self.check_usable(peer, script)

    def test_no_trailers_after_all(self) -> None:
        """
        Promised trailers may be empty.
        """
        for message in (
            {"type": "http.response.trailers", "headers": []},
            {"type": "http.response.trailers"},
        ):
            _, peer, script = self.script()
            handle = peer.request("GET", b"/", self.TE)
            script.call.send(response_start(200, trailers=True), response_body(b"ok"), message)

            assert _seen(peer, handle) == (200, b"ok", True)
            assert peer.answer(handle).trailers == []

    def test_bad_trailers(self) -> None:
        """
        Trailers are checked like headers; the right ones may follow.
        """
        _, peer, script = self.script()
        handle = peer.request("GET", b"/", self.TE)
        call = script.call
        call.send(response_start(200, trailers=True), response_body(b"ok"))

        for pair in ((b"x a", b"1"), (b"x-a", b"1\r\nx-b: 2"), ("x-a", b"1"), (b"x-a", "1"), (b":a", b"1")):
            refused(call, {"type": "http.response.trailers", "headers": [pair]})
        for headers in (None, 5, [b"x-a"], [(b"x-a",)], [(b"x-a", b"1", b"2")], [None]):
            refused(call, {"type": "http.response.trailers", "headers": headers})
        assert _seen(peer, handle) == (200, b"ok", False)
        call.send({"type": "http.response.trailers", "headers": [(b"x-a", b"1"), (b"connection", b"close")]})

        assert _seen(peer, handle) == (200, b"ok", True)
        assert peer.answer(handle).trailers in ([(b"x-a", b"1")], [])

    def test_trailers_out_of_order(self) -> None:
        """
        Trailers that were not promised, that come before the end of the body or twice are refused.
        """
        _, peer, script = self.script()
        trailers: Message = {"type": "http.response.trailers", "headers": [(b"x-a", b"1")]}
        handle = peer.request("GET", b"/", self.TE)
        call = script.call
        call.send(response_start(200))
        refused(call, trailers)
        call.send(response_body(b"ok"))
        refused(call, trailers)
        call.finish()
        assert _seen(peer, handle) == (200, b"ok", True)

        handle = peer.request("GET", b"/", self.TE)
        call = script.call
        call.send(response_start(200, trailers=True))
        refused(call, trailers)
        call.send(response_body(b"o", more=True))
        refused(call, trailers)
        call.send(response_body(b"k"))
        refused(call, response_body(b"more"))
        call.send(trailers)
        refused(call, trailers)
        call.finish()
        assert _seen(peer, handle) == (200, b"ok", True)

    def test_missing_trailers(self) -> None:
        """
        An application that promised trailers and returns without leaves no complete answer.
        """
        _, peer, script = self.script()
        handle = peer.request("GET", b"/", self.TE)
        script.call.send(response_start(200, trailers=True), response_body(b"ok"))

        script.call.finish()

        assert (peer.answer(handle).complete, peer.answer(handle).reset) == (False, True)

    def test_early_hints_before_start(self) -> None:
        """
        Early hints before the start are sent at once, as often as the application likes.
        """
        _, peer, script = self.script()
        handle = peer.request()
        if not peer.early_hints:
            return
        script.call.send(_hint(b"</a.css>; rel=preload"))
        assert _hints(peer, handle) == [(103, [(b"link", b"</a.css>; rel=preload")])]
        script.call.send(_hint(b"</b>; rel=preload", b"</c>; rel=preconnect"))
        answer_with(script.call)

        links = [value for _, headers in _hints(peer, handle) for _, value in headers]
        assert links == [b"</a.css>; rel=preload", b"</b>; rel=preload", b"</c>; rel=preconnect"]
        assert _seen(peer, handle) == (200, b"ok", True)
        assert peer.answer(handle).values(b"link") == []
        self.check_usable(peer, script)

    def test_early_hints_after_start(self) -> None:
        """
        Early hints after the start, where ASGI has them, go out before the head that is still held back.
        """
        _, peer = self.serve(sends(response_start(), _hint(b"</a>; rel=preload"), response_body(b"ok")))
        handle = peer.request()

        if peer.early_hints:
            assert _hints(peer, handle) == [(103, [(b"link", b"</a>; rel=preload")])]
        assert _seen(peer, handle) == (200, b"ok", True)

    def test_early_hints_too_late(self) -> None:
        """
        Early hints after a head that went out are left out; that is no error.
        """
        _, peer, script = self.script()
        handle = peer.request()
        script.call.send(response_start())
        assert peer.answer(handle).status == 200
        if not peer.early_hints:
            return

        script.call.send(_hint(b"</a>; rel=preload"), response_body(b"a", more=True), _hint(b"</b>"))
        script.call.send(response_body(b"b"))

        assert _seen(peer, handle) == (200, b"ab", True)
        assert _hints(peer, handle) == []

    def test_bad_early_hints(self) -> None:
        """
        Links are checked like header values.
        """
        _, peer, script = self.script()
        handle = peer.request()
        if not peer.early_hints:
            return
        for link in (b"</a>\r\nx-a: 1", b"</a>\n", "</a>", None):
            refused(script.call, _hint(link))
        for links in (None, 5, "</a>"):
            refused(script.call, {"type": "http.response.early_hint", "links": links})
        answer_with(script.call)

        assert _seen(peer, handle) == (200, b"ok", True)
        assert _hints(peer, handle) == []

    def test_early_hints_after_the_end(self) -> None:
        """
        Early hints after the end of the answer reach nobody.
        """
        _, peer, script = self.script()
        handle = peer.request()
        script.call.send(response_start(), response_body(b"ok"))

        error = script.call.sending(_hint(b"</a>")).exception()
        assert error is None or isinstance(error, ApplicationError)
        script.call.finish()
        assert _hints(peer, handle) == []
        self.check_usable(peer, script)

    def send_path(self, rig: Rig, call: Call, path: object) -> asyncio.Task[None]:
        """
        Send pathsend and wait for the threads that read the file.
        """
        task = call.sending({"type": "http.response.pathsend", "path": path})
        rig.settle_threads(task.done)
        rig.settle()
        return task

    def test_pathsend(self, tmp_path: Path) -> None:
        """
        A file is the body, and the answer complete with it; with and without content-length.
        """
        for size in (0, 1, 65536, 300_001):
            file = tmp_path / str(size)
            content = b"".join(pieces(size, 1000))
            file.write_bytes(content)
            for headers in ([], [(b"content-length", b"%d" % size)]):
                rig, peer, script = self.script()
                handle = peer.request()
                script.call.send(response_start(200, headers))

                self.send_path(rig, script.call, str(file)).result()

                assert (200, content, True) == _seen(peer, handle)
                script.call.finish()
                self.check_usable(peer, script)

    def test_pathsend_at_once(self, tmp_path: Path) -> None:
        """
        A file in the turn of the start has the header fields that the application gave.
        """
        file = tmp_path / "file"
        file.write_bytes(b"hello")
        send_file: Message = {"type": "http.response.pathsend", "path": str(file)}
        for headers in ([TEXT], [TEXT, (b"content-length", b"5")]):
            rig, peer = self.serve(sends(response_start(200, headers), send_file))
            handle = peer.request()
            rig.settle_threads(lambda rig=rig: not rig.gate.tasks)  # type: ignore[misc]  # a lambda's default
            assert _seen(peer, handle) == (200, b"hello", True)
            answer = peer.answer(handle)
            assert answer.values(b"content-type") == [b"text/plain"]
            assert answer.values(b"content-length") in ([b"5"], [])
            assert peer.alive

    def test_pathsend_of_a_head(self, tmp_path: Path) -> None:
        """
        The answer to HEAD has nothing of the file.
        """
        file = tmp_path / "file"
        file.write_bytes(b"hello")
        rig, peer, script = self.script()
        handle = peer.request("HEAD")
        script.call.send(response_start(200, [(b"content-length", b"5")]))

        self.send_path(rig, script.call, str(file)).result()

        assert _seen(peer, handle) == (200, b"", True)
        assert peer.answer(handle).values(b"content-length") == [b"5"]
        script.call.finish()
        self.check_usable(peer, script)

    def test_pathsend_of_no_file(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """
        What cannot be read raises at that send(), and another body may follow.
        """
        for path in (str(tmp_path / "missing"), str(tmp_path), "", 5, None):
            rig, peer, script = self.script()
            handle = peer.request()
            script.call.send(response_start(200))

            task = self.send_path(rig, script.call, path)
            assert isinstance(task.exception(), (OSError, ApplicationError)), path
            assert not isinstance(task.exception(), ClientDisconnected)
            script.call.send(response_body(b"none"))

            assert _seen(peer, handle) == (200, b"none", True)
            script.call.finish()
        assert errors_logged(caplog) == []

    def test_pathsend_of_a_pipe(self, tmp_path: Path) -> None:
        """
        A pipe that nobody writes to is refused, it does not hold a thread for ever.
        """
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        rig, peer, script = self.script()
        handle = peer.request()
        script.call.send(response_start(200))
        task = script.call.sending({"type": "http.response.pathsend", "path": str(pipe)})
        rounds = iter(range(200))
        rig.settle_threads(lambda: task.done() or next(rounds, None) is None)
        waited = not task.done()
        if waited:
            # Let the thread go.
            os.close(os.open(pipe, os.O_RDWR))
            rig.settle_threads(task.done)
        assert isinstance(task.exception(), OSError)
        assert not waited
        script.call.send(response_body(b"ok"))

        assert _seen(peer, handle) == (200, b"ok", True)

    def test_pathsend_of_no_file_at_once(self, tmp_path: Path) -> None:
        """
        A missing file is a 500 when the application lets the error out and nothing was sent, else a broken off answer.
        """
        missing: Message = {"type": "http.response.pathsend", "path": str(tmp_path / "missing")}
        rig, peer = self.serve(sends(response_start(200), missing))
        handle = peer.request()
        rig.settle_threads(lambda: not rig.gate.tasks)
        rig.settle()

        answer = peer.answer(handle)
        assert (answer.status, answer.complete) == (500, True) or (
            answer.complete,
            answer.reset,
        ) == (False, True)

    def test_pathsend_of_another_size(self, tmp_path: Path) -> None:
        """
        A file longer or shorter than content-length never gives a complete answer with the wrong body.
        """
        file = tmp_path / "file"
        file.write_bytes(b"hello")
        for length in (b"3", b"8"):
            rig, peer, script = self.script()
            handle = peer.request()
            script.call.send(response_start(200, [(b"content-length", length)]))
            task = self.send_path(rig, script.call, str(file))
            error = task.exception()
            if error is None:
                script.call.finish()
            else:
                script.call.fail(error)

            answer = peer.answer(handle)
            assert (answer.complete, answer.reset) == (False, True), length
            assert len(answer.body) <= int(length)

    def test_pathsend_out_of_order(self, tmp_path: Path) -> None:
        """
        A file is not mixed with body messages, nor sent twice, nor before the start.
        """
        file = tmp_path / "file"
        file.write_bytes(b"hello")
        send_file: Message = {"type": "http.response.pathsend", "path": str(file)}
        rig, peer, script = self.script()
        handle = peer.request()
        call = script.call
        refused(call, send_file)
        call.send(response_start(), response_body(b"a", more=True))
        refused(call, send_file)
        call.send(response_body(b"b"))
        refused(call, send_file)
        call.finish()
        assert _seen(peer, handle) == (200, b"ab", True)

        handle = peer.request()
        call = script.call
        call.send(response_start())
        self.send_path(rig, call, str(file)).result()
        refused(call, send_file)
        refused(call, response_body(b"a"))
        call.finish()
        assert _seen(peer, handle) == (200, b"hello", True)

    def test_pathsend_back_pressure(self, tmp_path: Path) -> None:
        """
        A large file waits for a client that does not read; once it left, send() raises and the file is closed.
        """
        file = tmp_path / "file"
        with file.open("wb") as opened:
            opened.truncate(8 * MIB)
        for leaves in (True, False):
            rig, peer, script = self.script()
            handle = peer.request()
            script.call.send(response_start(200, [(b"content-length", b"%d" % (8 * MIB))]))
            peer.clog()
            task = script.call.sending({"type": "http.response.pathsend", "path": str(file)})
            _let_threads_run(rig)
            assert not task.done()

            if leaves:
                peer.leave()
                rig.settle_threads(task.done)
                assert isinstance(task.exception(), ClientDisconnected)
            else:
                peer.unclog()
                rig.settle_threads(task.done)
                task.result()
                assert (len(peer.answer(handle).body), peer.answer(handle).complete) == (8 * MIB, True)
            assert str(file) not in _open_files()


def _let_threads_run(rig: Rig) -> None:
    """
    Give the loop's threads 50 rounds; enough for what does not wait for anything else.
    """
    rounds = iter(range(50))
    rig.settle_threads(lambda: next(rounds, None) is None)


def _open_files() -> list[str]:
    folder = "/proc/self/fd"
    found = []
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        try:
            found.append(os.readlink(os.path.join(folder, name)))
        except OSError:
            continue
    return found


def _hint(*links: object) -> Message:
    return {"type": "http.response.early_hint", "links": list(links)}


def _hints(peer: HttpPeer, handle: int) -> list[tuple[int, list[Field]]]:
    return peer.answer(handle).informational


class TaskConformance(_Conformance):
    """
    One task a request, with a context of its own.
    """

    def test_fresh_context(self) -> None:
        """
        What one request sets in its context the next does not see, one after the other or all at once.
        """
        variable = contextvars.ContextVar("variable", default=0)
        seen: list[int] = []

        async def application(_scope: Any, receive: Receive, send: Send) -> None:
            seen.append(variable.get())
            variable.set(1)
            await receive()
            seen.append(variable.get())
            await send(response_start())
            await send(response_body(b"ok"))
            seen.append(variable.get())

        for at_once in (False, True):
            seen.clear()
            _, peer = self.serve(application)
            handles = []
            for _ in range(3):
                handles.append(peer.request())
                if not at_once:
                    assert peer.answer(handles[-1]).complete
            assert all(peer.answer(handle).complete for handle in handles)
            assert sorted(seen) == [0] * 3 + [1] * 6

    def test_context_of_the_body(self) -> None:
        """
        Body parts of one request do not carry the context of another.
        """
        variable = contextvars.ContextVar("variable", default="none")
        seen: list[str] = []

        async def application(scope: Any, receive: Receive, send: Send) -> None:
            variable.set(scope["path"])
            while (await receive())["more_body"]:
                seen.append(variable.get())
            seen.append(variable.get())
            await send(response_start())
            await send(response_body(b"ok"))

        _, peer = self.serve(application)
        for path in (b"/a", b"/b"):
            seen.clear()
            handle = peer.request("POST", path, end=False)
            peer.body(handle, b"1")
            peer.body(handle, b"2", end=True)
            assert peer.answer(handle).complete
            assert {path.decode()} == set(seen)

    def test_sequence(self) -> None:
        """
        A connection serves many requests, with and without bodies, each answered with its own.
        """

        async def application(scope: Any, receive: Receive, send: Send) -> None:
            body = b""
            while True:
                message = await receive()
                body += message["body"]
                if not message["more_body"]:
                    break
            await send(response_start())
            await send(response_body(scope["raw_path"] + b" " + body))

        rig, peer = self.serve(application)
        for n in range(50):
            body = None if n % 3 == 0 else b"x" * n
            handle = peer.request("POST" if body else "GET", b"/%d" % n, body=body)
            answer = peer.answer(handle)
            assert (b"/%d " % n + (body or b""), True) == (answer.body, answer.complete)
        assert not rig.gate.tasks
        assert len(rig.outcomes) == 50

    def test_all_at_once(self) -> None:
        """
        Requests that are sent without waiting are each answered with their own answer.
        """
        _, peer, script = self.script()
        handles = [peer.request("GET", b"/%d" % n) for n in range(10)]
        for n in range(10):
            peer.unsent(handles[n])
            call = script.calls[n]
            assert call.scope["path"] == f"/{n}"
            answer_with(call, b"%d" % n)

        assert [(200, b"%d" % n, True) for n in range(10)] == [_seen(peer, handle) for handle in handles]

    def test_send_from_another_task(self) -> None:
        """
        receive() and send() work in tasks that the application starts.
        """

        async def application(_scope: Any, receive: Receive, send: Send) -> None:
            async def answer() -> None:
                await send(response_start())
                await send(response_body(b"ok"))

            async with asyncio.TaskGroup() as group:
                group.create_task(answer())
                group.create_task(receive())  # type: ignore[arg-type]  # receive() is a coroutine

        answer = self.answer_to(application)

        assert (answer.status, answer.body, answer.complete) == (200, b"ok", True)


class OutcomeConformance(_Conformance):
    """
    What the access log is told.
    """

    def outcome_of(self, act: Callable[[HttpPeer, Call], None], method: str = "GET") -> tuple[int, int, str]:
        """
        Status, size and why of the one Outcome of a request.
        """
        rig, peer, script = self.script()
        peer.request(method, b"/a")
        act(peer, script.call)
        rig.advance(30)
        if not script.call.ended:
            script.call.finish()
        (outcome,) = rig.outcomes
        assert outcome.head is not None
        assert (method, b"/a") == (outcome.head.method, outcome.head.target)
        assert outcome.seconds >= 0
        return outcome.status, outcome.size, outcome.why

    def test_outcome_complete(self) -> None:
        """
        A complete answer is reported with its status and size, once.
        """
        assert self.outcome_of(
            lambda _, call: call.send(response_start(), response_body(b"he", more=True), response_body(b"llo"))
        ) == (200, 5, "")
        assert self.outcome_of(lambda _, call: answer_with(call, b"no", 404)) == (404, 2, "")

    def test_outcome_no_body(self) -> None:
        """
        The size of an answer without body is 0.
        """
        assert self.outcome_of(lambda _, call: answer_with(call), "HEAD") == (200, 0, "")
        assert self.outcome_of(lambda _, call: answer_with(call, b"", 204)) == (204, 0, "")

    def test_reported_before_background_work(self) -> None:
        """
        A complete answer is reported while the application still runs, and not again when that fails.
        """
        rig, peer, script = self.script()
        peer.request()
        script.call.send(response_start(), response_body(b"ok"))
        assert [outcome.status for outcome in rig.outcomes] == [200]

        script.call.fail(ValueError("oops"))

        assert [(outcome.status, outcome.why) for outcome in rig.outcomes] == [(200, "")]

    def test_outcome_application_failed(self) -> None:
        """
        An answer that the application failed to give, or broke off, is reported as such.
        """

        def before(_: HttpPeer, call: Call) -> None:
            call.fail(ValueError("oops"))

        def after(_: HttpPeer, call: Call) -> None:
            call.send(response_start(201), response_body(b"abc", more=True))
            call.fail(ValueError("oops"))

        def none(_: HttpPeer, call: Call) -> None:
            call.finish()

        status, _, why = self.outcome_of(before)
        assert status == 500
        assert why
        status, _, why = self.outcome_of(none)
        assert status == 500
        assert why
        assert self.outcome_of(after)[:2] == (201, 3)
        assert self.outcome_of(after)[2]

    def test_outcome_client_left(self) -> None:
        """
        A request whose client left is reported with what it got by then.
        """

        def at_once(peer: HttpPeer, _: Call) -> None:
            peer.leave()

        def in_the_middle(peer: HttpPeer, call: Call) -> None:
            call.send(response_start(201), response_body(b"abc", more=True))
            peer.leave()

        status, size, why = self.outcome_of(at_once)
        assert (status, size) == (0, 0)
        assert why
        status, size, why = self.outcome_of(in_the_middle)
        assert (status, size) == (201, 3)
        assert why

    def test_no_report(self) -> None:
        """
        Nobody needs to listen.
        """
        answer = self.answer_to(sends(response_start(), response_body(b"ok")), report=None)

        assert (answer.status, answer.body, answer.complete) == (200, b"ok", True)


class HttpConformance(
    ScopeConformance,
    ReceiveConformance,
    SendConformance,
    RefusalConformance,
    FailureConformance,
    DisconnectConformance,
    ExtensionConformance,
    TaskConformance,
    OutcomeConformance,
):
    """
    All of it. A subclass has a `make`.
    """
