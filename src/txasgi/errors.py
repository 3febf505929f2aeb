"""
Every exception of txasgi.

Three families, told apart by who is at fault:

* `OperatorError`: the command line, the configuration, an endpoint string, a port that is taken.
  Its text is one line that names the thing; its `exit_status` is that of the process.
* `PeerError`: the client broke a rule of its protocol or passed a limit. Answered and counted, never logged with a
  traceback. The class carries what to answer on each wire.
* `ApplicationError`: the application broke ASGI. Raised at the `await` that did it.

Any other exception that leaves txasgi is a bug.
"""

from __future__ import annotations

# RFC 9113 section 7
NO_ERROR = 0x0
PROTOCOL_ERROR = 0x1
INTERNAL_ERROR = 0x2
REFUSED_STREAM = 0x7
CANCEL = 0x8
ENHANCE_YOUR_CALM = 0xB
INADEQUATE_SECURITY = 0xC


class TxasgiError(Exception):
    """
    The root of the tree.
    """


class OperatorError(TxasgiError):
    """
    Something the operator gave cannot be used. `str()` is one line for standard error.
    """

    exit_status = 1


class ConfigError(OperatorError):
    """
    An option is unknown, has a bad value, or contradicts another.
    """

    exit_status = 2


class EndpointError(OperatorError):
    """
    An endpoint string cannot be parsed or listened on.
    """


class LoadError(OperatorError):
    """
    The application cannot be imported.
    """


class ReactorError(OperatorError):
    """
    The reactor that is installed cannot run asyncio applications.
    """


class LifespanError(OperatorError):
    """
    The application's startup failed.
    """

    # The status that Uvicorn and Gunicorn use: supervisors know it as "do not start me again at once".
    exit_status = 3


class PeerError(TxasgiError):
    """
    The peer broke a rule.

    status: what to answer over HTTP, as long as nothing was answered yet.
    h2_code: the error code of RFC 9113 section 7.
    close_code: the status code of RFC 6455 section 7.4.
    """

    status = 400
    h2_code = PROTOCOL_ERROR
    close_code = 1002


class BadRequest(PeerError):
    """
    The request is malformed; where it ends is not known.
    """


class HeadTooLarge(PeerError):
    """
    The request head is larger, or has more fields, than allowed (RFC 6585 section 5).
    """

    status, h2_code = 431, ENHANCE_YOUR_CALM


class TargetTooLong(PeerError):
    """
    The request target is longer than allowed (RFC 9110 section 15.5.15).
    """

    status, h2_code = 414, ENHANCE_YOUR_CALM


class HeadTimeout(PeerError):
    """
    The request head did not arrive in time (RFC 9110 section 15.5.9).
    """

    status, h2_code = 408, ENHANCE_YOUR_CALM


class NotImplementedByUs(PeerError):
    """
    A method or a transfer coding that we do not know (RFC 9110 section 15.6.2).
    """

    status = 501


class VersionNotSupported(PeerError):
    """
    A version of HTTP that this wire does not speak (RFC 9110 section 15.6.6).
    """

    status = 505


class HandshakeRefused(PeerError):
    """
    The opening handshake of a WebSocket is wrong (RFC 6455 section 4.2.1).
    """


class WebSocketVersionNotSupported(HandshakeRefused):
    """
    Sec-WebSocket-Version is not 13 (RFC 6455 section 4.4).
    """

    status = 426


class ApplicationError(TxasgiError, RuntimeError):
    """
    The application sent a message that ASGI does not allow here, or with a wrong value.
    """


class ClientDisconnected(TxasgiError, OSError):
    """
    The client is gone; raised by `send()` (ASGI HTTP and WebSocket specification 2.4).
    """
