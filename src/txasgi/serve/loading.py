"""
From a name like "module:attribute" to an ASGI 3 application.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import re
import sys
from typing import Any

from txasgi.asgi.task import Application
from txasgi.errors import ConfigError, LoadError

_HOW = "name it as module:attribute, like `serve app:app`, or try `serve txasgi.apps.demo:app`"


def load(name: str, app_dir: str, *, factory: bool, interface: str) -> Application:
    """
    Import the application. Raises LoadError, or what the application's own module raises.
    """
    module_name, _, attributes = name.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")) and not module_name.endswith(".py"):
        raise LoadError(f"{name!r} names no application: {_HOW}")
    if module_name.endswith(".py"):
        raise LoadError(f"{name!r} names a file: a module's name has no .py, and dots in place of slashes")
    directory = os.path.abspath(app_dir)
    if directory in sys.path:
        sys.path.remove(directory)
    sys.path.insert(0, directory)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name + ".").startswith(error.name + "."):
            raise LoadError(f"cannot import {name!r}: there is no module {error.name!r} in {directory}") from None
        raise
    found: Any = module
    # Applications are called "app" by most, "application" by Django.
    for attribute in (attributes or ("app" if hasattr(module, "app") else "application")).split("."):
        if not hasattr(found, attribute):
            raise LoadError(f"cannot import {name!r}: {module_name!r} has no attribute {attributes or 'app'!r}")
        found = getattr(found, attribute)
    return prepared(found, name, factory=factory, interface=interface)


def prepared(found: Any, name: str, *, factory: bool, interface: str) -> Application:
    """
    Call the factory if it is one, and wrap an ASGI 2 application.
    """
    if factory:
        found = found()
    if not callable(found):
        raise LoadError(f"{name!r} is {type(found).__name__}, which cannot be called: it is no ASGI application")
    if interface == "asgi2" or (interface == "auto" and _is_double_callable(found)):
        return _single(found)
    application: Application = found
    return application


def _is_double_callable(application: Any) -> bool:
    """
    Whether this is ASGI 2: called with the scope, it returns what is called with receive and send.
    """
    bare = application
    while isinstance(bare, functools.partial):
        bare = bare.func
    if inspect.isclass(bare):
        return not hasattr(bare, "__await__")
    if inspect.iscoroutinefunction(bare) or inspect.iscoroutinefunction(getattr(bare, "__call__", None)):  # noqa: B004
        return False
    try:
        inspect.signature(application).bind(None, None, None)
    except TypeError:
        return True
    except ValueError:
        # Some callables have no signature.
        pass
    return False


def _single(application: Any) -> Application:
    async def asgi3(scope: Any, receive: Any, send: Any) -> None:
        await application(scope)(receive, send)

    return asgi3


_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*").fullmatch


def load_environment(path: str) -> None:
    """
    Put the NAME=value lines of a file into the environment; what is set already wins. Raises ConfigError.

    Empty lines and lines that begin with # are skipped; a value may be in single or double quotes.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise ConfigError(f"--env-file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--env-file {path}: not UTF-8") from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE(line)
        if match is None or "\0" in line:
            raise ConfigError(f"--env-file {path}, line {number}: expected NAME=value")
        value = match[2]
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        os.environ.setdefault(match[1], value)
