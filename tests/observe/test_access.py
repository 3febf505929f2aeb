"""
The text of access lines.
"""

from __future__ import annotations

import logging

import pytest

from txasgi.errors import BadRequest, HeadTooLarge
from txasgi.observe.access import client_of, escaped, refused, report
from txasgi.seam import Address, Head, Link, Outcome


def link(client: Address = ("192.0.2.1", 50000)) -> Link:
    return Link("http", client, ("192.0.2.2", 80))


def outcome(kind: str = "http", status: int = 200, why: str = "", **head: object) -> Outcome:
    settings: dict[str, object] = {"method": "GET", "target": b"/", "headers": [], "version": "1.1", "link": link()}
    return Outcome(kind, Head(**{**settings, **head}), status, 13, 0.0125, why)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def propagating(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """
    Another test may have configured the logger away from the root.
    """
    monkeypatch.setattr(logging.getLogger("txasgi"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("txasgi.access"), "propagate", True)
    caplog.set_level(logging.INFO, "txasgi.access")


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (outcome(), '192.0.2.1:50000 "GET / HTTP/1.1" 200 13 bytes 12.5 ms'),
        (outcome(method="POST", version="1.0"), '192.0.2.1:50000 "POST / HTTP/1.0" 200 13 bytes 12.5 ms'),
        (outcome(version="2"), '192.0.2.1:50000 "GET / HTTP/2.0" 200 13 bytes 12.5 ms'),
        (outcome(target=b"*", method="OPTIONS"), '192.0.2.1:50000 "OPTIONS * HTTP/1.1" 200 13 bytes 12.5 ms'),
        (outcome(target=b"/%41?a=b%20c"), '192.0.2.1:50000 "GET /%41?a=b%20c HTTP/1.1" 200 13 bytes 12.5 ms'),
        (outcome(link=link(None)), '- "GET / HTTP/1.1" 200 13 bytes 12.5 ms'),
        (outcome(link=link(("2001:db8::1", 5))), '[2001:db8::1]:5 "GET / HTTP/1.1" 200 13 bytes 12.5 ms'),
        (
            outcome(status=0, why="client left"),
            '192.0.2.1:50000 "GET / HTTP/1.1" - 13 bytes 12.5 ms (client left)',
        ),
        (outcome("open", 101, target=b"/ws"), '192.0.2.1:50000 "WebSocket /ws" open'),
        (outcome("close", 1000, target=b"/ws"), '192.0.2.1:50000 "WebSocket /ws" closed 1000 13 bytes 12 ms'),
        (outcome("close", 4000, "bye"), '192.0.2.1:50000 "WebSocket /" closed 4000 13 bytes 12 ms (bye)'),
        (outcome(target=b'/"\\\x00\x1b[31m\x7f\x9b'), None),
        (outcome("close", 1000, "\x1b[31m\nforged"), None),
        (outcome(target=b"/%s %d {}"), '192.0.2.1:50000 "GET /%s %d {} HTTP/1.1" 200 13 bytes 12.5 ms'),
    ],
)
def test_line(told: Outcome, line: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """
    A line tells who asked for what and what came of it; what could mislead its reader is escaped.
    """
    report(told)
    (message,) = caplog.messages
    assert message.isprintable()
    if line is not None:
        assert message == line
    else:
        assert "\\x1b[31m" in message


@pytest.mark.parametrize(("kind", "status", "colour"), [("http", 404, 404), ("open", 101, 0), ("close", 1000, 0)])
def test_status_for_the_colour(kind: str, status: int, colour: int, caplog: pytest.LogCaptureFixture) -> None:
    """
    The record has the status that colours the line; a close code is none.
    """
    report(outcome(kind, status))
    assert caplog.records[0].status == colour  # type: ignore[attr-defined]
    assert caplog.records[0].levelno == logging.INFO


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (BadRequest("a reason"), '192.0.2.1:50000 "-" 400 (a reason)'),
        (
            HeadTooLarge("request head of 9 bytes, limit 8"),
            '192.0.2.1:50000 "-" 431 (request head of 9 bytes, limit 8)',
        ),
        (BadRequest('b"\x1b\n%s'), '192.0.2.1:50000 "-" 400 (b\\x22\\x1b\\x0a%s)'),
    ],
)
def test_refused(error: BadRequest, line: str, caplog: pytest.LogCaptureFixture) -> None:
    """
    A request that was refused has its status and the reason, escaped.
    """
    refused(link(), error)
    assert caplog.messages == [line]


@pytest.mark.parametrize(
    ("client", "text"),
    [
        (("192.0.2.1", 1), "192.0.2.1:1"),
        (("::1", 1), "[::1]:1"),
        (("fe80::1%eth0", 1), "[fe80::1%eth0]:1"),
        (None, "-"),
    ],
)
def test_client(client: Address, text: str) -> None:
    """
    A client is host:port, in brackets for IPv6.
    """
    assert client_of(link(client)) == text


def test_escaped() -> None:
    """
    Every control character, quote and backslash is escaped, and nothing else is.
    """
    every = "".join(map(chr, range(0x250)))
    assert escaped(every) == "".join(
        f"\\x{ord(c):02x}" if ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or c in '"\\' else c for c in every
    )
