"""
Where log lines go, and what they look like.
"""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Iterator

import pytest

from txasgi.observe import log

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}"
NAMES = ("txasgi", "txasgi.access", "txasgi.error", "twisted")


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """
    Loggers as in a fresh process, and as they were before when the test is over.
    """
    for name in NAMES:
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "handlers", [])
        monkeypatch.setattr(logger, "propagate", True)
        monkeypatch.setattr(logger, "level", logging.NOTSET)
    # Twisted's side is for a process of its own: tests/serve/test_logs.py.
    monkeypatch.setattr(log, "_observing", object())
    yield
    for name in NAMES:
        # setLevel() also forgets which levels were found enabled.
        logging.getLogger(name).setLevel(logging.NOTSET)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_two_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What the server says goes to standard error, with its level; the access log to standard output, without.
    """
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    log.configure("info")
    logging.getLogger("txasgi").info("begun %d", 1)
    logging.getLogger("txasgi.error").error("failed")
    logging.getLogger("txasgi.access").info("asked")
    logging.getLogger("txasgi").debug("a detail")
    assert re.fullmatch(rf"{TIME} asked\n", out.getvalue())
    assert re.fullmatch(rf"{TIME} INFO     begun 1\n{TIME} ERROR    failed\n", err.getvalue())


def test_configured_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Configuring again changes the level and doubles no line.
    """
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    log.configure("info")
    log.configure("warning")
    logging.getLogger("txasgi").info("quiet")
    logging.getLogger("txasgi").warning("once")
    assert err.getvalue().count("\n") == 1 and "once" in err.getvalue()


def test_program_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A logger that the program has configured keeps the program's handlers, and nothing is written beside them.
    """
    out, err, own = io.StringIO(), io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    for name in ("txasgi", "txasgi.access"):
        logging.getLogger(name).addHandler(logging.StreamHandler(own))
        logging.getLogger(name).propagate = False
    log.configure("info")
    logging.getLogger("txasgi").info("begun")
    logging.getLogger("txasgi.access").info("asked")
    assert own.getvalue() == "begun\nasked\n"
    assert (out.getvalue(), err.getvalue()) == ("", "")


@pytest.mark.parametrize("level", log.LEVELS)
def test_levels(level: str) -> None:
    """
    Each level that can be chosen is one of the standard library's, and Twisted is never louder than warning.
    """
    log.configure(level)
    number = logging.getLevelNamesMapping()[level.upper()]
    assert logging.getLogger("txasgi").level == logging.getLogger("txasgi.access").level == number
    assert logging.getLogger("twisted").level == max(number, logging.WARNING)


def line(stream: io.StringIO, level: int, text: str, **extra: object) -> str:
    """
    What is written to a stream.
    """
    writer = log._to(stream, level=True)
    record = logging.LogRecord("txasgi", level, __file__, 1, text, (), None)
    record.__dict__.update(extra)
    writer.emit(record)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("level", "status", "colour"),
    [
        (logging.DEBUG, 0, "36"),
        (logging.INFO, 0, "32"),
        (logging.WARNING, 0, "33"),
        (logging.ERROR, 0, "31"),
        (logging.CRITICAL, 0, "1;31"),
        (logging.INFO, 200, "32"),
        (logging.INFO, 301, "36"),
        (logging.INFO, 404, "33"),
        (logging.INFO, 500, "31"),
    ],
)
def test_colours(level: int, status: int, colour: str) -> None:
    """
    On a terminal a line has the colour of its status, or of its level.
    """
    assert re.fullmatch(rf"\x1b\[{colour}m[^\x1b]* a line\x1b\[0m\n", line(Terminal(), level, "a line", status=status))
    assert "\x1b" not in line(io.StringIO(), level, "a line", status=status)


def test_first_line_alone_is_coloured() -> None:
    """
    A traceback below a line has no colour.
    """
    assert line(Terminal(), logging.ERROR, "a fault\nTraceback").endswith(" a fault\x1b[0m\nTraceback\n")


def test_twisted_log_that_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where Twisted's log has begun already, as under twistd, it is left alone: what we write may end up in it.
    """
    import twisted.logger

    publisher = twisted.logger.LogPublisher()
    heard: list[logging.LogRecord] = []
    monkeypatch.setattr(log, "_observing", None)
    monkeypatch.setattr(twisted.logger, "globalLogPublisher", publisher)
    monkeypatch.setattr(twisted.logger, "globalLogBeginner", object())
    logging.getLogger("twisted").addHandler(Recorder(heard))
    log.configure("info")
    somewhere = twisted.logger.Logger("somewhere", observer=publisher)
    somewhere.emit(twisted.logger.LogLevel.warn, "loud")
    assert heard == []


class Recorder(logging.Handler):
    def __init__(self, heard: list[logging.LogRecord]) -> None:
        super().__init__()
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self._heard.append(record)
