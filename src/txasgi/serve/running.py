"""
`txasgi.run`, `await txasgi.serve`, and what the command runs: one application in this process.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

from txasgi import config as configuration
from txasgi.asgi.task import Application
from txasgi.config import OPTIONS, Config
from txasgi.errors import ConfigError, LoadError, OperatorError
from txasgi.serve import loading

_log = logging.getLogger("txasgi")


def make_config(options: dict[str, Any]) -> Config:
    """
    A Config from keyword arguments. Raises ConfigError for one that is unknown or wrong.
    """
    for name in options:
        if name not in OPTIONS:
            raise ConfigError(f"unknown option {name!r}")
    parsed = {name: configuration.parse(OPTIONS[name], value, name) for name, value in options.items()}
    return configuration.merged([parsed])


def application_of(app: Any, config: Config) -> Application:
    """
    The application for a name or an object. Raises LoadError, its traceback printed if its own module raised.
    """
    if config.env_file:
        loading.load_environment(config.env_file)
    if not isinstance(app, str):
        return loading.prepared(app, type(app).__name__, factory=config.factory, interface=config.interface)
    try:
        return loading.load(app, config.app_dir, factory=config.factory, interface=config.interface)
    except OperatorError:
        raise
    except Exception as error:  # The application's module may raise anything.
        sys.excepthook(type(error), error, error.__traceback__)
        raise LoadError(f"cannot import {app!r}: {type(error).__name__}: {error}") from error


def run_process(app: Any, config: Config, *, check_only: bool = False) -> int:
    """
    Serve until a signal stops it. Returns the exit status; raises OperatorError when it cannot start.
    """
    from txasgi.observe import log
    from txasgi.serve.server import Server, make_reactor, run_until_stopped

    log.configure(config.log_level)
    # First of all: the application may import twisted.internet.reactor.
    reactor, loop = make_reactor(config.loop)
    application = application_of(app, config)
    if check_only:
        from txasgi.net.endpoints import parse, quote
        from txasgi.net.listen import NativeListeners

        for string in configuration.endpoints(config, quote):
            parse(NativeListeners(reactor, loop=loop), string)
        sys.stdout.write("the configuration is fine\n")
        return 0
    failure = run_until_stopped(Server(application, config, reactor, loop, own_process=True), reactor, loop)
    if failure is not None:
        raise failure
    return 0


def run(app: Any, **options: Any) -> None:
    """
    Serve an application until SIGINT or SIGTERM, like uvicorn.run.

    app: an ASGI application, or its name ("module:attribute").
    options: those of the command line, with underscores: `run(app, endpoint=["tcp:8000"], log_level="warning")`.
    Raises OperatorError when it cannot start.
    """
    run_process(app, make_config(options))


async def serve(app: Any, **options: Any) -> None:
    """
    Serve an application inside the running asyncio loop, until this is cancelled.

    The loop must be one that Twisted's asyncioreactor can use (asyncio's selector loop, or uvloop). Cancelling drains:
    requests may finish within timeout_graceful_shutdown. Signals are left to the caller.
    """
    from txasgi.net import reactor as reactors
    from txasgi.observe import log
    from txasgi.serve.server import Server

    config = make_config(options)
    log.configure(config.log_level)
    loop = asyncio.get_running_loop()
    reactor = reactors.install(loop)
    started = not reactor.running
    if started:
        # What a reactor does when it starts, but for running the loop, which runs already.
        reactor.startRunning(installSignalHandlers=False)
    try:
        await Server(application_of(app, config), config, reactor, loop).run()
    finally:
        if started and reactor.threadpool is not None:
            # Of what a reactor does when it stops, all that cannot wait: its threads would keep the process.
            await loop.run_in_executor(None, reactor._stopThreadPool)
