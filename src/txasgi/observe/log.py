"""
Where log lines go: standard error for what the server says, standard output for the access log.

Loggers are those of the standard library, so that a program may configure them as it likes: `txasgi` (start, stop,
warnings), `txasgi.error` (faults of the application, with traceback), `txasgi.access`, and `twisted`, which gets what
Twisted logs from warning upwards.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, TextIO

LEVELS = ("critical", "error", "warning", "info", "debug")

_LEVEL_COLOURS = {
    logging.DEBUG: "36",
    logging.INFO: "32",
    logging.WARNING: "33",
    logging.ERROR: "31",
    logging.CRITICAL: "1;31",
}
_STATUS_COLOURS = {2: "32", 3: "36", 4: "33", 5: "31"}


class Lines(logging.Formatter):
    """
    One line a record: time, level, text; a traceback below where there is one. Coloured for a terminal.
    """

    def __init__(self, *, colours: bool, level: bool) -> None:
        super().__init__("%(asctime)s %(levelname)-8s %(message)s" if level else "%(asctime)s %(message)s")
        self._colours = colours

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """
        Local time with its offset, as a reader far away must be able to place it.
        """
        return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(record.created))

    def format(self, record: logging.LogRecord) -> str:
        """
        The line.
        """
        text = super().format(record)
        if not self._colours:
            return text
        status = getattr(record, "status", 0)
        colour = _STATUS_COLOURS.get(status // 100) if status else _LEVEL_COLOURS.get(record.levelno)
        first, newline, rest = text.partition("\n")
        return f"\x1b[{colour}m{first}\x1b[0m{newline}{rest}" if colour else text


class _Stream(logging.StreamHandler[TextIO]):
    """
    Lines to a stream whose reader may go away (`serve app:app | head`): then there is nobody to tell.
    """

    def handleError(self, record: logging.LogRecord) -> None:
        """
        Quiet when the stream is gone.
        """
        if not isinstance(sys.exc_info()[1], (BrokenPipeError, ValueError)):
            super().handleError(record)


def _to(stream: TextIO | None, *, level: bool) -> logging.Handler:
    if stream is None:
        # Started with the descriptor closed.
        return logging.NullHandler()
    lines = _Stream(stream)
    lines.setFormatter(Lines(colours=stream.isatty(), level=level))
    return lines


def configure(level: str) -> None:
    """
    Send our loggers to the terminal; those that a program has configured already are left alone.
    """
    number = logging.getLevelName(level.upper())
    for name, stream, with_level in (
        ("txasgi", sys.stderr, True),
        ("txasgi.access", sys.stdout, False),
        ("twisted", sys.stderr, True),
    ):
        logger = logging.getLogger(name)
        if not logger.handlers:
            logger.addHandler(_to(stream, level=with_level))
            logger.propagate = False
        logger.setLevel(max(number, logging.WARNING) if name == "twisted" else number)
    _observe_twisted()


_observing: Any = None


def _observe_twisted() -> None:
    """
    Twisted's log into the standard library's, once; under twistd it goes where twistd says.
    """
    global _observing
    if _observing is not None:
        return
    from twisted.logger import (
        FilteringLogObserver,
        LogLevel,
        LogLevelFilterPredicate,
        STDLibLogObserver,
        globalLogBeginner,
    )

    _observing = FilteringLogObserver(STDLibLogObserver("twisted"), [LogLevelFilterPredicate(LogLevel.warn)])
    # Where it has begun already, under twistd, standard error goes into Twisted's log: to bring that log back there
    # would go round for ever.
    if getattr(globalLogBeginner, "_temporaryObserver", None) is not None:
        globalLogBeginner.beginLoggingTo([_observing], discardBuffer=True, redirectStandardIO=False)
