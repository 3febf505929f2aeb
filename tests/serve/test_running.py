"""
`txasgi.run` and `await txasgi.serve` in programs, the reactor they install, and twistd.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.serve.processes import ask, dial, half_sent, read_answer, refused, request, started, until

import txasgi
from txasgi.errors import ConfigError
from txasgi.serve.running import make_config

LOOPS = ["asyncio", "uvloop"]


def program(text: str, *arguments: str) -> Sequence[str]:
    """
    A program that has `served`, `say` and `asyncio`, and serves with a short timeout.
    """
    begin = (
        "import asyncio, sys\n"
        "import txasgi\n"
        "from tests.serve.apps import served\n"
        "from tests.serve.apps.served import say\n"
    )
    return [sys.executable, "-c", begin + text, *arguments]


def ended(text: str, folder: Path) -> tuple[int, list[str]]:
    """
    The exit status of a program and the lines on its standard error.
    """
    with started(program(text), folder) as process:
        return process.wait(), list(process.err)


# txasgi.run


@pytest.mark.parametrize("app", ["served.app", "'tests.serve.apps.served:app'"])
@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_run(app: str, which: signal.Signals, folder: Path) -> None:
    """
    run() serves an application, or what has its name, until a signal; then the program goes on.
    """
    text = f"txasgi.run({app}, port=0, root_path='/api', header=['x: y'])\nsay('and on')\n"
    with started(program(text), folder) as process:
        answer = ask(process.location, "/x")
        assert answer.scope["path"] == "/api/x"
        assert answer.values("x") == ["y"]
        assert process.stop(which) == 0
        process.check()
        assert [line for line in process.err if "app: " in line][-2:] == ["app: shutdown", "app: and on"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("txasgi.run(served.app, prot=1)", "ConfigError: unknown option 'prot'"),
        ("txasgi.run(served.app, port='x')", "ConfigError: port: expected a whole number, not 'x'"),
        ("txasgi.run(served.app, endpoint=['tcp:x'])", "EndpointError: endpoint 'tcp:x': "),
        ("txasgi.run(served.app, endpoint='unix:/nowhere/x')", "EndpointError: endpoint 'unix:/nowhere/x': "),
        ("txasgi.run('nowhere:app')", "LoadError: cannot import 'nowhere:app'"),
        ("txasgi.run(3)", "LoadError: "),
        ("txasgi.run(served.failing, port=0)", "LifespanError: the application's startup failed: the database"),
        ("asyncio.run(txasgi.serve(served.app, prot=1))", "ConfigError: unknown option 'prot'"),
        ("asyncio.run(txasgi.serve(served.app, endpoint=['tcp:x']))", "EndpointError: endpoint 'tcp:x': "),
        ("asyncio.run(txasgi.serve(served.failing, port=0))", "LifespanError: the application's startup failed"),
    ],
)
def test_cannot_start(call: str, said: str, folder: Path) -> None:
    """
    What keeps run() and serve() from starting is raised to the program, as the class that says who has to act.
    """
    text = (
        f"try:\n    {call}\nexcept txasgi.errors.OperatorError as error:\n    say(type(error).__name__ + ':', error)\n"
    )
    status, lines = ended("import txasgi.errors\n" + text, folder)
    assert status == 0
    assert f"app: {said}" in lines[-1] or f"app: {said}" in lines[-2]
    assert [line for line in lines if "Traceback" in line] == []


def test_unknown_option() -> None:
    """
    An unknown option is a ConfigError before anything is installed or started.
    """
    with pytest.raises(ConfigError, match="'prot'"):
        txasgi.run("app:app", prot=1)
    with pytest.raises(ConfigError, match="'prot'"):
        asyncio.run(txasgi.serve("app:app", prot=1))
    with pytest.raises(ConfigError, match="port: expected"):
        make_config({"port": "eighty"})


# txasgi.serve

# Goes on from one `await told()` to the next when SIGUSR1 comes.
STEPS = """
import signal

