"""
What is known of a connection, from its transport.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from txasgi.seam import Address, Link


def _asgi_address(address: object, *, ours: bool) -> Address:
    if isinstance(address, (IPv4Address, IPv6Address)):
        return address.host, address.port
    if ours and isinstance(address, UNIXAddress) and address.name is not None:
        # A path has no port (ASGI HTTP specification, "server").
        return os.fsdecode(address.name), None
    return None


def link_of(transport: Any, secure: bool) -> Link:
    """
    The Link for a transport; *secure* says that it is encrypted.
    """
    client = _asgi_address(transport.getPeer(), ours=False)
    server = _asgi_address(transport.getHost(), ours=True)
    # Of our own TLS; None where applications need not know.
    describe = getattr(transport, "tls_extension", None) if secure else None
    return Link("https" if secure else "http", client, server, describe() if describe is not None else None)
