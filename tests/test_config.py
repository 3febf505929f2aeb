"""
The options: where they come from, which source wins, what is refused and how that is said.
"""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from txasgi import config as configuration
from txasgi.config import OPTIONS, SECTIONS, Config, header_field, merged
from txasgi.errors import ConfigError
from txasgi.net.endpoints import quote
from txasgi.serve import cli

ROOT = Path(__file__).parent.parent

# For each option: arguments, the variable's text, TOML, and the value that all of them mean; never the default.
SAMPLES: dict[str, tuple[list[str], str, str, Any]] = {
    "endpoint": (["-e", "tcp:1", "--endpoint", "unix:/a b"], "tcp:1\n  unix:/ab", '["tcp:1", "unix:/a b"]', None),
    "host": (["--host", "::1"], "::1", '"::1"', "::1"),
    "port": (["--port", "81"], "81", "81", 81),
    "uds": (["--uds", "/run/a.sock"], "/run/a.sock", '"/run/a.sock"', "/run/a.sock"),
    "fd": (["--fd", "3"], "3", "3", 3),
    "backlog": (["--backlog", "64"], "64", "64", 64),
    "reuse_port": (["--reuse-port"], "yes", "true", True),
    "ssl_certfile": (["--ssl-certfile", "a.pem"], "a.pem", '"a.pem"', "a.pem"),
    "ssl_keyfile": (["--ssl-keyfile", "a.key"], "a.key", '"a.key"', "a.key"),
    "ssl_keyfile_password": (["--ssl-keyfile-password", "a:b"], "a:b", '"a:b"', "a:b"),
    "ssl_ca_certs": (["--ssl-ca-certs", "ca.pem"], "ca.pem", '"ca.pem"', "ca.pem"),
    "ssl_cert_reqs": (["--ssl-cert-reqs", "optional"], "optional", '"optional"', "optional"),
    "ssl_ciphers": (["--ssl-ciphers", "ECDHE+AESGCM"], "ECDHE+AESGCM", '"ECDHE+AESGCM"', "ECDHE+AESGCM"),
    "dev_tls": (["--dev-tls"], "yes", "true", True),
    "tls_extension": (["--tls-extension"], "yes", "true", True),
    "factory": (["--factory"], "1", "true", True),
    "app_dir": (["--app-dir", "src"], "src", '"src"', "src"),
    "interface": (["--interface", "asgi2"], "asgi2", '"asgi2"', "asgi2"),
    "root_path": (["--root-path", "/api"], "/api", '"/api"', "/api"),
    "lifespan": (["--lifespan", "off"], "off", '"off"', "off"),
    "env_file": (["--env-file", ".env"], ".env", '".env"', ".env"),
    "http": (["--http", "2"], "2", "2", "2"),
    "h2_max_concurrent_streams": (["--h2-max-concurrent-streams", "7"], "7", "7", 7),
    "h2_initial_window_size": (["--h2-initial-window-size", "64k"], "64k", '"64k"', 65536),
    "h2_connection_window_size": (["--h2-connection-window-size", "1MiB"], "1MiB", '"1MiB"', 1048576),
    "h2_max_frame_size": (["--h2-max-frame-size", "32k"], "32k", '"32k"', 32768),
    "h2_max_header_list_size": (["--h2-max-header-list-size", "9000"], "9000", "9000", 9000),
    "h2_header_table_size": (["--h2-header-table-size", "0"], "0", "0", 0),
    "server_header": (["--no-server-header"], "no", "false", False),
    "date_header": (["--no-date-header"], "off", "false", False),
    "header": (["--header", "A: 1", "--header", "b:2"], "A: 1\nb:2\n", '["A: 1", "b:2"]', ["A: 1", "b:2"]),
    "ws_max_size": (["--ws-max-size", "64k"], "64k", '"64k"', 65536),
    "ws_max_queue": (["--ws-max-queue", "5"], "5", "5", 5),
    "ws_ping_interval": (["--ws-ping-interval", "1m"], "1m", '"1m"', 60.0),
    "ws_ping_timeout": (["--ws-ping-timeout", "0"], "0", "0", 0.0),
    "ws_per_message_deflate": (["--no-ws-per-message-deflate"], "false", "false", False),
    "timeout_keep_alive": (["--timeout-keep-alive", "75"], "75", "75", 75.0),
    "timeout_graceful_shutdown": (["--timeout-graceful-shutdown", "0.5"], "0.5", "0.5", 0.5),
    "disconnect_grace": (["--disconnect-grace", "1s"], "1s", '"1s"', 1.0),
    "log_level": (["--log-level", "debug"], "debug", '"debug"', "debug"),
    "access_log": (["--no-access-log"], "0", "false", False),
    "loop": (["--loop", "asyncio"], "asyncio", '"asyncio"', "asyncio"),
}
# What an endpoint string says itself.
SUGAR = ["host", "port", "uds", "fd", "dev_tls", *(name for name in OPTIONS if name.startswith("ssl_"))]
SHORT = {"-e": "endpoint", "-b": "host", "--bind": "host", "-p": "port", "-u": "uds"}

