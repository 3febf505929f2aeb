"""
Fixtures of the tests of HTTP/1.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.wire.h1_client import Client, Serve, echo

from txasgi.asgi.task import Application
from txasgi.testing.rig import Rig


@pytest.fixture
def serve() -> Iterator[Serve]:
    """
    A client of an application.
    """
    rigs: list[Rig] = []

    def start(application: Application = echo, **options: Any) -> Client:
        options.setdefault("server", None)
        options.setdefault("date", False)
        rig = Rig(application, **options)
        rigs.append(rig)
        return Client(rig)

    yield start
    for rig in rigs:
        faults = list(rig.errors)
        rig.close()
        assert faults == []
