"""
Fixtures of the tests of the wires.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from tests.wire.h1_client import Client, Serve, echo, quiet
from tests.wire.h2_pieces import Pieces
from tests.wire.h2_scene import Scene

from txasgi.asgi.task import Application
from txasgi.testing.rig import Rig, Script


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


@pytest.fixture(scope="module")
def frozen() -> Iterator[None]:
    """
    What was there before a module's tests is nothing for the garbage collector, so that it is quick.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def scene(frozen: None, caplog: pytest.LogCaptureFixture) -> Iterator[Scene]:
    """
    A client of HTTP/2 that misbehaves beside one that does not, and nothing of them is left, nor logged.
    """
    found = Scene()
    yield found
    try:
        found.end()
    finally:
        found.rig.close()
    assert quiet(caplog)


@pytest.fixture
def pieces() -> Iterator[tuple[Pieces, Rig]]:
    """
    An application that sends and takes bodies, behind HTTP/2.
    """
    app = Pieces()
    rig = Rig(app, server=None, date=False, report=None)
    yield app, rig
    faults = list(rig.errors)
    rig.close()
    assert faults == []


@pytest.fixture
def script() -> Iterator[Script]:
    """
    An application that does what the test says, and its rig.
    """
    found = Script()
    rig = Rig(found, server=None, date=False)
    yield found
    faults = list(rig.errors)
    rig.close()
    assert faults == []