Command = Callable[..., str]


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    A directory without a pyproject.toml, and an environment without options.
    """
    monkeypatch.chdir(tmp_path)
    for name in ("CONFIG", "APP", *(name.upper() for name in OPTIONS)):
        monkeypatch.delenv(f"TXASGI_{name}", raising=False)
    return tmp_path


@pytest.fixture
def serve(capsys: pytest.CaptureFixture[str]) -> Command:
    """
    The command with --print-config: what it prints. An error is raised as AssertionError with its status and line.
    """

    def call(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main([*arguments, "--print-config"])
        out, err = capsys.readouterr()
        if ended.value.code != 0:
            assert out == ""
            assert err.count("\n") == 1
            raise AssertionError(f"{ended.value.code} {err.strip()}")
        assert err == ""
        return out

    return call


@pytest.fixture
def options(serve: Command) -> Callable[..., Config]:
    """
    The configuration that arguments, environment and files of the moment make.
    """
    return lambda *arguments: read_back(serve(*arguments))[0]


def read_back(toml: str) -> tuple[Config, str | None]:
    table = configuration.from_table(tomllib.loads(toml), "printed")
    return merged([table]), table.get("app")


def refusal(work: Callable[[], Any]) -> str:
    with pytest.raises((ConfigError, AssertionError)) as caught:
        work()
    return str(caught.value).removeprefix("2 serve: ")


# Every option, from every source


def test_each_option_has_a_sample() -> None:
    """
    The samples of these tests are of all options there are, and none is a default.
    """
    assert set(SAMPLES) == set(OPTIONS)
    assert [name for name, sample in SAMPLES.items() if sample[3] == getattr(Config(), name)] == []


def test_each_option_is_described_once() -> None:
    """
    Each option has a section, a help text that is a sentence, and spellings of its own.
    """
    spellings = Counter(flag for one in OPTIONS.values() for flag in (f"--{one.spelling}", *one.flags))
    assert max(spellings.values()) == 1
    for one in OPTIONS.values():
        assert one.section in SECTIONS
        assert one.help.endswith(".") and "\n" not in one.help
        assert one.variable == f"TXASGI_{one.name.upper()}"
        assert one.spelling == one.name.replace("_", "-")
    assert set(SECTIONS) == {one.section for one in OPTIONS.values()}


def expected(name: str, source: str) -> Any:
    value = SAMPLES[name][3]
    if value is None:
        # White space separates endpoints in the environment, so there a path cannot have any.
        value = ["tcp:1", "unix:/ab"] if source == "environment" else ["tcp:1", "unix:/a b"]
    return value


@pytest.mark.parametrize("name", SAMPLES)
def test_command_line(name: str, options: Callable[..., Config]) -> None:
    """
    Each option can be given on the command line.
    """
    assert getattr(options(*SAMPLES[name][0]), name) == expected(name, "line")


@pytest.mark.parametrize("name", SAMPLES)
def test_environment(name: str, options: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Each option can be given as TXASGI_NAME.
    """
    monkeypatch.setenv(OPTIONS[name].variable, SAMPLES[name][1])
    assert getattr(options(), name) == expected(name, "environment")


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("dash", ["-", "_"])
def test_file(name: str, dash: str, options: Callable[..., Config], tmp_path: Path) -> None:
    """
    Each option can be given in a TOML file, with dashes or underscores.
    """
    (tmp_path / "serve.toml").write_text(f"{name.replace('_', dash)} = {SAMPLES[name][2]}\n")
    assert getattr(options("--config", "serve.toml"), name) == expected(name, "file")


