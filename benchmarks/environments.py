"""
Virtual environments of the servers, made once below benchmarks/results/ and kept.

The peers share one; txasgi has its own, installed as a wheel from the checkout and installed
again whenever a source file has changed. Both have the Python that runs the command.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.servers import PEER_EXTRAS, SERVERS, SUBJECT, Server

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

# pip may have to build a wheel, and the network may be slow.
INSTALL_S = 900.0

VERSIONS = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


class InstallError(Exception):
    """
    An environment could not be made; the message ends with pip's last lines.
    """


def programs(server: Server) -> Path:
    """
    The bin folder of the environment that *server* is installed in.
    """
    return folder(server) / "bin"


def folder(server: Server) -> Path:
    """
    The environment of *server*, there or not.
    """
    tag = f"{sys.implementation.name}-{sys.version_info.major}.{sys.version_info.minor}"
    group = SUBJECT if server.name == SUBJECT else "peers"
    return RESULTS / f"env-{group}-{tag}"


def prepare(chosen: Iterable[Server]) -> None:
    """
    Make or refresh the environments of the *chosen* servers.

    Raises InstallError.
    """
    for server in chosen:
        if server.name == SUBJECT:
            install(folder(server), [str(ROOT)], source_digest())
        else:
            peers = [peer.requirement for peer in SERVERS if peer.name != SUBJECT]
            install(folder(server), [*peers, *PEER_EXTRAS], "\n".join([*peers, *PEER_EXTRAS]))


def install(target: Path, requirements: list[str], stamp: str) -> None:
    """
    Install *requirements* in *target* unless its stamp says that this has been done.
    """
    stamp_file = target / "installed"
    if stamp_file.exists() and stamp_file.read_text() == stamp:
        return
    print(f"installing {' '.join(requirements)} in {target}", file=sys.stderr)
    RESULTS.mkdir(exist_ok=True)
    if not (target / "bin" / "pip").exists():
        run([sys.executable, "-m", "venv", "--clear", str(target)])
    pip = [str(target / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    if requirements == [str(ROOT)]:
        # The same version number with other contents: pip might be content with what is there.
        run([*pip, "uninstall", "--yes", SUBJECT])
    run([*pip, "install", "--quiet", "--upgrade", *requirements])
    stamp_file.write_text(stamp)


def run(words: list[str]) -> None:
    """
    Run one step of an installation, quietly unless it fails.
    """
    done = subprocess.run(words, capture_output=True, text=True, timeout=INSTALL_S, check=False, cwd=RESULTS)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise InstallError(f"{' '.join(words)}\n{tail}")


def source_digest() -> str:
    """
    A digest of everything in the checkout that the wheel is built from.
    """
    digest = hashlib.sha256()
    files = [ROOT / "pyproject.toml", *(ROOT / "src").rglob("*.py"), *(ROOT / "twisted").rglob("*.py")]
    for file in sorted(files):
        digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def versions(server: Server) -> dict[str, str]:
    """
    Versions of the server and of what it stands on, by package name; the server first.
    """
    words = [str(programs(server) / "python"), "-c", VERSIONS, server.distribution, *server.beside]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found
