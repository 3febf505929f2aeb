"""What an application lets its test see and do: notes it writes, cues it waits for, faults it makes."""

import asyncio
import os

NOTES_FD = int(os.environ["NOTES_FD"])

_cues: dict[str, asyncio.Event] = {}


class DeliberateFault(Exception):
    """
    An exception that a test has asked for, so that its traceback is expected.
    """


def note(text: str) -> None:
    """
    Write one line to the test that runs this server.
    """
    os.write(NOTES_FD, f"{text}\n".encode())


def cue(key: str) -> asyncio.Event:
    """
    The event with this name, for the application to wait for and for a request to set.
    """
    return _cues.setdefault(key, asyncio.Event())