signals = asyncio.Semaphore(0)
told = signals.acquire

async def ended(task):
    try:
        await task
    except asyncio.CancelledError:
        say('cancelled')

def start(main, kind):
    async def begin():
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, signals.release)
        await main()

    if kind == 'uvloop':
        import uvloop
        uvloop.run(begin())
    else:
        asyncio.run(begin())
    say('the end')
"""
CANCEL = """
async def main():
    serving = asyncio.create_task(txasgi.serve(served.app, port=0, timeout_graceful_shutdown={timeout}))
    await told()
    serving.cancel()
    await ended(serving)
    await asyncio.sleep(0)
    say('the loop goes on')
    await told()

start(main, sys.argv[1])
"""


@pytest.mark.parametrize("loop", LOOPS)
def test_serve_is_cancelled(loop: str, folder: Path) -> None:
    """
    Cancelling serve() drains: what was begun is answered, nothing new is taken, and the loop goes on.
    """
    with started(program(STEPS + CANCEL.format(timeout=3600), loop), folder) as process:
        with half_sent(process.location) as sock:
            process.wait_for("app: POST /body")
            process.send_signal(signal.SIGUSR1)
            until(lambda: refused(process.location), "the end of the listener")
            sock.sendall(b"!")
            assert read_answer(sock).body == b"?!"
        process.wait_for("app: the loop goes on")
        process.send_signal(signal.SIGUSR1)
        assert process.wait() == 0
        process.check()
        said = [line for line in process.err if line.startswith("app: ")]
        assert said[-4:] == ["app: shutdown", "app: cancelled", "app: the loop goes on", "app: the end"]


@pytest.mark.parametrize("loop", LOOPS)
def test_serve_is_cancelled_and_a_request_hangs(loop: str, folder: Path) -> None:
    """
    What hangs is cut off after the timeout, as when a signal stops the command.
    """
    with started(program(STEPS + CANCEL.format(timeout=0.2), loop), folder) as process:
        with dial(process.location) as sock:
            sock.sendall(request("/hang"))
            process.wait_for("app: GET /hang")
            process.send_signal(signal.SIGUSR1)
            process.wait_for("app: the loop goes on")
        process.send_signal(signal.SIGUSR1)
        assert process.wait() == 0
        process.check()
        assert "app: cancelled /hang" in process.err and "app: shutdown" in process.err


def test_serve_leaves_signals_alone(folder: Path) -> None:
    """
    Signals are the program's: SIGINT ends asyncio.run() as ever, and what is served is drained.
    """
    text = (
        "async def main():\n    await txasgi.serve(served.app, port=0)\n"
        "try:\n    asyncio.run(main())\nexcept KeyboardInterrupt:\n    say('interrupted')\n"
    )
    with started(program(text), folder) as process:
        assert ask(process.location).status == 200
        assert process.stop(signal.SIGINT) == 0
        process.check()
        assert [line for line in process.err if "app: " in line][-2:] == ["app: shutdown", "app: interrupted"]


@pytest.mark.parametrize("loop", LOOPS)
def test_two_servers_in_one_loop(loop: str, folder: Path) -> None:
    """
    Two applications can be served at once in one loop, and another one when they are done.
    """
    text = """
async def main():
    one = asyncio.create_task(txasgi.serve(served.app, port=0))
    two = asyncio.create_task(txasgi.serve(served.without_lifespan, port=0))
    await told()
    one.cancel()
    await ended(one)
    say('one is gone')
    await told()
    two.cancel()
    await ended(two)
    three = asyncio.create_task(txasgi.serve(served.app, port=0))
    await told()
    three.cancel()
    await ended(three)

