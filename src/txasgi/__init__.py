"""
An ASGI server on Twisted.

`run` and `serve` are the whole interface for programs; the command is `serve`. Importing this installs no reactor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "26.11.0"
__all__ = ["__version__", "run", "serve"]

if TYPE_CHECKING:
    from txasgi.serve.running import run, serve


def __getattr__(name: str) -> Any:
    # On first use: importing Twisted takes a while, and not everybody who asks for the version needs it.
    if name in ("run", "serve"):
        from txasgi.serve import running

        return getattr(running, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
