"""
Who may import whom.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src" / "txasgi"
ROOT = {"errors", "config", "seam", "fields", "deadlines"}
# The layer of a module, and what it may import beside itself. "root" stands for the modules of ROOT.
ALLOWED = {
    "root": set(),
    "net": {"root"},
    "wire": {"root"},
    "ws": {"root"},
    "asgi": {"root", "ws"},
    "observe": {"root"},
    "apps": set(),
    "serve": {"root", "net", "wire", "ws", "asgi", "observe", "apps"},
    "testing": {"root", "net", "wire", "asgi"},
    "__init__": {"serve"},
    "__main__": {"serve"},
}
# One door for each library.
DOORS = {
    "httptools": {"wire/h1_input.py"},
    "ngh2": {"wire/h2.py", "wire/h2_output.py", "wire/h2_stream.py"},
    "autobahn": {"ws/machine.py"},
    "_nvx_xormasker": {"ws/machine.py"},
    "OpenSSL": {
        "net/contexts.py",
        "net/tls.py",
        "net/tls_endings.py",
        "net/tls_extension.py",
        "net/tls_input.py",
        "net/tls_records.py",
    },
    "uvloop": {"net/reactor.py"},
    "click": {"serve/cli.py"},
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(SRC.rglob("*.py")):
        yield path.relative_to(SRC).as_posix(), path


def layer_of(name: str) -> str:
    top = name.split("/")[0].removesuffix(".py")
    return "root" if top in ROOT else top


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(("name", "path"), list(modules()), ids=[name for name, _ in modules()])
def test_layers(name: str, path: Path) -> None:
    """
    A module imports only what is below it, and a library only through its door.
    """
    layer = layer_of(name)
    for target in imported(path):
        parts = target.split(".")
        if parts[0] == "txasgi" and len(parts) > 1:
            below = "root" if parts[1] in ROOT else parts[1]
            own = below in (layer, "__version__")
            assert own or below in ALLOWED[layer], f"{name} imports {target}"
        elif parts[0] in DOORS:
            assert name in DOORS[parts[0]], f"{name} imports {target}"
        assert not target.startswith("twisted.web.http"), f"{name} imports {target}"
        if target.startswith("twisted.internet.reactor"):
            assert name == "net/reactor.py"
    if "from twisted.internet import reactor" in path.read_text():
        assert name == "net/reactor.py"
