"""
The access log: a line for each request when it is over, one for each WebSocket when it opens and when it closes.
"""

from __future__ import annotations

import logging
import re

from txasgi.errors import PeerError
from txasgi.seam import Link, Outcome

_log = logging.getLogger("txasgi.access")

# Control characters (C0, DEL, C1) could forge lines or drive a terminal (CVE-2020-7694); quotes would end the request.
_UNSAFE = re.compile('[\\x00-\\x1f\\x7f-\\x9f"\\\\]')


def escaped(text: str) -> str:
    """
    The text with everything that could mislead a reader of the log as \\xNN.
    """
    return _UNSAFE.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def client_of(link: Link) -> str:
    """
    The client as host:port; "-" when it has no address, as on a UNIX socket.
    """
    if link.client is None:
        return "-"
    host, port = link.client
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def report(outcome: Outcome) -> None:
    """
    Log what became of a request.
    """
    head = outcome.head
    assert head is not None
    target = escaped(head.target.decode("latin-1"))
    version = head.version if "." in head.version else f"{head.version}.0"
    client = client_of(head.link)
    took = outcome.seconds * 1000
    why = f" ({escaped(outcome.why)})" if outcome.why else ""
    status = outcome.status or "-"
    if outcome.kind == "open":
        text = f'{client} "WebSocket {target}" open'
    elif outcome.kind == "close":
        text = f'{client} "WebSocket {target}" closed {status} {outcome.size} bytes {took:.0f} ms{why}'
    else:
        text = f'{client} "{head.method} {target} HTTP/{version}" {status} {outcome.size} bytes {took:.1f} ms{why}'
    _log.info(text, extra={"status": outcome.status if outcome.kind == "http" else 0})


def refused(link: Link, error: PeerError) -> None:
    """
    Log a request that never reached the application.
    """
    _log.info('%s "-" %d (%s)', client_of(link), error.status, escaped(str(error)), extra={"status": error.status})
