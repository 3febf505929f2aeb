"""
The command: what it serves, what it says, and how it ends when it cannot start.
"""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.serve.conftest import Certificates, ssl_endpoint
from tests.serve.processes import (
    APPS,
    LOCAL,
    SERVE,
    Ended,
    ask,
    dial,
    ended,
    environment,
    read_answer,
    refused,
    request,
    serving,
    until,
)

import txasgi
from txasgi.config import OPTIONS, SECTIONS

# What it serves


def test_demo(folder: Path) -> None:
    """
    The demo that the first error message names is there and answers.
    """
    with serving(folder, "--port", "0", "txasgi.apps.demo:app") as process:
        assert process.location.startswith("http://127.0.0.1:")
        answer = ask(process.location)
        assert (answer.status, answer.values("content-type")) == (200, ["text/html; charset=utf-8"])
        assert b"txasgi" in answer.body


def test_module_of_the_current_directory(folder: Path) -> None:
    """
    Without --app-dir the module is looked for in the current directory.
    """
    (folder / "here.py").write_text("from tests.serve.apps.shapes import function as app\n")
    process = subprocess.run(
        [*SERVE, "--check-config", "here"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        (["--factory", "shapes:make2"], b"class2"),
        (["--interface", "asgi2", "shapes:partial_function2"], b"partial_function2"),
        (["--interface", "asgi3", "shapes:awaitable3"], b"awaitable3"),
        (["shapes:callable2"], b"callable2"),
        (["default_name"], b"function"),
    ],
)
def test_application_of_another_shape(arguments: list[str], body: bytes, folder: Path) -> None:
    """
    A factory's application, and those of ASGI 2, are served like any other.
    """
    with serving(folder, "-e", LOCAL, *arguments) as process:
        assert ask(process.location).body == body


def test_environment_file_is_for_the_application(folder: Path) -> None:
    """
    What --env-file has is in the environment when the application is imported.
    """
    (folder / "settings.env").write_text("WORD=from the file\nGIVEN=from the file\n")
    (folder / "wordy.py").write_text(
        "import os\nfrom tests.serve.apps.shapes import answer\n\n"
        "WORDS = os.environ['WORD'] + ', ' + os.environ['GIVEN']\n\n"
        "async def app(scope, receive, send):\n    await answer(WORDS, scope, receive, send)\n"
    )
    arguments = ("-e", LOCAL, "--app-dir", str(folder), "--env-file", "settings.env", "wordy:app")
    with serving(folder, *arguments, env={"GIVEN": "from outside"}) as process:
        assert ask(process.location).body == b"from the file, from outside"


def test_configuration_from_everywhere(folder: Path) -> None:
    """
    A file, the environment and the command line make one server.
    """
    (folder / "pyproject.toml").write_text('[tool.txasgi]\napp = "served:app"\nport = 1\nroot-path = "/file"\n')
    with serving(folder, "--port", "0", env={"TXASGI_ROOT_PATH": "/environment"}) as process:
        assert ask(process.location, "/x").scope["path"] == "/environment/x"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_loop(loop: str, folder: Path) -> None:
    """
    --loop says which event loop the application runs on.
    """
    (folder / "loops.py").write_text(
        "import asyncio\nfrom tests.serve.apps.shapes import answer\n\n"
        "async def app(scope, receive, send):\n"
        "    await answer(type(asyncio.get_running_loop()).__module__, scope, receive, send)\n"
    )
    with serving(folder, "-e", LOCAL, "--app-dir", str(folder), "--loop", loop, "loops:app") as process:
        assert ask(process.location).body.decode().startswith(loop)


# What an answer carries


def test_root_path(folder: Path) -> None:
    """
    --root-path goes in front of each request's path.
    """
    with serving(folder, "-e", LOCAL, "--root-path", "/t\xe9a/", "served:app") as process:
        scope = ask(process.location, "/x?y=1").scope
        assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/t\xe9a", "/t\xe9a/x", "/t%C3%A9a/x")
        assert (scope["query_string"], scope["state"]) == ("y=1", {"begun": True})