@pytest.mark.parametrize("name", SAMPLES)
def test_pyproject(name: str, options: Callable[..., Config], tmp_path: Path) -> None:
    """
    Each option can be given below [tool.txasgi] in the pyproject.toml of the current directory.
    """
    text = f"[project]\nname = 'a'\n[tool.txasgi]\n{OPTIONS[name].spelling} = {SAMPLES[name][2]}\n"
    (tmp_path / "pyproject.toml").write_text(text)
    assert getattr(options(), name) == expected(name, "file")


@pytest.mark.parametrize(("flag", "name"), SHORT.items())
def test_short_spellings(flag: str, name: str, options: Callable[..., Config]) -> None:
    """
    The spellings of Uvicorn and Daphne mean the same.
    """
    value = SAMPLES[name][0][1]
    assert getattr(options(flag, value), name) == ([value] if name == "endpoint" else expected(name, "line"))


@pytest.mark.parametrize("name", [name for name, one in OPTIONS.items() if one.kind == "flag"])
def test_a_flag_can_be_set_both_ways(
    name: str, options: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    --name and --no-name on the command line, yes and no elsewhere, whatever the default is.
    """
    spelling = OPTIONS[name].spelling
    assert getattr(options(f"--{spelling}"), name) is True
    assert getattr(options(f"--no-{spelling}"), name) is False
    for text, value in {
        "1": True,
        "TRUE": True,
        "Yes": True,
        "on": True,
        "0": False,
        "no": False,
        "OFF": False,
    }.items():
        monkeypatch.setenv(OPTIONS[name].variable, text)
        assert getattr(options(), name) is value


def test_nothing_given(options: Callable[..., Config]) -> None:
    """
    Without any option, the defaults are what is served with.
    """
    assert options() == Config() == merged([]) == merged([{}, {}])


# Which source wins


@pytest.mark.parametrize("name", SAMPLES)
def test_precedence(name: str, options: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The command line wins over the environment, that over the file, and that over the default.
    """
    one = OPTIONS[name]
    default = getattr(Config(), name)
    back = {"list": '["tcp:9"]', "field": '["x: 9"]', "flag": json.dumps(default)}.get(one.kind, SAMPLES[name][2])
    (tmp_path / "serve.toml").write_text(f"{name} = {back}\n")
    from_file = getattr(options("--config", "serve.toml"), name)
    assert from_file == {"list": ["tcp:9"], "field": ["x: 9"], "flag": default}.get(one.kind, SAMPLES[name][3])

    in_environment = {"port": "82", "host": "::2", "uds": "/u2", "fd": "4"}.get(name, SAMPLES[name][1])
    monkeypatch.setenv(one.variable, in_environment)
    assert getattr(options("--config", "serve.toml"), name) == configuration.parse(one, in_environment, "")

    line = options("--config", "serve.toml", *SAMPLES[name][0])
    assert getattr(line, name) == expected(name, "line")
    if one.kind == "flag":
        spelling = f"--{'' if default else 'no-'}{one.spelling}"
        assert getattr(options("--config", "serve.toml", spelling), name) is default


def test_precedence_is_per_option(
    options: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    An option that the stronger source does not have is taken from the weaker one.
    """
    (tmp_path / "pyproject.toml").write_text('[tool.txasgi]\nport = 1\nbacklog = 1\nlog-level = "error"\n')
    monkeypatch.setenv("TXASGI_BACKLOG", "2")
    monkeypatch.setenv("TXASGI_LOG_LEVEL", "warning")
    found = options("--log-level", "debug")
    assert (found.port, found.backlog, found.log_level) == (1, 2, "debug")


def test_which_file(serve: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    --config is taken rather than TXASGI_CONFIG, and that rather than pyproject.toml; never two of them.
    """
    for place, name in enumerate(("pyproject.toml", "environment.toml", "line.toml"), 1):
        table = "[tool.txasgi]\n" if name == "pyproject.toml" else ""
        (tmp_path / name).write_text(f"{table}port = {place}\nbacklog = {place}\n")
    (tmp_path / "line.toml").write_text("port = 3\n")

    assert "port = 1\nuds" in serve()
    monkeypatch.setenv("TXASGI_CONFIG", "environment.toml")
    assert "port = 2\nuds" in serve()
    printed = serve("--config", "line.toml")
    assert "port = 3\nuds" in printed and "backlog = 2048\n" in printed


@pytest.mark.parametrize(
    "text",
    ["", "[project]\nname = 'a'\n", "[tool.ruff]\nport = 3\n", "[tool.txasgi-other]\nport = 3\n", "not TOML"],
)
def test_pyproject_of_others(text: str, options: Callable[..., Config], tmp_path: Path) -> None:
    """
    A pyproject.toml that says nothing of txasgi is none of our business, whatever it holds.
    """
    (tmp_path / "pyproject.toml").write_text(text)
    assert options() == Config()


def test_application(serve: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The application can be named in the file, in TXASGI_APP and on the command line; the last of these wins.
    """
    assert read_back(serve())[1] is None
    (tmp_path / "pyproject.toml").write_text('[tool.txasgi]\napp = "file:app"\n')
    assert read_back(serve())[1] == "file:app"
    monkeypatch.setenv("TXASGI_APP", "environment:app")
    assert read_back(serve())[1] == "environment:app"
    assert read_back(serve("line:app"))[1] == "line:app"


# Where to listen: endpoints, or host, port, uds and fd


@pytest.mark.parametrize("name", ["host", "port", "uds", "fd"])
@pytest.mark.parametrize("source", ["line", "environment", "file", "program"])
def test_endpoint_excludes(
    name: str, source: str, serve: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Within one source, an endpoint and another way to say where to listen exclude each other.
    """
    from txasgi.serve.running import make_config

    arguments, text, toml, value = SAMPLES[name]
    if source == "line":
        said = refusal(lambda: serve("-e", "tcp:1", *arguments))
    elif source == "environment":
        monkeypatch.setenv("TXASGI_ENDPOINT", "tcp:1")
        monkeypatch.setenv(OPTIONS[name].variable, text)
        said = refusal(serve)
    elif source == "file":
        (tmp_path / "serve.toml").write_text(f'endpoint = ["tcp:1"]\n{name} = {toml}\n')
        said = refusal(lambda: serve("--config", "serve.toml"))
    else:
        said = refusal(lambda: make_config({"endpoint": ["tcp:1"], name: value}))
    assert "endpoint" in said and name in said and "exclude" in said


def test_stronger_source_takes_away(
    options: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Where to listen is said anew by a stronger source, in whichever way it says it.
    """
    (tmp_path / "serve.toml").write_text('host = "::1"\nport = 1\nuds = "/a"\nfd = 3\n')
    found = options("--config", "serve.toml", "-e", "tcp:2")
    assert configuration.endpoints(found, quote) == ["tcp:2"]
    assert (found.host, found.port, found.uds, found.fd) == ("127.0.0.1", 8000, "", -1)

    monkeypatch.setenv("TXASGI_ENDPOINT", "tcp:3")
    assert configuration.endpoints(options("--config", "serve.toml"), quote) == ["tcp:3"]
    found = options("--config", "serve.toml", "--port", "4")
    assert configuration.endpoints(found, quote) == ["tcp:4:interface=127.0.0.1"]

    (tmp_path / "serve.toml").write_text('endpoint = ["tcp:5", "tcp:6"]\n')
    monkeypatch.delenv("TXASGI_ENDPOINT")
    assert options("--config", "serve.toml").endpoint == ["tcp:5", "tcp:6"]
    assert options("--config", "serve.toml", "-e", "tcp:7").endpoint == ["tcp:7"]
    monkeypatch.setenv("TXASGI_UDS", "/b")
    assert configuration.endpoints(options("--config", "serve.toml"), quote) == ["unix:/b"]


@pytest.mark.parametrize(
    ("given", "strings"),
    [
        ({}, ["tcp:8000:interface=127.0.0.1"]),
        ({"port": 0}, ["tcp:0:interface=127.0.0.1"]),
        ({"host": "0.0.0.0", "port": 80}, ["tcp:80:interface=0.0.0.0"]),
        ({"host": "::1"}, [r"tcp:8000:interface=\:\:1"]),
        ({"uds": "/run/a:b=c.sock"}, [r"unix:/run/a\:b\=c.sock"]),
        ({"uds": "/a", "port": 1}, ["unix:/a", "tcp:1:interface=127.0.0.1"]),
        ({"fd": 3}, ["fd:3"]),
        ({"fd": 0, "uds": "/a"}, ["fd:0", "unix:/a"]),
        ({"endpoint": ["tcp:1", "tcp:2"]}, ["tcp:1", "tcp:2"]),
        ({"ssl_certfile": "a.pem"}, [r"ssl:8000:interface=127.0.0.1:privateKey=a.pem:certKey=a.pem"]),
        (
            {"ssl_certfile": "a.pem", "ssl_keyfile": "a:b", "ssl_keyfile_password": "x:y", "port": 1},
            [r"ssl:1:interface=127.0.0.1:privateKey=a\:b:certKey=a.pem:keyPassword=pass\:x\:y"],
        ),
        (
            {"ssl_certfile": "a", "ssl_ca_certs": "c", "ssl_cert_reqs": "1", "ssl_ciphers": "X:Y", "host": "::1"},
            [
                r"ssl:8000:interface=\:\:1:privateKey=a:certKey=a:clientCA=c:clientVerify=optional:ciphers=X\:Y",
            ],
        ),
        ({"dev_tls": True}, ["ssl:8000:interface=127.0.0.1:selfSigned=yes"]),
    ],
)
def test_endpoints(given: dict[str, Any], strings: list[str]) -> None:
    """
    Host, port, uds and fd are short for endpoint strings; a socket that is named takes the place of the default port.
    """
    assert configuration.endpoints(merged([given]), quote) == strings


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"ssl_keyfile": "a"}, "--ssl-keyfile needs --ssl-certfile"),
        ({"ssl_ca_certs": "a"}, "--ssl-ca-certs needs --ssl-certfile"),
        ({"ssl_certfile": "a", "uds": "/a"}, "--uds"),
        ({"dev_tls": True, "fd": 3}, "--fd"),
        ({"dev_tls": True, "ssl_certfile": "a"}, "--dev-tls"),
    ],
)
def test_tls_options_that_do_not_go_together(given: dict[str, Any], named: str) -> None:
    """
    Options of TLS that contradict each other, or have nothing to apply to, are named.
    """
    with pytest.raises(ConfigError, match=named):
        configuration.endpoints(merged([given]), quote)


# What is refused, and how


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("prot", "(did you mean port?)"),
        ("acess-log", "(did you mean access-log?)"),
        ("timeout_keepalive", "(did you mean timeout-keep-alive?)"),
        ("application", ""),
        ("xyzzy", ""),
    ],
)
def test_unknown_key(key: str, hint: str, serve: Command, tmp_path: Path) -> None:
    """
    An unknown key in a file is refused with the file, the key and what may have been meant.
    """
    (tmp_path / "serve.toml").write_text(f"{key} = 1\n")
    said = refusal(lambda: serve("--config", "serve.toml"))
    if hint or key == "xyzzy":
        assert said == f"serve.toml: unknown option {key!r}" + (f" {hint}" if hint else "")
    else:
        assert said.startswith(f"serve.toml: unknown option {key!r}")


BAD = [
    ("port", "abc", "a whole number"),
    ("port", "65536", "65535"),
    ("port", "-1", "a whole number"),
    ("port", "80.5", "a whole number"),
    ("port", "", "a whole number"),
    ("fd", "x", "a whole number"),
    ("backlog", "0", "at least 1"),
    ("ws_max_queue", "0", "at least 1"),
    ("ws_max_size", "0", "at least 1"),
    ("ws_max_size", "16 apples", "a size"),
    ("ws_max_size", "-1", "a size"),
    ("ws_max_size", "9" * 400, ""),
    ("timeout_keep_alive", "soon", "a time"),
    ("timeout_keep_alive", "-1", "a time"),
    ("timeout_keep_alive", "", "a time"),
    ("timeout_keep_alive", "nan", "a time"),
    ("timeout_keep_alive", "inf", "a time"),
    ("timeout_keep_alive", "5 m 3", "a time"),
    ("timeout_keep_alive", "9" * 400, ""),
    ("log_level", "loud", "one of critical, error, warning, info, debug"),
    ("interface", "wsgi", "one of auto, asgi3, asgi2"),
    ("lifespan", "yes", "one of auto, on, off"),
    ("loop", "trio", "one of auto, uvloop, asyncio"),
    ("header", "no colon", "NAME:VALUE"),
]


@pytest.mark.parametrize(("name", "value", "what"), BAD, ids=[f"{name}={value[:20]}" for name, value, _ in BAD])
@pytest.mark.parametrize("source", ["line", "environment", "file", "program"])
def test_bad_value(
    source: str,
    name: str,
    value: str,
    what: str,
    serve: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A bad value is refused in one line with its source, its option, what was expected and what came.
    """
    from txasgi.serve.running import make_config

    one = OPTIONS[name]
    if source == "line":
        said, begin = refusal(lambda: serve(f"--{one.spelling}={value}")), f"--{one.spelling}: expected "
    elif source == "environment":
        monkeypatch.setenv(one.variable, value)
        said, begin = refusal(serve), f"{one.variable}: expected "
    elif source == "file":
        (tmp_path / "serve.toml").write_text(f"{one.spelling} = {json.dumps(value)}\n")
        said, begin = refusal(lambda: serve("--config", "serve.toml")), f"serve.toml: {one.spelling}: expected "
    else:
        said, begin = refusal(lambda: make_config({name: value})), f"{name}: expected "
    assert said.startswith(begin)
    assert what in said
    assert value in said


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("value", ["1979-05-27", "[1, 2]", "{ a = 1 }", "nan"])
def test_value_of_another_type(name: str, value: str, serve: Command, tmp_path: Path) -> None:
    """
    A value of a type that no option has is refused, for every option.
    """
    (tmp_path / "serve.toml").write_text(f"{name} = {value}\n")
    assert refusal(lambda: serve("--config", "serve.toml")).startswith(f"serve.toml: {name}: expected ")


@pytest.mark.parametrize("name", [name for name, one in OPTIONS.items() if one.kind in ("number", "seconds", "bytes")])
def test_true_is_no_number(name: str, serve: Command, tmp_path: Path) -> None:
    """
    TOML's true is not the number 1.
    """
    (tmp_path / "serve.toml").write_text(f"{name} = true\n")
    assert refusal(lambda: serve("--config", "serve.toml")).startswith(f"serve.toml: {name}: expected ")


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("missing.toml", None, "No such file"),
        ("bad.toml", b"port = ", "Invalid value"),
        ("latin.toml", b'root-path = "/\xe9"', "utf-8"),
        ("folder", "folder", "Is a directory"),
        ("app.toml", b"app = 3", "app"),
        ("pyproject.toml", b"tool = 3", "tool"),
        ("pyproject.toml", b"[tool]\ntxasgi = 3", "tool"),
        ("pyproject.toml", b"[[tool.txasgi]]\nport = 3", "tool"),
    ],
)
def test_bad_file(name: str, text: Any, what: str, serve: Command, tmp_path: Path) -> None:
    """
    A file that cannot be read, or is not a table of options, is refused with its name.
    """
    if text == "folder":
        (tmp_path / name).mkdir()
    elif text is not None:
        (tmp_path / name).write_bytes(text)
    said = refusal(lambda: serve("--config", name))
    assert said.startswith(name) and what in said


def test_bad_value_in_pyproject(serve: Command, tmp_path: Path) -> None:
    """
    What is wrong in a pyproject.toml is said with its table.
    """
    (tmp_path / "pyproject.toml").write_text("[tool.txasgi]\nport = 'x'\n")
    assert "pyproject.toml [tool.txasgi]: port: expected" in refusal(serve)


# Times, sizes and fields


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (30, 30), (0, 0), (1.5, 1.5), ("30", 30), ("1.5s", 1.5), ("0.25", 0.25), ("5m", 300), ("1h", 3600),
        ("1h30m", 5400), ("1h30m5s", 5405), ("2m30", 150), (" 3s ", 3),
    ],
)  # fmt: skip
def test_times(given: Any, seconds: float) -> None:
    """
    Times are seconds, or hours, minutes and seconds with their letters.
    """
    assert configuration.parse(OPTIONS["timeout_keep_alive"], given, "") == seconds


