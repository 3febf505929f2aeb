"""
Certificates that end soon, or have ended.
"""

from __future__ import annotations

import signal
from pathlib import Path

from tests.serve.certificates import Authorities, write
from tests.serve.conftest import ssl_endpoint
from tests.serve.handshakes import served_serial
from tests.serve.processes import serving, until


def test_certificates_that_end_soon(folder: Path, authorities: Authorities) -> None:
    """
    At start there is a warning for a certificate with less than 7 days left and for an expired one; both are served.
    """
    made = {
        "good": authorities.server(ends=8),
        "near": authorities.server(ends=6.9),
        "expired": authorities.server(begins=-30, ends=-1),
    }
    files = {name: write(folder / f"{name}.pem", one.both_pem) for name, one in made.items()}
    arguments = [argument for file in files.values() for argument in ("-e", ssl_endpoint(file))]
    with serving(folder, *arguments, "served:app") as process:
        locations = process.listening(3)
        for location, one in zip(locations, made.values(), strict=True):
            assert one.serial == served_serial(location)
        warned = [line for line in process.err if " WARNING " in line]
        assert len(warned) == 2
        (near,) = [line for line in warned if str(files["near"]) in line]
        (expired,) = [line for line in warned if str(files["expired"]) in line]
        assert "expire" in near
        assert "expired" in expired


def test_new_certificate_that_ends_soon(folder: Path, authorities: Authorities) -> None:
    """
    At a reload there is a warning for a new certificate with less than 7 days left; it is taken.
    """
    both = write(folder / "both.pem", authorities.server().both_pem)
    with serving(folder, "-e", ssl_endpoint(both), "served:app") as process:
        location = process.location
        assert [line for line in process.err if " WARNING " in line] == []
        near = authorities.server(ends=2)
        write(both, near.both_pem)
        process.send_signal(signal.SIGHUP)
        assert "expire" in process.wait_for(" WARNING ")
        until(lambda: served_serial(location) == near.serial, "the new certificate")
        assert len([line for line in process.err if " WARNING " in line]) == 1