start(main, sys.argv[1])
"""
    with started(program(STEPS + text, loop), folder) as process:
        one, two = sorted(process.listening(2), key=lambda location: "state" not in ask(location).scope)
        process.send_signal(signal.SIGUSR1)
        process.wait_for("app: one is gone")
        assert refused(one)
        assert ask(two).status == 200
        process.send_signal(signal.SIGUSR1)
        three = process.listening(3)[2]
        assert refused(two)
        assert ask(three).status == 200
        process.send_signal(signal.SIGUSR1)
        assert process.wait() == 0
        process.check()


def test_second_loop(folder: Path) -> None:
    """
    A process has one reactor, and that has one loop: serve() in a second one says so.
    """
    text = """
async def main():
    await asyncio.wait_for(txasgi.serve(served.app, port=0), 0.5)

async def again():
    await txasgi.serve(served.app, port=0)

try:
    asyncio.run(main())
except TimeoutError:
    say('over')
try:
    asyncio.run(again())
except Exception as error:
    say(type(error).__name__ + ':', error)
"""
    status, lines = ended(text, folder)
    assert status == 0
    assert lines[-1].startswith("app: ReactorError: an asyncio reactor on another event loop is installed already")
    assert [line for line in lines if "Traceback" in line] == []


def test_cancelled_while_it_starts(folder: Path) -> None:
    """
    Cancelling serve() while the application starts ends the application's lifespan too.
    """
    text = """
async def main():
    serving = asyncio.create_task(txasgi.serve(served.slow_to_start, port=0))
    await told()
    serving.cancel()
    await ended(serving)
    await asyncio.sleep(0)
    say('left', len(asyncio.all_tasks()) - 1)

start(main, sys.argv[1])
"""
    with started(program(STEPS + text, "asyncio"), folder) as process:
        process.wait_for("app: starting")
        process.send_signal(signal.SIGUSR1)
        assert process.wait() == 0
        process.check()
        assert "app: cancelled startup" in process.err
        assert "app: left 0" in process.err
        assert process.locations == []


def test_twisted_works_below_serve(folder: Path) -> None:
    """
    In a loop that runs already, the reactor runs too: its timers fire and its threads report back.
    """
    text = """
async def main():
    serving = asyncio.create_task(txasgi.serve(served.app, port=0))
    await told()
    from twisted.internet import defer, reactor, task, threads
    say('reactor runs', reactor.running)
    fired = task.deferLater(reactor, 0.01, lambda: say('timer fired'))
    await fired.asFuture(asyncio.get_running_loop())
    await threads.deferToThread(lambda: say('in a thread')).asFuture(asyncio.get_running_loop())
    serving.cancel()
    await ended(serving)

start(main, sys.argv[1])
"""
    for loop in LOOPS:
        with started(program(STEPS + text, loop), folder) as process:
            assert process.location
            process.send_signal(signal.SIGUSR1)
            assert process.wait() == 0
            process.check()
            for line in ("app: reactor runs True", "app: timer fired", "app: in a thread", "app: the end"):
                assert line in process.err


# The reactor

WALK = """
import importlib, pkgutil
for found in pkgutil.walk_packages(txasgi.__path__, 'txasgi.'):
    if found.name not in ('txasgi.__main__',):
        importlib.import_module(found.name)
"""


@pytest.mark.parametrize("text", ["txasgi.run; txasgi.serve\n", WALK], ids=["package", "modules"])
def test_importing_installs_no_reactor(text: str, folder: Path) -> None:
    """
    Importing txasgi, or any module of it, installs no reactor and makes no event loop.
    """
    text += "say('twisted.internet.reactor' in sys.modules, asyncio._get_running_loop())\n"
    assert ended(text, folder) == (0, ["app: False None"])


def test_importing_is_light(folder: Path) -> None:
    """
    Whoever asks for the version alone does not wait for Twisted.
    """
    text = (
        "say(txasgi.__version__, [name for name in sys.modules if name.partition('.')[0] in ('twisted', 'autobahn')])\n"
    )
    assert ended(text, folder) == (0, [f"app: {txasgi.__version__} []"])


@pytest.mark.parametrize("call", ["txasgi.run(served.app)", "asyncio.run(txasgi.serve(served.app))"])
def test_wrong_reactor(call: str, folder: Path) -> None:
    """
    A reactor that cannot run asyncio is named, with what to do about it.
    """
    text = f"""