@pytest.mark.parametrize(
    ("given", "size"),
    [
        (65536, 65536), ("65536", 65536), ("1b", 1), ("64k", 65536), ("64K", 65536), ("64kb", 65536), ("64KiB", 65536),
        ("16MiB", 16777216), ("1m", 1048576), ("1.5m", 1572864), ("1 g", 1 << 30), ("1GB", 1 << 30), ("2gib", 2 << 30),
    ],
)  # fmt: skip
def test_sizes(given: Any, size: int) -> None:
    """
    Sizes are bytes, or with a unit; units are powers of two.
    """
    assert configuration.parse(OPTIONS["ws_max_size"], given, "") == size


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("X-Frame-Options: DENY", (b"x-frame-options", b"DENY")),
        ("a:b", (b"a", b"b")),
        ("A: b: c", (b"a", b"b: c")),
        (" a \t:\t b ", (b"a", b"b")),
        ("empty:", (b"empty", b"")),
        ("latin: \xe9", (b"latin", b"\xe9")),
        ("tab: a\tb", (b"tab", b"a\tb")),
    ],
)
def test_field(line: str, field: tuple[bytes, bytes]) -> None:
    """
    A field is NAME:VALUE; the name is sent in lower case, the value without white space around it.
    """
    assert header_field(line) == field


