"""
What the tests of HTTP share: the peer, its answers, and the base of each group.
"""

from __future__ import annotations

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
    pushes: the wire carries answers that nobody asked for, and this client takes them.
    """

    version: str
    client: Address
    server: Address
    multiplexed: bool
    trailers_out: bool
    trailers_in: bool
    early_hints: bool
    pushes: bool

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

    def pushed(self, handle: int) -> list[tuple[int, list[Field]]]:
        """
        What was promised on behalf of this request: for each a number as of `request`, and the fields of the request
        that it answers, pseudo fields included.
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


def logged_once(caplog: pytest.LogCaptureFixture, text: str) -> None:
    (record,) = errors_logged(caplog)
    assert record.name == "txasgi.error"
    assert record.exc_info is not None
    assert record.exc_info[1] is not None
    assert text in str(record.exc_info[1])


def complete_answer(peer: HttpPeer, handle: int) -> tuple[int, bytes, bool]:
    answer = peer.answer(handle)
    assert not answer.reset
    return answer.status, answer.body, answer.complete


def pieces(total: int, size: int = 64 * KIB) -> Iterable[bytes]:
    """
    So many bytes in parts that can be told apart.
    """
    for start in range(0, total, size):
        yield bytes([start // size % 251]) * min(size, total - start)


class HttpGroup:
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

    def check_broken_off(self, peer: HttpPeer, script: Script, handle: int) -> None:
        """
        The client sees that this answer is not complete; it costs the connection only where nothing else tells it.
        """
        answer = peer.answer(handle)
        assert (answer.complete, answer.reset) == (False, True)
        if peer.multiplexed:
            self.check_usable(peer, script)
        else:
            assert not peer.alive
