"""Fixtures that serve an application of a framework by a real server process."""

import itertools
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NoReturn

import httpx
import pytest

pytest.register_assert_rewrite(
    "tests.frameworks.behaviours",
    "tests.frameworks.peers",
    "tests.frameworks.running",
    "tests.frameworks.websocket_behaviours",
)

from tests.frameworks.running import Server, running  # noqa: E402

Serve = Callable[..., AbstractContextManager[Server]]

# Shorter than the default: several tests wait until a task that ignores its client's departure is cancelled.
# Not zero: an application that heeds the departure must have the time to end by itself.
DISCONNECT_GRACE_S = 0.5

# Longer than the waits with a deadline of their own.
TEST_DEADLINE_S = 40

_keys = itertools.count(1)


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """
    Fail a test that waits for its server for ever, in whatever library it waits.
    """

    def fail(*_: object) -> NoReturn:
        pytest.fail(f"not done after {TEST_DEADLINE_S} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(TEST_DEADLINE_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """
    serve("module:app", *options): a server of its own for one with statement.
    """

    def start(application: str, *options: str) -> AbstractContextManager[Server]:
        return running(application, *options, folder=tmp_path_factory.mktemp("server"))

    return start


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, serve: Serve) -> Iterator[Server]:
    """
    The server that all tests of a module share; the module names its APPLICATION.
    """
    with serve(request.module.APPLICATION, "--disconnect-grace", str(DISCONNECT_GRACE_S)) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """
    An HTTP client of the shared server, for one test.
    """
    with server.client() as client:
        yield client


@pytest.fixture
def key() -> str:
    """
    A name for what one test does in the application, used by no other test.
    """
    return f"k{next(_keys)}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """
    Show what the server has logged below the failure of a test that used it.
    """
    report = yield
    if report.failed:
        for used in getattr(item, "funcargs", {}).values():
            if isinstance(used, Server):
                report.sections.append((f"standard error of the server ({used.log_file})", used.log.text()))
    return report
