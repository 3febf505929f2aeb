"""
Installing the reactor. The only door to `twisted.internet.reactor`, which installs one when it is imported.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from txasgi.errors import ReactorError

LOOPS = ("auto", "uvloop", "asyncio")


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    """
    A new event loop: "uvloop", "asyncio", or "auto", which is uvloop where it is installed.
    """
    if kind != "asyncio":
        try:
            import uvloop
        except ImportError:
            if kind == "uvloop":
                raise ReactorError("--loop uvloop: uvloop is not installed (pip install uvloop)") from None
        else:
            loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
            return loop
    return asyncio.SelectorEventLoop()


def installed() -> Any:
    """
    The reactor that is installed, or None. Installs none.
    """
    if "twisted.internet.reactor" not in sys.modules:
        return None
    from twisted.internet import reactor

    return reactor


def install(loop: asyncio.AbstractEventLoop) -> Any:
    """
    Twisted's asyncioreactor on this loop, installed; or the one that is there already, if it runs on this loop.

    Raises ReactorError when another reactor is in the way.
    """
    reactor = installed()
    if reactor is None:
        from twisted.internet import asyncioreactor

        asyncio.set_event_loop(loop)
        asyncioreactor.install(loop)
        return installed()
    own_loop = loop_of(reactor)
    if own_loop is not loop:
        raise ReactorError(
            "an asyncio reactor on another event loop is installed already; "
            "something imported twisted.internet.reactor before txasgi could choose the loop"
        )
    return reactor


def loop_of(reactor: Any) -> asyncio.AbstractEventLoop:
    """
    The event loop below a reactor. Raises ReactorError if it has none.
    """
    # The reactor keeps it to itself; nothing public tells it.
    loop: asyncio.AbstractEventLoop | None = getattr(reactor, "_asyncioEventloop", None)
    if loop is None:
        raise ReactorError(
            f"the reactor that is installed, {type(reactor).__module__}.{type(reactor).__name__}, cannot run asyncio "
            "applications; something imported twisted.internet.reactor too early. Under twistd: --reactor=txasgi"
        )
    return loop


def plugin_install() -> None:
    """
    What `twistd --reactor=txasgi` calls: asyncio on uvloop where there is one.
    """
    install(new_loop("auto"))
