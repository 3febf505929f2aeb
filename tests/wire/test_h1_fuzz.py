"""
HTTP/1.1 requests nobody thought of.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.wire.h1_client import AFTER, Client, deadlines, pass_time, quiet
from tests.wire.h1_requests import BAD, GOOD

from txasgi.testing.rig import Rig, response_body, response_start

# What a mutation puts in.
TOKENS = [
    *(bytes([code]) for code in b"\r\n\t :,;+#?%\x00\x0b\x85\xff"),
    b"\r\n",
    b"chunked",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"Connection: close\r\n",
    b"Upgrade: h2c\r\n",
    b"Expect: 100-continue\r\n",
    b"HTTP/1.0",
    b"CONNECT ",
    b"0x",
]
SMALL = [data for data in [*(good.data for good in GOOD), *(bad.data for bad in BAD)] if len(data) < 1000]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """
    Two messages out of the tables, with a few bytes added, dropped or doubled, and a good one behind.
    """
    data = bytearray(draw(st.sampled_from(SMALL)) + draw(st.sampled_from(SMALL)))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(data)))
        kind = draw(st.integers(0, 2))
        if kind == 0:
            data[place:place] = draw(st.sampled_from(TOKENS))
        elif kind == 1:
            del data[place : place + draw(st.integers(1, 4))]
        else:
            data[place:place] = data[place : place + draw(st.integers(1, 30))]
    return bytes(data) + AFTER


class TestFuzz:
    """
    Requests nobody thought of.
    """

    def served(self, data: bytes, cuts: list[int]) -> list[tuple[str, bytes, bytes, bytes]]:
        """
        Send data cut at these places; the requests that the application got whole.
        """
        seen = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            body = b""
            while (message := await receive())["type"] == "http.request":
                body += message["body"]
                if not message["more_body"]:
                    seen.append((scope["method"], scope["raw_path"], scope["query_string"], body))
                    await send(response_start(200))
                    await send(response_body(b"ok"))
                    break

        rig = Rig(application)
        # Behind an upgrade to HTTP/2, when the bytes come does matter.
        rig.h1.other = None
        client = Client(rig)
        for start, end in itertools.pairwise([0, *cuts, len(data)]):
            client.send(data[start:end])
        client.leave()
        pass_time(rig, 12)
        assert not rig.gate.tasks
        assert not deadlines(rig)
        assert rig.errors == []
        rig.close()
        return seen

    def check(self, data: bytes, cuts: list[int], caplog: pytest.LogCaptureFixture) -> None:
        """
        The same requests are served however the bytes are cut, and nothing is logged.
        """
        whole = self.served(data, [])
        assert self.served(data, list(range(1, len(data)))) == whole
        assert self.served(data, cuts) == whole
        assert quiet(caplog)

    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(data=mutated(), parts=st.lists(st.integers(1, 400), max_size=4))
    def test_cuts_do_not_matter(self, caplog: pytest.LogCaptureFixture, data: bytes, parts: list[int]) -> None:
        """
        However wrong the bytes are, where they are cut does not change what is served, and no error is ours.
        """
        self.check(data, sorted({part for part in parts if part < len(data)}), caplog)

    @pytest.mark.slow
    @settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=mutated(), parts=st.lists(st.integers(1, 400), max_size=4))
    def test_cuts_do_not_matter_at_length(
        self, caplog: pytest.LogCaptureFixture, data: bytes, parts: list[int]
    ) -> None:
        """
        The same, for longer and at random.
        """
        self.check(data, sorted({part for part in parts if part < len(data)}), caplog)
