"""
One process: reactor, listeners, application, and its beginning and end.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from twisted.internet.interfaces import IAddress

from txasgi import config as configuration
from txasgi.asgi.gate import Gate
from txasgi.asgi.lifespan import Lifespan
from txasgi.asgi.task import Application
from txasgi.asgi.websocket import WebSocketOptions
from txasgi.config import Config
from txasgi.deadlines import Deadlines
from txasgi.net import endpoints
from txasgi.net import reactor as reactors
from txasgi.net.listen import NativeListeners, SocketTable
from txasgi.observe import access
from txasgi.wire.front import Front
from txasgi.wire.h1_input import H1Options
from txasgi.wire.h2_output import H2Options

_log = logging.getLogger("txasgi")

# For tasks that were cancelled.
_CLEAN_UP_S = 2.0


class Server:
    """
    An application behind its listeners.

    Made with a running, or not yet running, event loop and an asyncio reactor on it; `start`, then `stop`.
    own_process: nothing but this server runs here, so that settings of the whole process are its to make.
    """

    def __init__(
        self,
        application: Application,
        config: Config,
        reactor: Any,
        loop: asyncio.AbstractEventLoop,
        *,
        own_process: bool = False,
    ) -> None:
        self._application = application
        self._config = config
        self._loop = loop
        self._listeners = NativeListeners(
            reactor,
            loop=loop,
            backlog=config.backlog,
            reuse_port=config.reuse_port,
            tls_extension=config.tls_extension,
            table=SocketTable(),
        )
        self.deadlines = Deadlines(loop.time, loop.call_later, time.time)
        self._lifespan = Lifespan(application, loop, config.lifespan)
        self.gate: Gate | None = None
        self.front: Front | None = None
        self.ports: list[Any] = []
        self._stopping: asyncio.Future[None] = loop.create_future()
        self._forced = False
        self._application_stopped = False
        self._own_process = own_process

    # Start

    async def start(self) -> None:
        """
        Start the application, then listen. Raises OperatorError; nothing listens then.
        """
        strings = configuration.endpoints(self._config, endpoints.quote)
        # Parsed before the application starts: a bad string or a missing key should be known at once.
        parsed = [(string, endpoints.parse(self._listeners, string)) for string in strings]
        await self._start_application()
        if self._stopping.done():
            return
        self.deadlines.start()
        self.gate = self._make_gate()
        http = self._config.http
        h2 = self._make_h2_options(self.gate) if http != "1" else None
        self.front = Front(self.gate.open, self._make_h1_options(self.gate), h2, http1=http != "2")
        try:
            for string, endpoint in parsed:
                try:
                    port = await endpoint.listen(self.front).asFuture(self._loop)
                except Exception as error:  # An endpoint of another package may raise anything.
                    raise endpoints.explain(string, error) from error
                self.ports.append(port)
        except BaseException:
            await self._close_ports()
            await self._stop_application()
            self.deadlines.stop()
            raise
        if self._own_process:
            _settle_memory()
        for string, port in zip(strings, self.ports, strict=True):
            _log.info("listening on %s", location(string, port))

    async def _start_application(self) -> None:
        """
        lifespan.startup; a stop that is asked for meanwhile ends it.
        """
        startup = self._loop.create_task(self._lifespan.startup())
        try:
            await asyncio.wait([startup, self._stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not startup.done():
                startup.cancel()
                self._lifespan.cancel()
        if not startup.cancelled() and startup.done():
            startup.result()

    async def _stop_application(self) -> None:
        """
        lifespan.shutdown, once, within the graceful timeout, or a second where that is shorter.
        """
        if self._application_stopped:
            return
        self._application_stopped = True
        try:
            async with asyncio.timeout(max(self._config.timeout_graceful_shutdown, 1.0)):
                await self._lifespan.shutdown()
        except TimeoutError:
            _log.warning("the application's shutdown did not finish in time")
            self._lifespan.cancel()

    def _make_gate(self) -> Gate:
        config = self._config
        fields = [configuration.header_field(line) for line in config.header]
        # What the operator sends in their place.
        given = {name for name, _ in fields}
        return Gate(
            self._application,
            self._loop,
            self.deadlines,
            state=self._lifespan.state,
            root_path=config.root_path,
            server=b"txasgi" if config.server_header and b"server" not in given else None,
            date=config.date_header and b"date" not in given,
            extra_fields=fields,
            disconnect_grace_s=config.disconnect_grace,
            websocket=WebSocketOptions(
                max_size=config.ws_max_size,
                max_queue=config.ws_max_queue,
                ping_interval_s=config.ws_ping_interval,
                ping_timeout_s=config.ws_ping_timeout,
                deflate=config.ws_per_message_deflate,
            ),
            report=access.report if config.access_log else None,
        )

    def _make_h1_options(self, gate: Gate) -> H1Options:
        options = H1Options(
            deadlines=self.deadlines,
            call_soon=self._loop.call_soon,
            keep_alive_s=self._config.timeout_keep_alive,
            fields=gate.fields,
        )
        if self._config.access_log:
            options.refused = access.refused
        return options

    def _make_h2_options(self, gate: Gate) -> H2Options:
        config = self._config
        options = H2Options(
            deadlines=self.deadlines,
            call_soon=self._loop.call_soon,
            keep_alive_s=config.timeout_keep_alive,
            max_concurrent_streams=config.h2_max_concurrent_streams,
            initial_window_bytes=config.h2_initial_window_size,
            connection_window_bytes=config.h2_connection_window_size,
            max_frame_bytes=config.h2_max_frame_size,
            header_list_bytes=config.h2_max_header_list_size,
            header_table_bytes=config.h2_header_table_size,
            fields=gate.fields,
        )
        if config.access_log:
            options.refused = access.refused
        return options

    # Run

    async def run(self) -> None:
        """
        Start, serve until `request_stop`, and stop.
        """
        try:
            await self.start()
            await asyncio.shield(self._stopping)
        finally:
            await self.stop()

    def request_stop(self) -> None:
        """
        Stop gracefully; asked again, at once.
        """
        if not self._stopping.done():
            _log.info("stopping: waiting up to %g s for requests to finish", self._config.timeout_graceful_shutdown)
            self._stopping.set_result(None)
        elif not self._forced:
            _log.warning("stopping at once")
            self._forced = True
            self._cut_off()

    def reload(self) -> None:
        """
        Read certificates anew: SIGHUP.
        """
        contexts = self._listeners.tls_contexts
        if not contexts:
            _log.info("SIGHUP: there are no certificates to reload")
        for one in contexts:
            one.reload()

    # Stop

    async def stop(self) -> None:
        """
        Accept no more, let requests finish, cut off what is left after the timeout, then end the application.
        """
        await self._close_ports()
        if self.front is not None and self.gate is not None:
            try:
                async with asyncio.timeout(self._config.timeout_graceful_shutdown):
                    await self._drain(self.front, self.gate)
            except TimeoutError:
                _log.warning(
                    "%d connections and %d requests did not finish in time; they are cut off",
                    len(self.front.connections),
                    len(self.gate.tasks),
                )
                self._cut_off()
                if self.gate.tasks:
                    # Once cancelled they get a moment to clean up; more, and they hold up the exit.
                    await asyncio.wait(self.gate.tasks, timeout=_CLEAN_UP_S)
        await self._stop_application()
        self.deadlines.stop()

    async def _close_ports(self) -> None:
        ports, self.ports = self.ports, []
        for port in ports:
            closed = port.stopListening()
            if closed is not None:
                await closed.asFuture(self._loop)

    async def _drain(self, front: Front, gate: Gate) -> None:
        empty = self._loop.create_future()
        front.drain(lambda: None if empty.done() else empty.set_result(None))
        await empty
        while gate.tasks:
            _, left = await asyncio.wait(gate.tasks, timeout=_CLEAN_UP_S)
            if left and self._forced:
                # They were cancelled and go on all the same.
                break

    def _cut_off(self) -> None:
        if self.front is not None:
            self.front.abort()
        if self.gate is not None:
            for task in list(self.gate.tasks):
                task.cancel()
        if self._forced:
            self._lifespan.cancel()


def _settle_memory() -> None:
    """
    Take what startup made out of the garbage collector's rounds, and have it go round less often.

    Serving makes no cycles of its own. With the default of 700 new objects a few dozen open requests start a round in
    each turn of the loop, which takes 15% of the time of a small request; measured.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, *gc.get_threshold()[1:])