import twisted.internet.epollreactor
twisted.internet.epollreactor.install()
try:
    {call}
except Exception as error:
    say(type(error).__name__ + ':', error)
"""
    status, lines = ended(text, folder)
    assert status == 0
    (line,) = lines
    assert line.startswith(
        "app: ReactorError: the reactor that is installed, twisted.internet.epollreactor.EPollReactor"
    )
    assert "--reactor=txasgi" in line


def test_wrong_reactor_under_the_command(folder: Path) -> None:
    """
    An application that imports the reactor gets ours, which is there before it is imported.
    """
    (folder / "early.py").write_text(
        "from twisted.internet import reactor\nfrom tests.serve.apps.shapes import answer\n\n"
        "async def app(scope, receive, send):\n"
        "    await answer(type(reactor._asyncioEventloop).__module__, scope, receive, send)\n"
    )
    command = [sys.executable, "-m", "txasgi", "--port", "0", "early:app"]
    with started(command, folder) as process:
        assert ask(process.location).body == b"uvloop"
        assert process.stop() == 0
        process.check()


# twistd

SERVICE = """
import sys
from twisted.application.service import Application, Service
from twisted.internet import reactor

class Teller(Service):
    def startService(self):
        print("loop:", type(reactor._asyncioEventloop).__module__, file=sys.stderr, flush=True)
        reactor.callLater(0, reactor.stop)

application = Application("teller")
Teller().setServiceParent(application)
"""


def test_twistd(folder: Path) -> None:
    """
    `twistd --reactor=txasgi` runs on asyncio on uvloop.
    """
    (folder / "teller.tac").write_text(SERVICE)
    arguments = ["--nodaemon", "--pidfile=", "--reactor=txasgi", "--python=teller.tac"]
    command = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", *arguments]
    with started(command, folder) as process:
        assert process.wait() == 0
        # All that is written goes into twistd's log.
        process.wait_for_access("loop: uvloop")


def test_twistd_lists_the_reactor(folder: Path) -> None:
    """
    `twistd --help-reactors` lists it.
    """
    command = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "--help-reactors"]
    with started(command, folder) as process:
        assert process.wait() == 0
        assert process.out.first(lambda line: line.split()[:1] == ["txasgi"], "line of the reactor")


def test_serve_under_twistd(folder: Path) -> None:
    """
    serve() works in a Twisted program on that reactor, next to its other services.
    """
    (folder / "both.tac").write_text(
        "import asyncio\n"
        "from twisted.application.service import Application, Service\n"
        "import txasgi\n"
        "from tests.serve.apps import served\n"
        "class Server(Service):\n"
        "    def startService(self):\n"
        "        self.task = asyncio.get_event_loop().create_task(txasgi.serve(served.app, port=0))\n"
        "    async def _stop(self):\n"
        "        self.task.cancel()\n"
        "        await asyncio.wait([self.task])\n"
        "    def stopService(self):\n"
        "        from twisted.internet.defer import Deferred\n"
        "        return Deferred.fromFuture(asyncio.ensure_future(self._stop()))\n"
        "application = Application('both')\n"
        "Server().setServiceParent(application)\n"
    )
    arguments = ["--nodaemon", "--pidfile=", "--reactor=txasgi", "--python=both.tac"]
    command = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", *arguments]
    with started(command, folder) as process:
        # All that is written goes into twistd's log.
        line = process.wait_for_access("listening on ")
        assert ask(line.rpartition(" ")[2]).status == 200
        process.send_signal(signal.SIGTERM)
        process.wait()
        process.wait_for_access("app: shutdown")
        process.check()
