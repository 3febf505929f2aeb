"""
What is built is what is installed: the wheel, in an environment of its own, away from the checkout.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    The folder with the sdist, and the wheel that was built from it.
    """
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    An environment that has the wheel and nothing of the checkout.
    """
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    (wheel,) = built.glob("*.whl")
    subprocess.run(
        [str(environment / "bin" / "pip"), "install", "-q", str(wheel)],
        check=True,
        capture_output=True,
        cwd=environment,
    )
    return environment


def test_wheel_contents(built: Path) -> None:
    """
    The wheel has the types' marker, the demo's files and the plugin, and neither tests nor a package "twisted".
    """
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())

    assert {"txasgi/py.typed", "txasgi/apps/demo/page.html", "twisted/plugins/txasgi_plugin.py"} <= names
    assert not {"twisted/__init__.py", "twisted/plugins/__init__.py"} & names
    assert not [name for name in names if name.startswith("tests") or name.endswith("dropin.cache")]


def test_sdist_contents(built: Path) -> None:
    """
    The sdist has what is needed to build and to test.
    """
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {"pyproject.toml", "README.md", "LICENSE", "tests/test_wheel.py", "src/txasgi/py.typed"} <= names
    assert "twisted/plugins/txasgi_plugin.py" in names


def test_serves_a_request(installed: Path) -> None:
    """
    The installed command serves the demo.
    """
    command = [str(installed / "bin" / "serve"), "--port", "0", "txasgi.apps.demo:app"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=installed
    ) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                found = re.search(r"listening on (http://\S+)", line)
                if found:
                    break
            else:
                pytest.fail("it ended without listening")
            with urllib.request.urlopen(found[1], timeout=10) as answer:
                assert answer.status == 200
                assert b"txasgi" in answer.read()
        finally:
            process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_twistd_has_the_reactor(installed: Path) -> None:
    """
    twistd finds the reactor plugin, and runs on uvloop with it.
    """
    twistd = str(installed / "bin" / "twistd")
    listed = subprocess.run([twistd, "--help-reactors"], capture_output=True, text=True, check=True, cwd=installed)
    assert re.search(r"^\s*txasgi\s", listed.stdout, re.MULTILINE)
    (installed / "program.tac").write_text(
        "from twisted.application.service import Application, Service\n"
        "class Tell(Service):\n"
        "    def startService(self):\n"
        "        from twisted.internet import reactor\n"
        "        print('loop', type(reactor._asyncioEventloop).__module__, flush=True)\n"
        "        reactor.callLater(0, reactor.stop)\n"
        "application = Application('tell')\n"
        "Tell().setServiceParent(application)\n"
    )
    told = subprocess.run(
        [twistd, "-n", "--pidfile=", "--reactor=txasgi", "-y", "program.tac"],
        capture_output=True,
        text=True,
        check=True,
        cwd=installed,
        timeout=60,
    )
    assert "loop uvloop" in told.stdout