def test_fields_of_answers(folder: Path) -> None:
    """
    Each answer has Server and Date and the operator's fields, those of the server's own errors too.
    """
    arguments = ("--header", "X-Frame-Options: DENY", "--header", "x-two:a", "--header", "X-Two: b")
    with serving(folder, "-e", LOCAL, *arguments, "served:app", complains=True) as process:
        for target, status in {"/": 200, "/raise": 500, "/\xe9": 400}.items():
            answer = ask(process.location, target)
            assert answer.status == status
            assert answer.values("server") == ["txasgi"]
            assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", answer.values("date")[0])
            assert answer.values("x-frame-options") == ["DENY"]
            assert answer.values("x-two") == ["a", "b"]


def test_fields_that_are_left_out(folder: Path) -> None:
    """
    --no-server-header and --no-date-header leave them out, of the server's own errors too.
    """
    arguments = ("--no-server-header", "--no-date-header")
    with serving(folder, "-e", LOCAL, *arguments, "served:app", complains=True) as process:
        for target, status in {"/": 200, "/raise": 500, "/\xe9": 400}.items():
            answer = ask(process.location, target)
            assert (answer.status, answer.values("server"), answer.values("date")) == (status, [], [])


def test_fields_that_are_replaced(folder: Path) -> None:
    """
    A Server of the operator's own takes the place of ours.
    """
    with serving(folder, "-e", LOCAL, "--header", "Server: mine", "served:app") as process:
        assert ask(process.location).values("server") == ["mine"]
        assert ask(process.location, "/\xe9").values("server") == ["mine"]


def test_keep_alive_timeout(folder: Path) -> None:
    """
    An idle connection is closed after --timeout-keep-alive.
    """
    arguments = ("-e", LOCAL, "--timeout-keep-alive", "0.1")
    with serving(folder, *arguments, "served:app") as process, dial(process.location) as sock:
        sock.sendall(request())
        assert read_answer(sock).status == 200
        assert sock.recv(1) == b""


# What it says


def test_help(folder: Path) -> None:
    """
    --help lists every option below its section, and ends with 0.
    """
    found = ended(folder, "--help")
    assert (found.status, found.err) == (0, "")
    places = [found.out.index(f"\n{title}:\n") for title in SECTIONS.values()]
    assert places == sorted(places)
    for one in OPTIONS.values():
        assert re.search(rf"(?<![-\w])--{one.spelling}(?![-\w])", found.out)
    for name in ("--config", "--check-config", "--print-config", "--version", "--help"):
        assert re.search(rf"(?<![-\w]){name}(?![-\w])", found.out), f"no {name}"
    assert ended(folder, "-h") == found


def test_version(folder: Path) -> None:
    """
    --version tells the versions that matter in a bug report, and ends with 0.
    """
    found = ended(folder, "--version")
    assert (found.status, found.err) == (0, "")
    assert found.out.startswith(f"txasgi {txasgi.__version__} (CPython 3.")
    for package in ("Twisted", "autobahn", "uvloop", "httptools"):
        assert re.search(rf"{package} \d+\.\d+", found.out)


def test_check_config(folder: Path, certificates: Certificates) -> None:
    """
    --check-config imports the application and reads the certificates, but binds nothing and starts nothing.
    """
    arguments = (
        "-e",
        ssl_endpoint(certificates.key, certificates.fullchain),
        "-e",
        "unix:a.sock",
        "--check-config",
        "served:app",
    )
    found = ended(folder, *arguments)
    assert (found.status, found.err) == (0, "")
    assert found.out.count("\n") == 1
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-e", "tcp:nope", "served:app"], "tcp:nope"),
        (["-e", LOCAL, "nowhere:app"], "nowhere"),
        (["-e", "ssl:0:privateKey=nope.pem", "served:app"], "nope.pem"),
    ],
)
def test_check_config_finds(arguments: list[str], said: str, folder: Path) -> None:
    """
    --check-config fails for what would keep the server from starting.
    """
    found = ended(folder, "--check-config", *arguments)
    assert found.status == 1
    assert said in found.complaint


def test_print_config(folder: Path) -> None:
    """
    --print-config needs no application, starts nothing and ends with 0.
    """
    found = ended(folder, "--port", "81", "--print-config")
    assert (found.status, found.err) == (0, "")
    assert "port = 81\n" in found.out and "app =" not in found.out


