"""
The public names, as a type checker sees them.
"""

from __future__ import annotations

from typing import Any

import txasgi


async def application(scope: Any, receive: Any, send: Any) -> None:
    pass


def in_a_thread() -> None:
    txasgi.run(application, endpoint=["tcp:8000"], log_level="warning")
    txasgi.run("module:app")


async def in_a_loop() -> None:
    await txasgi.serve(application, port=0)
