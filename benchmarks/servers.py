"""
The servers under measurement: one table, a command line each, as a user would type it.

Every peer runs as one worker with what makes it fastest short of experiments: uvloop where it can,
the C or Rust parser, no access log, no protocol it is not asked for. Keep-alive and backlog are raised
where a default would close or refuse connections that a scenario holds open; that costs nothing per request.

Where no one choice is always fastest there are several command lines. All go through the rounds, the one with
the lowest median cost counts, and its name is printed with the result.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Door = Literal["http", "tls", "websocket", "h2", "h2-tls"]

TLS_DOORS: tuple[Door, ...] = ("tls", "h2-tls")
H2_DOORS: tuple[Door, ...] = ("h2", "h2-tls")

SUBJECT = "txasgi"


@dataclass(frozen=True, slots=True)
class CommandLine:
    """
    One way to start a server.

    text: words as in a shell, with {port}, {app}, {cert} and {key} left open. The first word is a
    program of the environment that the server is installed in.
    """

    name: str
    text: str

    def words(self, programs: Path, port: int, app: str, folder: Path) -> list[str]:
        """
        The argument list for one start; *folder* holds cert.pem and key.pem.
        """
        gaps = {"port": port, "app": app, "cert": folder / "cert.pem", "key": folder / "key.pem"}
        program, *rest = (word.format(**gaps) for word in shlex.split(self.text))
        return [str(programs / program), *rest]


@dataclass(frozen=True, slots=True)
class Server:
    """
    A server and its command lines for each door that a scenario knocks at. It takes no part where it has none.

    requirement: what pip installs; "." is this checkout.
    distribution: its name among the installed packages, for the version.
    beside: further packages whose versions belong in the report.
    """

    name: str
    requirement: str
    distribution: str
    doors: dict[Door, tuple[CommandLine, ...]]
    beside: tuple[str, ...] = ()


def lines(**texts: str) -> tuple[CommandLine, ...]:
    """
    Command lines from name=text, for the table below.
    """
    return tuple(CommandLine(name.replace("_", "-"), " ".join(text.split())) for name, text in texts.items())


UVICORN = """uvicorn --host 127.0.0.1 --port {port} --loop uvloop --http httptools --no-access-log
             --log-level warning --timeout-keep-alive 75 {app}"""

# Granian lets as many connections in at a time as --backpressure says, 1,024 unless told.
GRANIAN = """granian --host 127.0.0.1 --port {port} --interface asgi --workers 1 --runtime-threads 1
             --loop uvloop --http 1 --no-access-log --log-level warning
             --backlog 4096 --backpressure 4096 {app}"""
GRANIAN_TLS = " --ssl-certificate {cert} --ssl-keyfile {key}"
GRANIAN_H2 = GRANIAN.replace("--http 1", "--http 2")

# No uvloop: Daphne installs Twisted's reactor on asyncio's own loop and has no option for another.
DAPHNE = "daphne --verbosity 0 --endpoint {endpoint} {app}"

# Nought workers serve from the first process; one would be a second process that is waited for.
HYPERCORN = """hypercorn --bind 127.0.0.1:{port} --worker-class uvloop --workers 0 --log-level warning
               --backlog 4096 --keep-alive 75 {app}"""

# Hypercorn ends a connection after 1,000 requests unless told, which has no option on the command line. In HTTP/1.1
# a client just opens another one; in HTTP/2 it takes the requests that are on their way with it.
HYPERCORN_FILE = "hypercorn.toml"
HYPERCORN_SETTINGS = "keep_alive_max_requests = 1_000_000_000\n"
HYPERCORN_H2 = f"{HYPERCORN} --config {HYPERCORN_FILE}"
HYPERCORN_TLS = " --certfile {cert} --keyfile {key}"

TXASGI = "serve -e {endpoint} --no-access-log {app}"

TCP = "tcp:{port}:interface=127.0.0.1"
SSL = "ssl:{port}:interface=127.0.0.1:privateKey={key}:certKey={cert}"

# Twisted lets 50 connections wait unless told; more come at a time where each has a handshake of its own.
BACKLOG = ":backlog=4096"

SERVERS = (
    Server(
        name=SUBJECT,
        requirement=".",
        distribution="txasgi",
        beside=("twisted", "autobahn", "httptools", "ngh2", "uvloop", "pyOpenSSL"),
        doors={
            "http": lines(only=TXASGI.replace("{endpoint}", TCP)),
            "tls": lines(only=TXASGI.replace("{endpoint}", SSL)),
            "websocket": lines(only=TXASGI.replace("{endpoint}", TCP)),
            "h2": lines(only=TXASGI.replace("{endpoint}", TCP)),
            "h2-tls": lines(only=TXASGI.replace("{endpoint}", SSL)),
        },
    ),
    Server(
        name="uvicorn",
        requirement="uvicorn[standard]",
        distribution="uvicorn",
        beside=("httptools", "uvloop", "websockets", "wsproto"),
        doors={
            "http": lines(only=UVICORN + " --ws none"),
            "tls": lines(only=UVICORN + " --ws none --ssl-certfile {cert} --ssl-keyfile {key}"),
            "websocket": lines(
                websockets=UVICORN + " --ws websockets",
                websockets_sansio=UVICORN + " --ws websockets-sansio",
                wsproto=UVICORN + " --ws wsproto",
            ),
        },
    ),
    Server(
        name="granian",
        requirement="granian[uvloop]",
        distribution="granian",
        beside=("uvloop",),
        doors={
            "http": lines(
                st=GRANIAN + " --no-ws --runtime-mode st",
                mt=GRANIAN + " --no-ws --runtime-mode mt",
            ),
            "tls": lines(
                st=GRANIAN + " --no-ws --runtime-mode st" + GRANIAN_TLS,
                mt=GRANIAN + " --no-ws --runtime-mode mt" + GRANIAN_TLS,
            ),
            "websocket": lines(
                st=GRANIAN + " --ws --runtime-mode st",
                mt=GRANIAN + " --ws --runtime-mode mt",
            ),
            "h2": lines(
                st=GRANIAN_H2 + " --no-ws --runtime-mode st",
                mt=GRANIAN_H2 + " --no-ws --runtime-mode mt",
            ),
            "h2-tls": lines(
                st=GRANIAN_H2 + " --no-ws --runtime-mode st" + GRANIAN_TLS,
                mt=GRANIAN_H2 + " --no-ws --runtime-mode mt" + GRANIAN_TLS,
            ),
        },
    ),
    Server(
        name="daphne",
        requirement="daphne",
        distribution="daphne",
        beside=("twisted", "autobahn", "h2", "priority"),
        doors={
            "http": lines(only=DAPHNE.replace("{endpoint}", TCP)),
            "tls": lines(only=DAPHNE.replace("{endpoint}", SSL + BACKLOG)),
            "websocket": lines(only=DAPHNE.replace("{endpoint}", TCP)),
            # Twisted has HTTP/2 where h2 and priority are installed, and Hypercorn brings them; never in cleartext.
            "h2-tls": lines(only=DAPHNE.replace("{endpoint}", SSL + BACKLOG)),
        },
    ),
    Server(
        name="hypercorn",
        requirement="hypercorn",
        distribution="hypercorn",
        beside=("h11", "h2", "wsproto", "uvloop"),
        doors={
            "http": lines(only=HYPERCORN),
            "tls": lines(only=HYPERCORN + HYPERCORN_TLS),
            "websocket": lines(only=HYPERCORN),
            "h2": lines(only=HYPERCORN_H2),
            "h2-tls": lines(only=HYPERCORN_H2 + HYPERCORN_TLS),
        },
    ),
)

# More for the peers' environment: one of Uvicorn's WebSocket choices, and Hypercorn's loop.
PEER_EXTRAS = ("wsproto", "uvloop")