# How it ends when it cannot start


def test_no_application(folder: Path) -> None:
    """
    Without an application the command says how to name one.
    """
    found = ended(folder)
    assert found.status == 2
    assert "module:attribute" in found.complaint and "txasgi.apps.demo:app" in found.complaint


# Of an application that says nothing.
WRONG = [
    (2, "--prot", ["--prot", "80", "shapes:app"]),
    (2, "--port", ["--port", "shapes:app"]),
    (2, "--port", ["shapes:app", "--port"]),
    (2, "another", ["shapes:app", "another:app"]),
    (2, "--port: expected at most 65535, not '70000'", ["--port", "70000", "shapes:app"]),
    (2, "--env-file missing.env", ["--env-file", "missing.env", "shapes:app"]),
    (2, "missing.toml", ["--config", "missing.toml", "shapes:app"]),
    (1, "no module 'nowhere'", ["nowhere:app"]),
    (1, "no attribute 'nothing'", ["served:nothing"]),
    (1, "int", ["shapes:number"]),
    (1, "endpoint 'tcp'", ["-e", "tcp", "shapes:app"]),
    (1, "endpoint 'tcp:'", ["-e", "tcp:", "shapes:app"]),
    (1, "endpoint ''", ["-e", "", "shapes:app"]),
    (1, "'80a'", ["-e", "tcp:80a", "shapes:app"]),
    (1, "wat=", ["-e", "tcp:0:wat=1", "shapes:app"]),
    (1, "interface= is given twice", ["-e", "tcp:0:interface=a:interface=b", "shapes:app"]),
    (1, "unknown prefix 'nope'", ["-e", "nope:80", "shapes:app"]),
    (1, "onion", ["-e", "onion:80", "shapes:app"]),
    (1, "1.2.3.4", ["-e", "tcp:0:interface=1.2.3.4", "shapes:app"]),
    (1, "/nowhere/a.sock", ["--uds", "/nowhere/a.sock", "shapes:app"]),
    (1, "mode must be an octal number", ["-e", "unix:a.sock:mode=888", "shapes:app"]),
    (1, "the path of the socket is empty", ["-e", "unix:", "shapes:app"]),
    (1, "too long", ["-e", "unix:" + 120 * "x", "shapes:app"]),
    (1, "descriptor 77 is not a socket", ["--fd", "77", "shapes:app"]),
    (1, "descriptor 0 is not a socket", ["-e", "fd:0", "shapes:app"]),
    (1, "there is no index 0", ["-e", "systemd:index=0", "shapes:app"]),
    (1, "no socket named 'web'", ["-e", "systemd:name=web", "shapes:app"]),
    (1, "either index= or name=", ["-e", "systemd:domain=INET", "shapes:app"]),
    (1, "missing.pem: No such file", ["-e", "ssl:0:privateKey=missing.pem", "shapes:app"]),
    (1, "not a directory", ["-e", "tls:missing:0", "shapes:app"]),
    (1, "'haproxy:tcp:x': the port", ["-e", "haproxy:tcp:x", "shapes:app"]),
    (1, "haproxy", ["-e", "haproxy:", "shapes:app"]),
]


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[Path, Future[Ended]]]]:
    """
    A process for each of these command lines, in a folder of its own; two at a time, as it is many of them.
    """
    with ThreadPoolExecutor(2) as pool:
        folders = [tmp_path_factory.mktemp("wrong") for _ in WRONG]
        yield [(at, pool.submit(ended, at, *row[2])) for at, row in zip(folders, WRONG, strict=True)]