@pytest.mark.parametrize(
    "line",
    ["", ":", ":value", "name", "na me: x", "n\xe4me: x", "a(b): x", "name: a\0b", "name: a\nb: c", "name: a\rb",
     "name: \x7f", "name: \u20ac", "na\nme: x"],
)  # fmt: skip
@pytest.mark.parametrize("source", ["line", "file", "program"])
def test_bad_field(source: str, line: str, serve: Command, tmp_path: Path) -> None:
    """
    A field that could not be sent, or that would end its line, is refused from each source.
    """
    from txasgi.serve.running import make_config

    if source == "line":
        said = refusal(lambda: serve("--header", line))
    elif source == "file":
        (tmp_path / "serve.toml").write_text(f"header = [{json.dumps(line)}]".replace("\x7f", "\\u007f"))
        said = refusal(lambda: serve("--config", "serve.toml"))
    else:
        said = refusal(lambda: make_config({"header": [line]}))
    assert "header: expected NAME:VALUE" in said


@pytest.mark.parametrize(
    "name",
    ["Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Upgrade", "Proxy-Connection"],
)
def test_field_of_the_framing(name: str, serve: Command) -> None:
    """
    A field that frames the message is not the operator's to set: on each answer it would split the next ones.
    """
    assert name.lower() in refusal(lambda: serve("--header", f"{name}: 5")).lower()


