"""
An HTTP/1.1 client on h11, a parser that shares nothing with ours.

h11 is asked for each request by itself (a Connection each), so requests can be pipelined, which h11's own client
cannot: what one leaves unread is given to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import h11

from txasgi.seam import Address, Field
from txasgi.testing.conform.http_peer import Answer
from txasgi.testing.rig import Rig
from txasgi.testing.transports import MemoryTransport

# What a socket gives at a time.
READ_BYTES = 64 * 1024

_LARGEST_HEAD = 1024 * 1024


def asked(method: str) -> h11.Connection:
    """
    An h11 connection that has sent a request and awaits the answer.
    """
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LARGEST_HEAD)
    connection.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    connection.send(h11.EndOfMessage())
    return connection


def read_answers(data: bytes, methods: Sequence[str], ended: bool, broken: bool = False) -> list[Answer]:
    """
    The answers to requests with these methods, one for each that is at least begun.

    ended: the server closed its side behind the data, so an answer may end there.
    broken: it broke the connection, so none may.

    Raises AssertionError for bytes that answer nothing, h11.RemoteProtocolError for what is no HTTP.
    """
    answers: list[Answer] = []
    position = 0
    for method in methods:
        if position == len(data):
            break
        answer, position = _read_answer(asked(method), data, position, ended, broken)
        answers.append(answer)
    assert position == len(data), f"not asked for: {data[position : position + 200]!r}"
    return answers


def _read_answer(
    connection: h11.Connection, data: bytes, position: int, ended: bool, broken: bool
) -> tuple[Answer, int]:
    answer = Answer()
    body = []
    told = False
    while not answer.complete:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            if not told:
                raise
            # What is not there after the end is no fault of the bytes that are.
            answer.reset = True
            break
        if event is h11.NEED_DATA and position < len(data):
            connection.receive_data(data[position : position + READ_BYTES])
            position += len(data[position : position + READ_BYTES])
        elif event is h11.NEED_DATA:
            if not ended or broken:
                answer.reset = broken
                break
            told = True
            connection.receive_data(b"")
        elif isinstance(event, h11.InformationalResponse):
            answer.informational.append((event.status_code, _fields(event.headers)))
        elif isinstance(event, h11.Response):
            answer.status, answer.headers = event.status_code, _fields(event.headers)
        elif isinstance(event, h11.Data):
            body.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            answer.complete, answer.trailers = True, _fields(event.headers)
            position -= len(connection.trailing_data[0])
        else:
            answer.reset = True
            break
    answer.body = b"".join(body)
    return answer, position


def _fields(headers: h11._headers.Headers) -> list[Field]:
    return [(bytes(name), bytes(value)) for name, value in headers.raw_items()]


@dataclass(slots=True)
class _Request:
    method: str
    sending: h11.Connection


class H1Peer:
    """
    A client on one connection of a Rig; an `HttpPeer`.

    trickle: so many bytes of each sending arrive one by one.

    transport: the server's end of it.
    """

    version = "1.1"
    client: Address = ("192.0.2.7", 54321)
    server: Address = ("127.0.0.1", 8000)
    multiplexed = False
    trailers_out = True
    trailers_in = True
    early_hints = True
    pushes = False

    def __init__(self, rig: Rig, trickle: int = 0) -> None:
        self.rig = rig
        self._trickle = trickle
        self._one_by_one = 0
        self.transport: MemoryTransport = rig.connect()
        self._requests: list[_Request] = []
        self._unsent = bytearray()
        self._left = False

    @property
    def ended(self) -> bool:
        """
        The server closed its side, in an orderly way or not.
        """
        transport = self.transport
        return transport.half_closed or transport.disconnecting or transport.closed

    @property
    def alive(self) -> bool:
        """
        A further request may be answered.
        """
        self._turn()
        return not self.ended

    def request(
        self,
        method: str = "GET",
        target: bytes = b"/",
        headers: Sequence[Field] = (),
        body: bytes | None = None,
        end: bool = True,
    ) -> int:
        """
        `HttpPeer.request`
        """
        fields = [(b"host", b"conform.test"), *headers]
        names = [name for name, _ in headers]
        if b"te" in names:
            fields.append((b"connection", b"te"))
        if b"content-length" not in names:
            if not end:
                fields.append((b"transfer-encoding", b"chunked"))
            elif body is not None:
                fields.append((b"content-length", b"%d" % len(body)))
        sending = h11.Connection(h11.CLIENT)
        self._requests.append(_Request(method, sending))
        self._send(sending, h11.Request(method=method, target=target, headers=fields))
        self.body(len(self._requests) - 1, body or b"", end)
        return len(self._requests) - 1

    def body(self, handle: int, chunk: bytes = b"", end: bool = False, trailers: Sequence[Field] = ()) -> None:
        """
        `HttpPeer.body`
        """
        sending = self._requests[handle].sending
        if chunk:
            self._send(sending, h11.Data(data=chunk))
        if end:
            self._send(sending, h11.EndOfMessage(headers=list(trailers)))
        self._turn()

    def _send(self, sending: h11.Connection, event: h11.Event) -> None:
        data = sending.send(event)
        assert data is not None
        self._unsent += data
        self._one_by_one = self._trickle

    def unsent(self, handle: int) -> int:
        """
        `HttpPeer.unsent`
        """
        self._turn()
        return len(self._unsent)

    def answer(self, handle: int) -> Answer:
        """
        `HttpPeer.answer`
        """
        self._turn()
        transport = self.transport
        broken = transport.aborted or self._left
        methods = [request.method for request in self._requests]
        answers = read_answers(bytes(transport.written), methods, self.ended, broken)
        if handle < len(answers):
            return answers[handle]
        return Answer(reset=self.ended)

    def pushed(self, handle: int) -> list[tuple[int, list[Field]]]:
        """
        `HttpPeer.pushed`: HTTP/1.1 has no push.
        """
        return []

    def abandon(self, handle: int) -> None:
        """
        `HttpPeer.abandon`: HTTP/1.1 has no other way than to leave.
        """
        self.leave()

    def leave(self) -> None:
        """
        `HttpPeer.leave`
        """
        self._left = True
        self._unsent.clear()
        self.transport.lose()
        self.rig.settle()

    def clog(self) -> None:
        """
        `HttpPeer.clog`
        """
        self.transport.clogged = True

    def unclog(self) -> None:
        """
        `HttpPeer.unclog`
        """
        self.transport.unclog()
        self._turn()

    def _turn(self) -> None:
        """
        What the network and the reactor do: bytes go in as long as the server reads, and it is told that it closed.
        """
        transport = self.transport
        self.rig.settle()
        while self._unsent and transport.reading and not transport.closed:
            size = 1 if self._one_by_one > 0 else READ_BYTES
            self._one_by_one -= 1
            data = bytes(self._unsent[:size])
            del self._unsent[:size]
            transport.receive(data)
            self.rig.settle()
        transport.finish()
        self.rig.settle()