def location(string: str, port: Any) -> str:
    """
    Where a port listens, as a person would use it: a URL, or the path of a socket.
    """
    host: IAddress = port.getHost()
    name = getattr(host, "name", None)
    if name is not None:
        # An abstract socket's name begins with NUL, which ss and systemd write as @.
        path = os.fsdecode(name).replace("\0", "@").encode("utf-8", "backslashreplace").decode()
        return f"unix:{path}"
    if not hasattr(host, "port"):
        return f"{endpoints.shown(string)} ({host})"
    address = getattr(host, "host", "")
    address = f"[{address}]" if ":" in address else address
    prefix = string.removeprefix("haproxy:").partition(":")[0]
    scheme = "https" if prefix in ("ssl", "tls") else "http"
    return f"{scheme}://{address}:{host.port}"


def run_until_stopped(server: Server, reactor: Any, loop: asyncio.AbstractEventLoop) -> BaseException | None:
    """
    Run the reactor until the server has stopped. Returns what ended it if that was a failure.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, server.request_stop)
        loop.add_signal_handler(signal.SIGHUP, server.reload)
    executor = ThreadPoolExecutor(thread_name_prefix="txasgi")
    loop.set_default_executor(executor)
    main = loop.create_task(server.run())
    main.add_done_callback(lambda _task: reactor.stop() if reactor.running else None)
    reactor.run(installSignalHandlers=False)
    if not main.done():
        # Something else stopped the reactor: end in good order all the same.
        main.cancel()
        loop.run_until_complete(asyncio.wait([main]))
    _finish(loop, executor)
    return None if main.cancelled() else main.exception()


def _finish(loop: asyncio.AbstractEventLoop, executor: ThreadPoolExecutor) -> None:
    """
    What asyncio.run() does at its end: cancel what still runs, close generators and threads.
    """
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left, timeout=_CLEAN_UP_S))
    loop.run_until_complete(loop.shutdown_asyncgens())
    # Threads that the application blocks would hold up the interpreter's end for ever: nobody can end a thread.
    join = threading.Thread(target=executor.shutdown, kwargs={"cancel_futures": True}, daemon=True)
    join.start()
    join.join(_CLEAN_UP_S)
    if join.is_alive():
        _log.warning("threads of the application still run; they are left behind")
        _leave_threads_behind()


def _leave_threads_behind() -> None:
    """
    End the process, as its interpreter would wait for the threads. Output is written first.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    os._exit(0)


def make_reactor(kind: str) -> tuple[Any, asyncio.AbstractEventLoop]:
    """
    The reactor and its loop: what is installed already, or a new one. Raises ReactorError.
    """
    reactor = reactors.installed()
    if reactor is not None:
        return reactor, reactors.loop_of(reactor)
    loop = reactors.new_loop(kind)
    return reactors.install(loop), loop
