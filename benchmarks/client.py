"""
One request and the answer it must get.

Asked over the standard library's client, which is no part of any measurement.
"""

import ssl
from dataclasses import dataclass, field
from functools import lru_cache
from http.client import HTTPConnection, HTTPException, HTTPSConnection, RemoteDisconnected
from pathlib import Path


class WrongAnswerError(Exception):
    """
    A server answered something else than the scenario's application says; the message says what.
    """


@dataclass(frozen=True, slots=True)
class Request:
    """
    A request, and the answer that shows that the server did the work.

    answer: the whole body, or None if only its length counts.
    length: of the body of the answer, in bytes.
    """

    length: int
    answer: bytes | None = None
    method: str = "GET"
    path: str = "/"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@lru_cache
def trusting(certificate: Path) -> ssl.SSLContext:
    """
    A client context that trusts *certificate* alone.
    """
    return ssl.create_default_context(cafile=str(certificate))


def connect(port: int, certificate: Path | None, timeout_s: float) -> HTTPConnection:
    """
    A connection to a loopback port, TLS if there is a *certificate* to trust. Opens when first used.
    """
    if certificate is None:
        return HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    return HTTPSConnection("127.0.0.1", port, timeout=timeout_s, context=trusting(certificate))


def ask(port: int, certificate: Path | None, request: Request, timeout_s: float, times: int = 1) -> None:
    """
    Send *request* so many *times* over one connection and check each answer.

    Raises OSError while nobody listens, WrongAnswerError if the answer is wrong or the connection not kept.
    """
    connection = connect(port, certificate, timeout_s)
    try:
        connection.connect()
        local = connection.sock.getsockname()
        for _ in range(times):
            connection.request(request.method, request.path, request.body or None, request.headers)
            if connection.sock.getsockname() != local:
                raise WrongAnswerError("the connection was not kept alive")
            answer = connection.getresponse()
            check(request, answer.status, answer.read())
    except RemoteDisconnected:
        # An OSError as well: the server is not ready, or gone.
        raise
    except HTTPException as error:
        raise WrongAnswerError(repr(error)) from error
    finally:
        connection.close()


def check(request: Request, status: int, body: bytes) -> None:
    """
    Raise WrongAnswerError unless *status* and *body* are what *request* expects.
    """
    if status != 200:
        raise WrongAnswerError(f"status {status}, expected 200: {body[:200]!r}")
    if len(body) != request.length:
        raise WrongAnswerError(f"{len(body)} bytes answered, expected {request.length}: {body[:80]!r}")
    if request.answer is not None and body != request.answer:
        raise WrongAnswerError(f"{body[:80]!r} answered, expected {request.answer[:80]!r}")
