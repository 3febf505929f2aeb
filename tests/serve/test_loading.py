"""
From the name of an application to something that can be called.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.serve.apps import shapes
from tests.serve.processes import APPS

from txasgi.errors import ConfigError, LoadError
from txasgi.serve.loading import load, load_environment, prepared


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What is imported from the applications' folder, and where from, is forgotten.
    """
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "modules", sys.modules.copy())


def name_of(application: Callable[..., Any]) -> str:
    """
    What the application answers.
    """
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        await application({"type": "http"}, None, send)

    asyncio.run(run())
    answered: str = sent[1]["body"].decode()
    return answered


def loaded(name: str, interface: str = "auto", *, factory: bool = False, app_dir: Path = APPS) -> Any:
    return load(name, str(app_dir), factory=factory, interface=interface)


@pytest.mark.parametrize("name", [*shapes.ASGI3, *shapes.ASGI2])
def test_shape_is_found_out(name: str) -> None:
    """
    Functions, methods, instances, classes and partials are called as their version of ASGI wants it.
    """
    assert name_of(loaded(f"shapes:{name}")) == shapes.NAMES.get(name, name)


@pytest.mark.parametrize(("interface", "names"), [("asgi3", shapes.ASGI3), ("asgi2", shapes.ASGI2)])
def test_shape_is_told(interface: str, names: list[str]) -> None:
    """
    --interface says what an application speaks.
    """
    assert [name_of(loaded(f"shapes:{name}", interface)) for name in names] == [shapes.NAMES.get(n, n) for n in names]


def test_asgi3_is_called_as_it_is() -> None:
    """
    An ASGI 3 application is not wrapped.
    """
    assert prepared(shapes.function, "", factory=False, interface="auto") is shapes.function
    assert prepared(shapes.callable3, "", factory=False, interface="asgi3") is shapes.callable3


@pytest.mark.parametrize(
    ("name", "answered"),
    [
        ("shapes", "function"),
        ("shapes:app", "function"),
        ("default_name", "function"),
        ("default_name:application", "function"),
        ("shapes:Holder.inner.app", "function"),
        ("shapes:callable3.method", "method"),
    ],
)
def test_name(name: str, answered: str) -> None:
    """
    The attribute is app or application when none is named, and may be one of an attribute.
    """
    assert name_of(loaded(name)) == answered


@pytest.mark.parametrize(("name", "answered"), [("shapes:make", "function"), ("shapes:make2", "class2")])
def test_factory(name: str, answered: str) -> None:
    """
    --factory calls what is named; what it returns may be of either version.
    """
    assert name_of(loaded(name, factory=True)) == answered


def test_app_dir_comes_first(tmp_path: Path) -> None:
    """
    A module in --app-dir is taken before one of the same name elsewhere on the path.
    """
    (tmp_path / "shapes.py").write_text("async def app(*_): pass\napp.mine = True\n")
    sys.path.insert(0, str(APPS))
    assert loaded("shapes", app_dir=tmp_path).mine


def test_app_dir_comes_first_where_it_is_on_the_path_already(tmp_path: Path) -> None:
    """
    --app-dir comes first also when it was further back on the path.
    """
    (tmp_path / "shapes.py").write_text("async def app(*_): pass\napp.mine = True\n")
    sys.path.insert(0, str(APPS))
    sys.path.append(str(tmp_path))
    assert loaded("shapes", app_dir=tmp_path).mine


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "names no application"),
        (":app", "names no application"),
        ("nowhere:app", "no module 'nowhere'"),
        ("nowhere.at.all:app", "no module 'nowhere'"),
        ("shapes.deeper:app", "'shapes.deeper'"),
        ("shapes.py:app", "has no .py"),
        ("shapes:nothing", "has no attribute 'nothing'"),
        ("shapes:Holder.nothing", "has no attribute 'Holder.nothing'"),
        ("shapes:Holder..app", "has no attribute"),
        ("lacking:", "lacking"),
        ("shapes:number", "int"),
        ("./shapes.py:app", "./shapes.py"),
        ("../apps/shapes.py", "../apps/shapes.py"),
        ("/etc/passwd", "/etc/passwd"),
        (".", "'.'"),
        (".shapes:app", "'.shapes"),
        ("shapes..x:app", "shapes..x"),
        ("sha pes:app", "sha pes"),
    ],
)
def test_bad_name(name: str, said: str) -> None:
    """
    A name that leads nowhere is refused in words that say where it ended.
    """
    kind = ModuleNotFoundError if name == "lacking:" else LoadError
    with pytest.raises(kind) as caught:
        loaded(name)
    assert said in str(caught.value) or kind is ModuleNotFoundError
    assert "\n" not in str(caught.value)


def test_factory_that_makes_nothing() -> None:
    """
    What a factory returns has to be an application.
    """
    with pytest.raises(LoadError, match="NoneType"):
        loaded("shapes:make_nothing", factory=True)


# The environment file


def test_environment_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    NAME=value lines are put into the environment; what is set already wins, comments and empty lines are skipped.
    """
    monkeypatch.setattr(os, "environ", {"SET": "before"})
    (tmp_path / "env").write_text(
        "# a comment\n\n  # another\nPLAIN=1\n export EXPORTED = two words \nEMPTY=\nSINGLE='a #b '\nDOUBLE=\"c=d\"\n"
        "SET=after\nQUOTE='\nURL=postgres://u:p@h/d?x=1\nPLAIN=2\nUMLAUT=\xfc\r\n",
        encoding="utf-8",
    )
    load_environment(str(tmp_path / "env"))
    assert os.environ == {
        "SET": "before",
        "PLAIN": "1",
        "EXPORTED": "two words",
        "EMPTY": "",
        "SINGLE": "a #b ",
        "DOUBLE": "c=d",
        "QUOTE": "'",
        "URL": "postgres://u:p@h/d?x=1",
        "UMLAUT": "\xfc",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        (b"A=1\nnonsense\n", "line 2: expected NAME=value"),
        (b"1A=1\n", "line 1: expected NAME=value"),
        (b"=1\n", "line 1: expected NAME=value"),
        (b"A=\xff\n", "not UTF-8"),
        (b"A=a\0b\n", "line 1"),
    ],
)
def test_bad_environment_file(text: bytes | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A file that is none is refused with its name and the line.
    """
    # Set and unset, so that it is unset afterwards whatever happens here.
    monkeypatch.setenv("A", "")
    monkeypatch.delenv("A")
    path = tmp_path / "env"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        load_environment(str(path))
    assert str(caught.value).startswith(f"--env-file {path}") and said in str(caught.value)
