"""
The conformance suite of a wire, for HTTP: each behaviour once, whatever carries it.

A wire is tested by a subclass of `HttpConformance` whose `make` returns a `Rig` and a peer that speaks the wire's
protocol, best with a parser that is not ours:

    class TestH1Conformance(HttpConformance):
        def make(self, application, **gate_options):
            rig = Rig(application, **gate_options)
            return rig, H1Peer(rig)

Written for pytest, which collects the subclass; `caplog` and `tmp_path` are its fixtures. What a test expects comes from
the ASGI specification (HTTP 2.5 and extensions) and from RFC 9110, never from what a wire happens to do. Where these
leave a choice, the tests accept each of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from txasgi.asgi.task import Application, Message, Receive, Send
from txasgi.errors import ApplicationError
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
    body = b""
    while True:
        message = call.receive()
        assert message["type"] == "http.request", message
        body += message.get("body", b"")
        if not message.get("more_body", False):
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
        for chunk in (b"", None):
            handle = peer.request("POST", body=b"", end=chunk is None)
            if chunk is not None:
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

        peer.body(handle, b"hel")
        assert receiving.result() == {"type": "http.request", "body": b"hel", "more_body": True}

        receiving = call.receiving()
        assert not receiving.done()
        peer.body(handle, b"lo", end=True)
        message = receiving.result()
        rest = read_body(call) if message["more_body"] else b""
        assert message["body"] + rest == b"lo"

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

        parts = []
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
        peer.body(handle, end=True, trailers=[(b"x-sum", b"1"), (b"content-length", b"0")])

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

    def test_back_pressure(self) -> None:
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
        _, peer, script = self.script()
        handle = peer.request()

        call = script.call
        both = asyncio.gather(call.sending(response_start(200, [TEXT])), loop_free(call))
        assert both is not None
        call.finish()

        answer = peer.answer(handle)
        assert answer.status in (200, 500)


def loop_free(call: Call) -> Any:
    raise NotImplementedError
