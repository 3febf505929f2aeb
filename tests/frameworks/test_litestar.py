"""Litestar: everything in behaviours.py, and its files, WebSocket listeners and root_path."""

import json

import httpx
import pytest
from tests.frameworks.behaviours import (
    BackgroundWork,
    Departures,
    Faults,
    Lifespan,
    Requests,
    StreamingAnswers,
    StreamingUploads,
)
from tests.frameworks.conftest import Serve
from tests.frameworks.running import Server
from tests.frameworks.websocket_behaviours import WebSockets

APPLICATION = "litestar_app:app"


class TestRequests(Requests):
    """
    Requests to Litestar's routes.
    """

    @pytest.mark.parametrize("path", ["/static/alphabet.txt", "/download"])
    def test_file(self, client: httpx.Client, path: str) -> None:
        """
        A file arrives whole.
        """
        answer = client.get(path)

        assert (answer.status_code, answer.content) == (200, b"abcdefghijklmnopqrstuvwxyz")


class TestStreamingAnswers(StreamingAnswers):
    """
    Litestar's Stream and ServerSentEvent.
    """


class TestStreamingUploads(StreamingUploads):
    """
    Litestar's request.stream().
    """


class TestDepartures(Departures):
    """
    Clients that leave Litestar's answers.
    """


class TestBackgroundWork(BackgroundWork):
    """
    Litestar's BackgroundTask.
    """

    def test_background_work_of_a_stream(self, server: Server, client: httpx.Client, key: str) -> None:
        """
        Background work of a stream completes while the connection stays open.

        Litestar begins it when receive() returns, so receive() must return once the answer is complete.
        """
        assert client.get(f"/stream-later/{key}").text == "done\n"
        server.cue(key)

        server.notes.wait_for(f"later {key} finished")


class TestFaults(Faults):
    """
    Exceptions out of Litestar.
    """


class TestWebSockets(WebSockets):
    """
    Litestar's WebSocket.
    """

    # Litestar catches the exception and closes with 4000 plus the HTTP status.
    code_of_a_fault = 4500

    def test_listener(self, server: Server) -> None:
        """
        A WebSocket listener answers each message with what its function returns.
        """
        with server.websocket("/ws/listener") as websocket:
            for number in range(3):
                websocket.send(json.dumps({"number": number}))
                assert {"heard": {"number": number}} == json.loads(websocket.recv())


class TestLifespan(Lifespan):
    """
    Litestar's lifespan.
    """


class TestRootPath:
    """
    Litestar below a prefix that a proxy has removed.
    """

    def test_root_path(self, serve: Serve) -> None:
        """
        With --root-path routes match without the prefix, and the base URL has it.
        """
        with serve(APPLICATION, "--root-path", "/prefix") as server, server.client() as client:
            assert client.get("/items/tea").json()["name"] == "tea"
            assert f"{server.url}/prefix/" == client.get("/links").json()["base"]