@pytest.mark.parametrize("row", range(len(WRONG)), ids=[" ".join(row[2])[:40] for row in WRONG])
def test_error(row: int, wrong: list[tuple[Path, Future[Ended]]]) -> None:
    """
    What is wrong is said in one line on standard error that names it: 2 for options, 1 for what they lead to.
    """
    status, said, _ = WRONG[row]
    folder, future = wrong[row]
    found = future.result()
    assert said in found.complaint
    assert found.status == status
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "raised"),
    [
        (["lacking:app"], "ModuleNotFoundError: No module named 'a_package_that_is_not_there'"),
        (["faulty:app"], "ValueError: two\nlines"),
        (["--factory", "shapes:make_fault"], "LookupError: no such\napplication"),
    ],
)
def test_application_raises_when_imported(arguments: list[str], raised: str, folder: Path) -> None:
    """
    What the application's own module raises is shown with its traceback, then in one line, and ends with 1.
    """
    found = ended(folder, "-e", LOCAL, *arguments)
    assert (found.status, found.out) == (1, "")
    traceback, last = found.err.rstrip("\n").rsplit("\n", 1)
    assert traceback.startswith("Traceback (most recent call last):") and traceback.endswith(raised)
    assert f'File "{APPS}' in traceback
    assert last.startswith(f"serve: cannot import {arguments[-1]!r}: {' '.join(raised.split())}")


def test_startup_fails(folder: Path) -> None:
    """
    An application whose startup fails ends the process with 3 and its message.
    """
    found = ended(folder, "-e", "unix:a.sock", "served:failing")
    assert found.status == 3
    assert "the database is away" in found.complaint
    assert list(folder.iterdir()) == []


def test_no_lifespan(folder: Path) -> None:
    """
    --lifespan auto serves an application without lifespan, on takes that for a failure, off does not ask.
    """
    with serving(folder, "-e", LOCAL, "served:without_lifespan") as process:
        assert "state" not in ask(process.location).scope
    with serving(folder, "-e", LOCAL, "--lifespan", "off", "served:app") as process:
        assert "state" not in ask(process.location).scope
    assert "app: startup" not in process.err

    found = ended(folder, "-e", LOCAL, "--lifespan", "on", "served:without_lifespan")
    assert found.status == 3
    assert found.err.splitlines()[-1].startswith("serve: the application's startup failed: ")


# Where somebody listens already


@pytest.fixture
def taken() -> int:
    """
    The number of a port where somebody listens.
    """
    sock = socket.create_server(("127.0.0.1", 0))
    yield sock.getsockname()[1]
    sock.close()


def test_port_in_use(folder: Path, taken: int) -> None:
    """
    A port that is taken ends the process with 1; the application has been started and stopped.
    """
    found = ended(folder, "--port", str(taken), "served:app")
    assert found.status == 1
    assert found.err.splitlines()[:-1] == ["app: startup", "app: shutdown"]
    last = found.err.splitlines()[-1]
    assert last == f"serve: endpoint 'tcp:{taken}:interface=127.0.0.1': cannot listen: Address already in use"


def test_second_port_in_use(folder: Path, taken: int) -> None:
    """
    When the last of several endpoints cannot listen, nothing of the others is left behind.
    """
    with socket.create_server(("127.0.0.1", 0)) as found_free:
        free = found_free.getsockname()[1]
    bad = f"tcp:{taken}:interface=127.0.0.1"
    found = ended(folder, "-e", f"tcp:{free}:interface=127.0.0.1", "-e", "unix:a.sock", "-e", bad, "served:app")
    assert found.status == 1
    assert found.err.splitlines()[:-1] == ["app: startup", "app: shutdown"]
    assert repr(bad) in found.err.splitlines()[-1]
    assert refused(f"http://127.0.0.1:{free}")
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_shutdown_hangs_when_a_port_is_in_use(folder: Path, taken: int) -> None:
    """
    A shutdown that hangs does not keep alive a server that cannot listen.
    """
    arguments = ("--timeout-graceful-shutdown", "0.1", "--port", str(taken), "served:slow_to_stop")
    found = ended(folder, *arguments)
    assert found.status == 1
    assert "app: cancelled shutdown" in found.err
    assert "Address already in use" in found.err.splitlines()[-1]


@pytest.mark.slow
def test_reuse_port(folder: Path) -> None:
    """
    With --reuse-port two servers listen on one port; without it the second cannot.
    """
    with serving(folder, "--port", "0", "--reuse-port", "served:app") as first:
        port = first.location.rpartition(":")[2]
        with serving(folder, "--port", port, "--reuse-port", "served:app") as second:
            assert second.location == first.location
            assert second.stop() == 0
        assert until(lambda: ask(first.location).status == 200, "an answer of the first")
        assert ended(folder, "--port", port, "served:app").status == 1
