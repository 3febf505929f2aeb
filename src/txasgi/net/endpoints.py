"""
Endpoint strings: `tcp:8000`, `unix:/run/a.sock`, `ssl:8443:privateKey=key.pem:certKey=cert.pem` and so on.

The syntax is Twisted's: parts between colons, some of them name=value, a backslash before a colon that is meant.
Our own prefixes are parsed by the table at the end, because Twisted's plugin machinery costs 220 ms the first time; any
other prefix goes through it. What is wrong with a string is said in one line that names the string and the argument.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import socket
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from zope.interface import implementer

from txasgi.errors import EndpointError
from txasgi.net.listen import TWISTED_BACKLOG, NativeListeners

Listen = Callable[[Any], Any]


@implementer(IStreamServerEndpoint)
class ListeningEndpoint:
    """
    An endpoint that listens at once.

    start: (factory) -> IListeningPort, or a Deferred of one; raises CannotListenError or EndpointError.
    """

    def __init__(self, start: Listen) -> None:
        self._start = start

    def listen(self, protocolFactory: Any) -> Deferred[Any]:
        """
        IStreamServerEndpoint.
        """
        return maybeDeferred(self._start, protocolFactory)


def split(string: str) -> list[tuple[str | None, str]]:
    """
    The parts of an endpoint string as (name or None, value), backslashes taken off.

    >>> split(r"tcp6:8000:interface=\\:\\:1")
    [(None, 'tcp6'), (None, '8000'), ('interface', '::1')]
    """
    parts: list[tuple[str | None, str]] = []
    name: str | None = None
    text = ""
    characters = iter(string)
    for character in characters:
        if character == "\\":
            text += next(characters, "\\")
        elif character == ":":
            parts.append((name, text))
            name, text = None, ""
        elif character == "=" and name is None:
            name, text = text, ""
        else:
            text += character
    parts.append((name, text))
    return parts


def quote(argument: str) -> str:
    """
    Put backslashes before what has a meaning in an endpoint string.
    """
    return argument.replace("\\", r"\\").replace(":", r"\:").replace("=", r"\=")


def number(name: str, value: str, least: int, most: int) -> int:
    """
    An argument that is a decimal number; raises EndpointError.
    """
    if not (value.isascii() and value.isdigit() and len(value) < 12 and least <= int(value) <= most):
        raise EndpointError(f"{name} must be a number from {least} to {most}, not {value!r}")
    return int(value)


def truth(name: str, value: str) -> bool:
    """
    An argument that is yes or no; raises EndpointError.
    """
    answers = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if value.lower() not in answers:
        raise EndpointError(f"{name} must be yes or no, not {value!r}")
    return answers[value.lower()]


def _tcp(
    reactor: NativeListeners,
    port: str,
    interface: str = "",
    backlog: str = str(TWISTED_BACKLOG),
    reusePort: str = "no",
) -> Listen:
    port_number = number("the port", port, 0, 65535)
    length = number("backlog", backlog, 1, 2**31 - 1)
    reuse = truth("reusePort", reusePort)
    return lambda factory: reactor.listenTCP(port_number, factory, length, interface, reuse_port=reuse)


def _tcp6(
    reactor: NativeListeners,
    port: str,
    interface: str = "::",
    backlog: str = str(TWISTED_BACKLOG),
    reusePort: str = "no",
) -> Listen:
    return _tcp(reactor, port, interface, backlog, reusePort)


def _unix(
    reactor: NativeListeners,
    address: str,
    mode: str = "666",
    backlog: str = str(TWISTED_BACKLOG),
    lockfile: str = "yes",
) -> Listen:
    if not address:
        raise EndpointError("the path of the socket is empty")
    try:
        bits = int(mode, 8)
    except ValueError:
        bits = -1
    if not 0 <= bits <= 0o777:
        raise EndpointError(f"mode must be an octal number from 0 to 777, not {mode!r}")
    length = number("backlog", backlog, 1, 2**31 - 1)
    truth("lockfile", lockfile)  # Twisted's; whether a socket is stale is found out without a lock here.
    return lambda factory: reactor.listenUNIX(address, factory, length, bits)


def _fd(reactor: NativeListeners, fileno: str, domain: str = "") -> Listen:
    # Daphne's prefix; its domain argument is found out from the descriptor.
    descriptor = number("the descriptor", fileno, 0, 2**31 - 1)
    try:
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            family = sock.family
            listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise EndpointError(f"descriptor {descriptor} is not a socket: {error.strerror}") from None
    if not listening:
        raise EndpointError(f"descriptor {descriptor} is a socket that does not listen")
    return lambda factory: reactor.adoptStreamPort(descriptor, family, factory)


def _systemd(reactor: NativeListeners, domain: str = "", index: str = "", name: str = "") -> Listen:
    passed = _listen_fds()
    if bool(index) == bool(name):
        raise EndpointError("systemd takes either index= or name=")
    if name:
        descriptors = passed.inheritedNamedDescriptors()
        if name not in descriptors:
            known = ", ".join(descriptors) or "none"
            raise EndpointError(f"systemd passed no socket named {name!r} (it passed: {known})")
        return _fd(reactor, str(descriptors[name]))
    inherited = passed.inheritedDescriptors()
    place = number("index", index, 0, 9999)
    if place >= len(inherited):
        raise EndpointError(f"systemd passed {len(inherited)} sockets, there is no index {place}")
    return _fd(reactor, str(inherited[place]))


def _listen_fds() -> Any:
    # LISTEN_FDS may be read once only: Twisted's endpoints module reads it when it is imported.
    endpoints = sys.modules.get("twisted.internet.endpoints")
    if endpoints is not None:
        return endpoints._SystemdParser._sddaemon
    from twisted.internet.endpoints import _SystemdParser

    return _SystemdParser._sddaemon


def _haproxy(reactor: NativeListeners, rest: str) -> Listen:
    from twisted.protocols.haproxy import proxyEndpoint

    return proxyEndpoint(parse(reactor, rest)).listen


def _tls_endpoint(reactor: NativeListeners, string: str) -> Listen:
    from txasgi.net.tls_endpoints import PREFIXES

    start = PREFIXES[string.partition(":")[0]]
    return _bind_arguments(functools.partial(start, shown=shown(string)), reactor, string)


# Whatever is wrong with how it is written: by name or by place, with backslashes or without, up to the end.
_PASSWORD_NAME = "".join(rf"\\*{letter}" for letter in "password")
_PASSWORD = re.compile(
    rf"(?i)({_PASSWORD_NAME}\\*\s*=)(?!env\\:[a-z0-9_]*(?::[a-z]+=|$)).*|(?<=:)(pass\\*:).*", re.DOTALL
)


def shown(string: str) -> str:
    """
    An endpoint string for messages: without the password, if one is written in it.
    """
    return _PASSWORD.sub(lambda found: (found[1] or found[2]) + "***", string)


def _plugin(reactor: NativeListeners, string: str) -> Listen:
    from twisted.internet.endpoints import serverFromString

    prefix = string.partition(":")[0]
    try:
        return serverFromString(reactor, string).listen  # type: ignore[no-any-return]
    except EndpointError:
        raise
    except Exception as error:  # A parser of another package; whatever it raises is about the string.
        if str(error).startswith("Unknown endpoint type"):
            known = ", ".join(_PREFIXES)
            raise EndpointError(
                f"unknown prefix {prefix!r}; there are {known}, and those of installed plugins"
            ) from None
        raise EndpointError(str(error) or type(error).__name__) from error


_PREFIXES: dict[str, Callable[..., Listen]] = {
    "tcp": _tcp,
    "tcp6": _tcp6,
    "unix": _unix,
    "fd": _fd,
    "systemd": _systemd,
    "ssl": _tls_endpoint,
    "tls": _tls_endpoint,
    "haproxy": _haproxy,
}


def _bind_arguments(start: Callable[..., Listen], reactor: NativeListeners, string: str) -> Listen:
    """
    Call *start* with the parts of a string. One whose default is a tuple may be given more than once.
    """
    parts = split(string)[1:]
    parameters = {name: p for name, p in inspect.signature(start).parameters.items() if name not in _NOT_ARGUMENTS}
    named: dict[str, Any] = {}
    # Those without a name are the first ones.
    unnamed = iter(parameters)
    for given, value in parts:
        name = given if given is not None else next(unnamed, None)
        if name is None:
            raise EndpointError("expected " + ":".join(parameters) + ", or name=value")
        if name not in parameters:
            raise EndpointError(f"unknown argument {name}=; there are " + ", ".join(parameters))
        if isinstance(parameters[name].default, tuple):
            named[name] = (*named.get(name, ()), value)
        elif name in named:
            raise EndpointError(f"{name}= is given twice")
        else:
            named[name] = value
    missing = [name for name, p in parameters.items() if p.default is p.empty and name not in named]
    if missing:
        raise EndpointError(f"{missing[0]} is missing")
    return start(reactor, **named)


_NOT_ARGUMENTS = ("reactor", "shown")


def parse(reactor: NativeListeners, string: str) -> ListeningEndpoint:
    """
    The endpoint for a string. Reads certificates, binds nothing.

    Raises EndpointError with one line that names the string.
    """
    prefix, colon, rest = string.partition(":")
    start = _PREFIXES.get(prefix)
    try:
        if not colon:
            raise EndpointError("expected a prefix and a colon, like tcp:8000")
        if start is _haproxy:
            listen = _haproxy(reactor, rest)
        elif start is _tls_endpoint:
            listen = _tls_endpoint(reactor, string)
        elif start is not None:
            listen = _bind_arguments(start, reactor, string)
        else:
            listen = _plugin(reactor, string)
    except EndpointError as error:
        # What is inside haproxy: has put its own part of the string in front.
        text = str(error).removeprefix(f"endpoint {shown(rest)!r}: ")
        raise EndpointError(f"endpoint {shown(string)!r}: {text}") from error.__cause__
    return ListeningEndpoint(listen)


def explain(string: str, error: BaseException) -> EndpointError:
    """
    Why an endpoint could not listen, as one line.
    """
    if isinstance(error, EndpointError):
        return error
    if isinstance(error, CannotListenError):
        reason = error.socketError
        text = getattr(reason, "strerror", None) or str(reason)
        return EndpointError(f"endpoint {shown(string)!r}: cannot listen: {text}")
    return EndpointError(f"endpoint {shown(string)!r}: cannot listen: {error or type(error).__name__}")