# What is printed


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["app:app", "-e", "tcp:1", "-e", r"unix:/a\:b"],
        ["app:app", "--uds", '/run/"quoted".sock', "--port", "1"],
        ["--fd", "0"],
        ["--header", "a: \xe9\t'\"\\", "--header", "b: #"],
        ["--root-path", "/\x7f\U0001f600\u20ac", "--app-dir", "a\nb"],
        [argument for name, sample in SAMPLES.items() if name != "endpoint" for argument in sample[0]],
    ],
)
def test_print_config_can_be_read_back(arguments: list[str], serve: Command, tmp_path: Path) -> None:
    """
    What --print-config prints is a file that means the same.
    """
    printed = serve(*arguments)
    (tmp_path / "printed.toml").write_text(printed, encoding="utf-8")
    assert serve("--config", "printed.toml") == printed
    assert read_back(printed)[1] == (arguments[0] if arguments[:1] == ["app:app"] else None)


# Whatever an argument can hold: no NUL, no lone surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
# Between what RFC 9113 asks for at least and allows at most, for all of them.
WINDOWS = st.integers(65535, (1 << 24) - 1)
KINDS = {
    "text": TEXT,
    "path": TEXT,
    "number": st.integers(1, 65535),
    "seconds": st.floats(0, 1e9, exclude_max=True),
    "bytes": st.integers(1, 1 << 60),
    "flag": st.booleans(),
    "list": st.lists(TEXT, max_size=3),
    "field": st.lists(st.builds("x-{}: {}".format, st.integers(), st.text("a\xe9\"'\\#=\t ")), max_size=3),
}


