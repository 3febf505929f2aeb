"""
The contracts between a wire and an application.

A *Stream* is the wire's half of one request (RFC 9113 section 5 calls it that, HTTP/1.1 has one at a time), an
*Exchange* the application's half. They call each other directly:

    wire --open(head, stream)--> gate           once per request
    wire --data, end, lost, drain--> exchange   as bytes arrive
    exchange --start, data, ...--> stream       as the application sends

Rules that every wire and every exchange keeps:

* Calls return at once; nothing is awaited. "Wait" is said by `pauseProducing` and `resumeProducing`.
* The wire never calls an exchange from within a call that the exchange made, but for `pauseProducing`.
* After `data(..., end=True)`, `trailers` or `reset` the exchange does not touch its stream again; after `lost` neither.
  A wire may hand the same object to the next request.
* Header names are lower case, and both names and values were checked (`txasgi.fields`) before they cross the seam.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

Field = tuple[bytes, bytes]
Address = tuple[str, int | None] | None


class Link:
    """
    What is known of a connection, the same for each of its requests.

    scheme: "http" or "https".
    client: (address, port) or None when unknown (UNIX socket).
    server: (address, port), or (path, None) for a UNIX socket.
    tls: what the ASGI extension `tls` says, or None when applications need not know.
    """

    __slots__ = ("client", "scheme", "server", "tls")

    def __init__(self, scheme: str, client: Address, server: Address, tls: dict[str, Any] | None = None) -> None:
        self.scheme = scheme
        self.client = client
        self.server = server
        self.tls = tls


class Head:
    """
    The head of one request.

    method: upper case, "GET".
    target: the request target as received, in origin form (b"/path?query"), or b"*" for OPTIONS.
    headers: (name, value) in the order received, names in lower case, values without white space around them.
    version: "1.0", "1.1", "2".
    protocol: b"websocket" when the client asks for one (Upgrade, or the :protocol of RFC 8441), else None.
    expects_continue: the client waits for 100 (RFC 9110 section 10.1.1).
    complete: there is no body; `Exchange.end` is not called then.
    pushes: `Stream.push` may be called (RFC 9113 section 8.4).
    """

    __slots__ = ("complete", "expects_continue", "headers", "link", "method", "protocol", "pushes", "target", "version")

    def __init__(
        self,
        method: str,
        target: bytes,
        headers: list[Field],
        version: str,
        link: Link,
        protocol: bytes | None = None,
        expects_continue: bool = False,
        complete: bool = True,
        pushes: bool = False,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.version = version
        self.link = link
        self.protocol = protocol
        self.expects_continue = expects_continue
        self.complete = complete
        self.pushes = pushes


class Stream(Protocol):
    """
    The wire's half of one request, lent to the exchange.

    Called by the exchange only. Each call returns at once, and is ignored once the peer is gone.
    """

    def inform(self, status: int, headers: Sequence[Field]) -> None:
        """
        Send an informational answer, 100 or 103 (RFC 9110 section 15.2). Any number of times before `start`.
        """

    def push(self, target: bytes, headers: Sequence[Field]) -> None:
        """
        Promise the client the answer to a GET of *target* that it has not asked for yet, and open it as a request of
        its own. Only where `Head.pushes`; ignored when the client takes no more.
        """

    def start(self, status: int, headers: Sequence[Field], length: int | None) -> None:
        """
        Begin the answer. May be held back until `data` or `flush`, so that a small answer is one write.

        length: how many bytes `data` will bring, None when not known. Framing is the wire's: it adds neither
        content-length nor date, but transfer-encoding and connection where its version of HTTP needs them.
        """

    def answer(self, status: int, headers: Sequence[Field], body: bytes) -> None:
        """
        A whole answer: `start` and `data` in one.
        """

    def flush(self) -> None:
        """
        Send what `start` held back: the application has nothing more to send in this turn of the loop.
        """

    def data(self, chunk: bytes, end: bool) -> None:
        """
        Send body bytes; end says that they are the last.
        """

    def trailers(self, headers: Sequence[Field]) -> None:
        """
        Send trailer fields, or nothing where the wire cannot; ends the answer (RFC 9110 section 6.5).
        """

    def tunnel(self, headers: Sequence[Field]) -> Callable[[bytes], None]:
        """
        Accept the protocol that `Head.protocol` named: 101, or 200 to an extended CONNECT; flushed now.

        Returns the function that writes bytes into the tunnel. `data(b"", end=True)` closes it.
        Bytes that the client sent behind its request follow by `Exchange.data`, not before this returns.
        """

    def consumed(self, n: int) -> None:
        """
        The application has taken *n* body bytes; let the peer send more. Flow control is decided in the wire.
        """

    def reset(self, why: str) -> None:
        """
        Break off: the answer cannot be completed, and the client must see that it is not complete.
        """


class Exchange(Protocol):
    """
    The application's half of one request, driven by the wire, in order, never re-entered.

    running: the application still works on it, also after `lost`.
    """

    @property
    def running(self) -> bool: ...

    def data(self, chunk: bytes) -> None:
        """
        Body bytes, or bytes from the tunnel; never empty.
        """

    def end(self, trailers: Iterable[Field] = ()) -> None:
        """
        The request body is complete; not called when there is none. For a tunnel: the peer has sent its last byte.
        """

    def lost(self, why: str) -> None:
        """
        The peer is gone, or the stream was reset. The last call an exchange gets.
        """

    def drain(self) -> None:
        """
        The server is going away: end soon if there is a way to say so (WebSocket close 1012).
        """

    def pauseProducing(self) -> None:
        """
        The peer does not read fast enough: `await send()` shall wait.
        """

    def resumeProducing(self) -> None:
        """
        The peer caught up.
        """


Open = Callable[[Head, Stream], Exchange]
"""
All that a wire is given of the application.
"""


class Outcome:
    """
    What became of a request, for the access log and for metrics. Made once a request, at its end, and only
    when somebody wants it. For a WebSocket once when it opens (`kind` "open") and once when it ends ("close").

    status: the answer's status; for "close" the close code; 0 when nothing was answered.
    size: body bytes sent (for a WebSocket: messages' payload), framing not counted.
    seconds: from the head to here.
    why: "" for a complete answer, else a few words ("client left", "application failed").
    """

    __slots__ = ("head", "kind", "seconds", "size", "status", "why")

    def __init__(self, kind: str, head: Head | None, status: int, size: int, seconds: float, why: str) -> None:
        self.kind = kind
        self.head = head
        self.status = status
        self.size = size
        self.seconds = seconds
        self.why = why


Report = Callable[[Outcome], Any]
