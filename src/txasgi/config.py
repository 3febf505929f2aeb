"""
Every option, once: the command line, TXASGI_* environment variables, the TOML file and docs/options.md are read off it.

Where Uvicorn or Daphne has an option, it has the same name here. `why` says where a default comes from.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from txasgi.errors import ApplicationError, ConfigError
from txasgi.fields import CONTENT_LENGTH, FRAMING, clean_value, is_token, name_kinds

KIB = 1024
MIB = 1024 * KIB

SECTIONS = {
    "binding": "Where to listen",
    "tls": "TLS on --host and --port; endpoint strings say more (docs/tls.md)",
    "application": "The application",
    "http": "HTTP",
    "websocket": "WebSocket",
    "timeouts": "Timeouts",
    "logging": "Logging",
    "runtime": "Runtime",
}


@dataclass(frozen=True, slots=True)
class Option:
    """
    One option. `flags` are spellings beside --name; `parse` takes the text of the command line or the environment.
    """

    name: str
    kind: str
    default: Any
    help: str
    why: str
    section: str
    choices: tuple[str, ...]
    flags: tuple[str, ...]

    @property
    def spelling(self) -> str:
        """
        As the file and the command line write it.
        """
        return self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """
        Its environment variable.
        """
        return f"TXASGI_{self.name.upper()}"


def option(
    kind: str,
    default: Any,
    help: str,
    *,
    section: str,
    why: str = "",
    choices: tuple[str, ...] = (),
    flags: tuple[str, ...] = (),
) -> Any:
    """
    A field of Config. kind: text, path, number, seconds, bytes, flag, choice, list, field.
    """
    metadata = {
        "kind": kind,
        "help": help,
        "section": section,
        "why": why,
        "choices": choices,
        "flags": flags,
    }
    if isinstance(default, list):
        return field(default_factory=list, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(slots=True)
class Config:
    """
    The options of a server. Values are checked when they are read (`read`), not here.
    """

    endpoint: list[str] = option(
        "list",
        [],
        "A Twisted endpoint string to listen on; may be repeated.",
        section="binding",
        flags=("-e",),
    )
    host: str = option(
        "text",
        "127.0.0.1",
        "The address to listen on.",
        section="binding",
        flags=("-b", "--bind"),
        why="What Uvicorn and Daphne do: nothing is exposed that nobody asked to expose.",
    )
    port: int = option("number", 8000, "The TCP port; 0 takes a free one.", section="binding", flags=("-p",))
    uds: str = option("path", "", "A UNIX socket to listen on.", section="binding", flags=("-u",))
    fd: int = option("number", -1, "A listening socket, inherited under this descriptor.", section="binding")
    backlog: int = option(
        "number",
        2048,
        "Connections that wait to be accepted.",
        section="binding",
        why="Uvicorn's and Gunicorn's; Twisted's 50 drops connections under load.",
    )
    reuse_port: bool = option(
        "flag", False, "Set SO_REUSEPORT, so that several servers may listen on one port.", section="binding"
    )

    ssl_certfile: str = option(
        "path", "", "A PEM file with the certificate and its chain; the port speaks TLS then.", section="tls"
    )
    ssl_keyfile: str = option("path", "", "The PEM file of its key; the same file when not given.", section="tls")
    ssl_keyfile_password: str = option(
        "text",
        "",
        "The password of the key.",
        section="tls",
        why="On the command line every user of the machine can read it: better in TXASGI_SSL_KEYFILE_PASSWORD.",
    )
    ssl_ca_certs: str = option("path", "", "A PEM file of the authorities of client certificates.", section="tls")
    ssl_cert_reqs: str = option(
        "choice",
        "auto",
        "Whether clients need a certificate; auto is required with --ssl-ca-certs, else none.",
        section="tls",
        choices=("auto", "none", "optional", "required", "0", "1", "2"),
        why="The numbers are Uvicorn's; other than there, authorities that are given are used.",
    )
    ssl_ciphers: str = option(
        "text",
        "",
        "Ciphers of TLS 1.2, in OpenSSL's words.",
        section="tls",
        why="Without it Mozilla's intermediate list.",
    )
    dev_tls: bool = option(
        "flag",
        False,
        "Speak TLS with a self-signed certificate for localhost, made in memory: for development.",
        section="tls",
    )
    tls_extension: bool = option(
        "flag",
        False,
        "Put the ASGI extension tls into every scope over TLS, not only where client certificates are asked for.",
        section="tls",
    )

    factory: bool = option(
        "flag", False, "The name is that of a function that makes the application.", section="application"
    )
    app_dir: str = option("path", ".", "Where to look for the application's module first.", section="application")
    interface: str = option(
        "choice",
        "auto",
        "The version of ASGI the application speaks.",
        section="application",
        choices=("auto", "asgi3", "asgi2"),
    )
    root_path: str = option("text", "", "The path below which the application is mounted.", section="application")
    lifespan: str = option(
        "choice",
        "auto",
        "Whether the application has a lifespan: auto finds out.",
        section="application",
        choices=("auto", "on", "off"),
    )
    env_file: str = option(
        "path", "", "A file of NAME=value lines to put into the environment first.", section="application"
    )

    http: str = option(
        "choice",
        "auto",
        "The versions of HTTP that are spoken: 1, 2, or auto for both.",
        section="http",
        choices=("auto", "1", "2"),
        why="Clients say by ALPN or by their first bytes which they speak.",
    )
    server_header: bool = option("flag", True, "Send Server: txasgi.", section="http")
    date_header: bool = option(
        "flag",
        True,
        "Send Date.",
        section="http",
        why="RFC 9110 section 6.6.1 asks for it of every server with a clock.",
    )
    header: list[str] = option("field", [], "A field for every answer, as NAME:VALUE; may be repeated.", section="http")

    h2_max_concurrent_streams: int = option(
        "number",
        100,
        "Requests that one HTTP/2 connection may have open.",
        section="http",
        why="Hypercorn; nginx 128, Go 250. RFC 9113 advises no less than 100.",
    )
    h2_initial_window_size: int = option(
        "bytes",
        256 * KIB,
        "What a client may send of one request body before the application has taken any of it.",
        section="http",
        why="This much can wait in memory for each stream; it grows to 4 MiB while the application takes what comes.",
    )
    h2_connection_window_size: int = option(
        "bytes",
        25 * MIB,
        "The same for all streams of a connection together.",
        section="http",
        why="100 windows of 256 KiB: less, and applications that do not read hold up the uploads of others.",
    )
    h2_max_frame_size: int = option(
        "bytes",
        16 * KIB,
        "The largest frame a client may send.",
        section="http",
        why="The least that RFC 9113 allows; larger frames only hold up other streams.",
    )
    h2_max_header_list_size: int = option(
        "bytes",
        64 * KIB,
        "The largest request head, 32 bytes added for each field (RFC 9113 section 6.5.2).",
        section="http",
        why="That of HTTP/1.1.",
    )
    h2_header_table_size: int = option(
        "bytes",
        4 * KIB,
        "What a connection may keep to compress request heads (RFC 7541).",
        section="http",
        why="The default of RFC 9113, and of most.",
    )

    ws_max_size: int = option(
        "bytes",
        16 * MIB,
        "The largest WebSocket message, after inflation.",
        section="websocket",
        why="Uvicorn, websockets, Gunicorn.",
    )
    ws_max_queue: int = option(
        "number",
        32,
        "Messages that wait for the application before reading pauses.",
        section="websocket",
        why="Uvicorn.",
    )
    ws_ping_interval: float = option(
        "seconds",
        20.0,
        "Between pings to a client; 0 sends none.",
        section="websocket",
        why="Uvicorn and Daphne; shorter than the idle time of any proxy.",
    )
    ws_ping_timeout: float = option(
        "seconds",
        20.0,
        "For a pong, before the connection counts as dead; 0 waits for ever.",
        section="websocket",
    )
    ws_per_message_deflate: bool = option("flag", True, "Agree to permessage-deflate.", section="websocket")

    timeout_keep_alive: float = option(
        "seconds",
        5.0,
        "An idle connection is closed after this.",
        section="timeouts",
        why="Uvicorn, Node. Set it longer than the proxy's in front of you, which should be the one that closes.",
    )
    timeout_graceful_shutdown: float = option(
        "seconds",
        30.0,
        "For requests to finish when the server stops.",
        section="timeouts",
        why="Gunicorn, Kubernetes; Uvicorn waits for ever.",
    )
    disconnect_grace: float = option(
        "seconds",
        10.0,
        "For the application to end by itself when its client left, before its task is cancelled.",
        section="timeouts",
        why="Daphne's application-close-timeout.",
    )

    log_level: str = option(
        "choice",
        "info",
        "The least severe lines that are logged.",
        section="logging",
        choices=("critical", "error", "warning", "info", "debug"),
    )
    access_log: bool = option("flag", True, "Log each request when it is over, to standard output.", section="logging")

    loop: str = option(
        "choice",
        "auto",
        "The event loop; auto is uvloop where it is installed.",
        section="runtime",
        choices=("auto", "uvloop", "asyncio"),
    )


def _options() -> dict[str, Option]:
    return {
        one.name: Option(
            name=one.name,
            default=one.default_factory() if one.default_factory is not dataclasses.MISSING else one.default,
            **one.metadata,
        )
        for one in dataclasses.fields(Config)
    }


OPTIONS = _options()

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?").fullmatch
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(|b|k|kb|kib|m|mb|mib|g|gb|gib)", re.IGNORECASE).fullmatch
_SIZE_UNITS = {"": 1, "b": 1, "k": KIB, "m": MIB, "g": 1024 * MIB}


def _number(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and re.fullmatch(r"\d{1,18}", value.strip()):
        number = int(value)
    else:
        raise ValueError("a whole number")
    if number < 0:
        raise ValueError("a whole number of 0 or more")
    return number


def _seconds(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e9:
        return float(value)
    if isinstance(value, str):
        match = _DURATION(value.strip())
        if match and any(match.groups()):
            hours, minutes, seconds = (float(part or 0) for part in match.groups())
            total = hours * 3600 + minutes * 60 + seconds
            if total < 1e9:
                return total
    raise ValueError("a time like 30, 1.5s, 5m or 1h30m")


def _bytes(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        match = _SIZE(value.strip())
        # A file system or an address space has less than 2 ** 63 bytes.
        if match and len(match[1]) < 20:
            return int(float(match[1]) * _SIZE_UNITS[match[2].lower()[:1]])
    raise ValueError("a size like 65536, 64k or 16MiB")


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    known = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    if isinstance(value, str) and value.strip().lower() in known:
        return known[value.strip().lower()]
    raise ValueError("yes or no")


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("a text")


def _choice(value: object) -> str:
    # Numbers are Uvicorn's for --ssl-cert-reqs.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value)


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return value.split()
    if isinstance(value, (list, tuple)) and all(isinstance(element, str) for element in value):
        return list(value)
    raise ValueError("a list of texts")


def _fields(value: object) -> list[str]:
    lines = [line for line in value.splitlines() if line.strip()] if isinstance(value, str) else _texts(value)
    for line in lines:
        header_field(line)
    return lines


def header_field(line: str) -> tuple[bytes, bytes]:
    """
    NAME:VALUE as a field. Raises ValueError; for a field that says how a message is framed, too.
    """
    name, colon, text = line.partition(":")
    try:
        encoded = name.strip().lower().encode("ascii")
        if not colon or not is_token(encoded) or name_kinds.get(encoded) in (FRAMING, CONTENT_LENGTH):
            raise ValueError
        return encoded, clean_value(encoded, text.strip().encode("latin-1"))
    except (ValueError, ApplicationError):
        raise ValueError("NAME:VALUE") from None


_PARSERS: dict[str, Callable[[object], Any]] = {
    "text": _text,
    "path": _text,
    "number": _number,
    "seconds": _seconds,
    "bytes": _bytes,
    "flag": _flag,
    "choice": _choice,
    "list": _texts,
    "field": _fields,
}

_LIMITS = {
    "port": 65535,
    "fd": 1 << 20,
    "backlog": (1 << 31) - 1,
    # RFC 9113 section 6.5.2.
    "h2_max_concurrent_streams": (1 << 31) - 1,
    "h2_initial_window_size": (1 << 31) - 1,
    "h2_connection_window_size": (1 << 31) - 1,
    "h2_max_frame_size": (1 << 24) - 1,
    "h2_max_header_list_size": (1 << 31) - 1,
    "h2_header_table_size": (1 << 31) - 1,
}
_LEAST = {"h2_max_frame_size": 16 * KIB, "h2_connection_window_size": 65535}
# A limit of nothing is a mistake; an unlimited one is not to be had.
_POSITIVE = ("backlog", "ws_max_size", "ws_max_queue", "h2_max_concurrent_streams", "h2_initial_window_size")


def parse(one: Option, value: object, source: str) -> Any:
    """
    The value of an option from text or from TOML. Raises ConfigError that names *source*.
    """
    try:
        parsed = _PARSERS[one.kind](value)
        if one.choices and parsed not in one.choices:
            raise ValueError("one of " + ", ".join(one.choices))
        if one.name in _LIMITS and parsed > _LIMITS[one.name]:
            raise ValueError(f"at most {_LIMITS[one.name]}")
        if parsed.__class__ is int and parsed < _LEAST.get(one.name, 0):
            raise ValueError(f"at least {_LEAST[one.name]}")
        if one.name in _POSITIVE and parsed < 1:
            raise ValueError("at least 1")
    except ValueError as expected:
        given = value[0] if isinstance(value, tuple) and len(value) == 1 else value
        raise ConfigError(f"{source}: expected {expected}, not {given!r}") from None
    return parsed


# Sources


def from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """
    Options given as TXASGI_NAME. Raises ConfigError.
    """
    return {
        one.name: parse(one, environment[one.variable], one.variable)
        for one in OPTIONS.values()
        if one.variable in environment
    }


def from_table(table: Mapping[str, Any], source: str) -> dict[str, Any]:
    """
    Options given in a TOML table, with dashes or underscores, and "app". Raises ConfigError.
    """
    given: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name == "app":
            given["app"] = _app(value, source)
        elif name in OPTIONS:
            given[name] = parse(OPTIONS[name], value, f"{source}: {key}")
        else:
            near = difflib.get_close_matches(name, [*OPTIONS, "app"], 1)
            hint = f" (did you mean {near[0].replace('_', '-')}?)" if near else ""
            raise ConfigError(f"{source}: unknown option {key!r}{hint}")
    return given


def _app(value: object, source: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{source}: app: expected a text like module:attribute, not {value!r}")
    return value


def from_file(path: str) -> dict[str, Any]:
    """
    Options in a TOML file; in a pyproject.toml those below [tool.txasgi]. Raises ConfigError.
    """
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if os.path.basename(path) == "pyproject.toml":
        path += " [tool.txasgi]"
        for name in ("tool", "txasgi"):
            table = table.get(name, {})
            if not isinstance(table, dict):
                raise ConfigError(f"{path}: {name} is no table")
    return from_table(table, path)


def find_file(directory: str) -> str | None:
    """
    The pyproject.toml of this directory, if it has a [tool.txasgi].
    """
    path = os.path.join(directory, "pyproject.toml")
    try:
        with open(path, "rb") as file:
            return path if b"[tool.txasgi" in file.read() else None
    except OSError:
        return None


_TLS_SUGAR = (
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_keyfile_password",
    "ssl_ca_certs",
    "ssl_cert_reqs",
    "ssl_ciphers",
    "dev_tls",
)
_SUGAR = ("host", "port", "uds", "fd", *_TLS_SUGAR)


def merged(sources: list[dict[str, Any]]) -> Config:
    """
    One configuration from several sources, the weakest first.

    Endpoints, and host, port and so on, are two ways to say the same: within a source they exclude each other, and a
    stronger source that uses the one takes away the other. Raises ConfigError.
    """
    values: dict[str, Any] = {}
    for source in sources:
        sugar = [name for name in _SUGAR if name in source]
        if source.get("endpoint"):
            if sugar:
                raise ConfigError(
                    f"--endpoint and --{OPTIONS[sugar[0]].spelling} exclude each other: put it into the endpoint string"
                )
            for name in _SUGAR:
                values.pop(name, None)
        elif sugar:
            values.pop("endpoint", None)
        values.update({name: value for name, value in source.items() if name in OPTIONS})
    return Config(**values)


def endpoints(config: Config, quote: Callable[[str], str]) -> list[str]:
    """
    The endpoint strings to listen on; host and port are used when nothing else is given.

    Raises ConfigError when options of TLS do not go together.
    """
    if config.endpoint:
        return list(config.endpoint)
    tls = _tls_arguments(config, quote)
    strings = []
    if config.fd >= 0:
        strings.append(f"fd:{config.fd}")
    if config.uds:
        strings.append(f"unix:{quote(config.uds)}")
    if strings and tls:
        other = "--fd" if config.fd >= 0 else "--uds"
        raise ConfigError(f"--{tls[0]} is for --host and --port; what comes by {other} has no TLS")
    default = Config()
    if not strings or (config.host, config.port) != (default.host, default.port):
        arguments = "".join(f":{argument}" for argument in tls[1:])
        strings.append(f"{'ssl' if tls else 'tcp'}:{config.port}:interface={quote(config.host)}{arguments}")
    return strings


_REQUIREMENTS = {"0": "none", "1": "optional", "2": "required"}


def _tls_arguments(config: Config, quote: Callable[[str], str]) -> list[str]:
    """
    The option that asks for TLS, and the arguments of an ssl: endpoint; [] without TLS.
    """
    given = [name for name in _TLS_SUGAR if getattr(config, name) not in ("", "auto", False)]
    if not given:
        return []
    if config.dev_tls and (config.ssl_certfile or config.ssl_keyfile):
        raise ConfigError("--dev-tls makes a certificate itself: leave out --ssl-certfile and --ssl-keyfile")
    if not config.dev_tls and not config.ssl_certfile:
        raise ConfigError(f"--{given[0].replace('_', '-')} needs --ssl-certfile")
    arguments = {
        "privateKey": config.ssl_keyfile or config.ssl_certfile,
        "certKey": config.ssl_certfile,
        "keyPassword": f"pass:{config.ssl_keyfile_password}" if config.ssl_keyfile_password else "",
        "clientCA": config.ssl_ca_certs,
        "clientVerify": _REQUIREMENTS.get(config.ssl_cert_reqs, config.ssl_cert_reqs).replace("auto", ""),
        "ciphers": config.ssl_ciphers,
        "selfSigned": "yes" if config.dev_tls else "",
    }
    return [given[0].replace("_", "-"), *(f"{name}={quote(value)}" for name, value in arguments.items() if value)]


# Printing


def as_toml(config: Config, app: str | None) -> str:
    """
    The configuration as a file that gives it again.
    """
    lines = [f"app = {_toml(app)}"] if app else []
    for name, one in OPTIONS.items():
        value = getattr(config, name)
        if name == "fd" and value < 0:
            continue
        if (name in _SUGAR and config.endpoint) or (name == "endpoint" and not value):
            continue
        lines.append(f"{one.spelling} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    """
    A text, number, truth value or list as TOML, which is JSON but for what it escapes.
    """
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def shown(one: Option) -> str:
    """
    A default as a person writes it.
    """
    if one.kind == "flag":
        return "on" if one.default else "off"
    if one.kind == "seconds":
        return f"{one.default:g} s"
    if one.kind == "bytes":
        return f"{one.default // MIB} MiB" if one.default % MIB == 0 else f"{one.default // KIB} KiB"
    if one.kind in ("list", "field") or one.default in ("", -1):
        return "none"
    return str(one.default)


def reference() -> str:
    """
    docs/options.md.
    """
    lines = [
        "# Options",
        "",
        "Written by `python -m txasgi.config`; do not edit.",
        "",
        "Each option can be given on the command line, as an environment variable, or in a TOML file:",
        "`--config serve.toml`, or `[tool.txasgi]` in the `pyproject.toml` of the current directory.",
        "The first of these that has it wins.",
        "Times are seconds, or like `5m` and `1h30m`; sizes are bytes, or like `64k` and `16MiB`.",
        "In the environment the endpoints of `TXASGI_ENDPOINT` are separated by white space,",
        "the fields of `TXASGI_HEADER` by line ends.",
    ]
    for section, title in SECTIONS.items():
        lines += ["", f"## {title}"]
        for one in OPTIONS.values():
            if one.section == section:
                lines += ["", *_entry(one)]
    return "\n".join(lines) + "\n"


def _entry(one: Option) -> list[str]:
    spelling = f"--{one.spelling}"
    if one.kind == "flag":
        names = f"`{spelling}`, `--no-{one.spelling}`"
    else:
        value = "|".join(one.choices) or {"field": "NAME:VALUE", "list": "STRING"}.get(one.kind, one.kind.upper())
        names = ", ".join(f"`{name} {value}`" for name in (spelling, *one.flags))
    lines = [f"### {one.spelling}", "", f"{names}, `{one.variable}`", "", one.help, f"Default: {shown(one)}."]
    return [*lines, one.why] if one.why else lines


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201  # this is what it is run for