@st.composite
def configs(draw: st.DrawFn) -> Config:
    values = {
        name: draw(
            st.sampled_from(one.choices) if one.choices else WINDOWS if name.startswith("h2_") else KINDS[one.kind]
        )
        for name, one in OPTIONS.items()
    }
    if values["endpoint"]:
        for name in SUGAR:
            del values[name]
    return Config(**values)


@given(configs(), st.none() | TEXT.filter(bool))
@settings(derandomize=True, deadline=None, max_examples=200)
def test_any_config_as_toml(config: Config, app: str | None) -> None:
    """
    Any configuration can be written as TOML and read back.
    """
    assert read_back(configuration.as_toml(config, app)) == (config, app)


def test_reference_is_up_to_date() -> None:
    """
    docs/options.md is what `python -m txasgi.config` prints.
    """
    path = ROOT / "docs" / "options.md"
    written = path.read_text(encoding="utf-8") if path.exists() else ""
    assert written == configuration.reference(), "run: python -m txasgi.config > docs/options.md"


def test_reference_has_each_option() -> None:
    """
    The reference has each option once, with its spellings, its variable, its help and its default.
    """
    entries = {entry.split("\n")[0]: entry for entry in configuration.reference().split("\n### ")[1:]}
    assert list(entries) == [one.spelling for s in SECTIONS for one in OPTIONS.values() if one.section == s]
    for one in OPTIONS.values():
        entry = entries[one.spelling]
        for part in (f"`--{one.spelling}", f"`{one.variable}`", one.help, f"Default: {configuration.shown(one)}."):
            assert part in entry
        for flag in one.flags:
            assert f"`{flag} " in entry
