"""Quart: everything in behaviours.py, and its files, denial responses and root_path."""

import json

import httpx
import pytest
from tests.frameworks.behaviours import (
    BackgroundWork,
    Depart,
    Departures,
    Faults,
    Lifespan,
    Requests,
    StreamingAnswers,
    StreamingUploads,
    departures,
)
from tests.frameworks.conftest import Serve
from tests.frameworks.running import Server
from tests.frameworks.websocket_behaviours import WebSockets, open_by_hand
from websockets.exceptions import InvalidStatus

APPLICATION = "quart_app:app"


class TestRequests(Requests):
    """
    Requests to Quart's routes.
    """

    @pytest.mark.parametrize("path", ["/static/alphabet.txt", "/download"])
    def test_file(self, client: httpx.Client, path: str) -> None:
        """
        A file arrives whole, or a range of it as a 206.
        """
        whole = client.get(path)
        part = client.get(path, headers={"Range": "bytes=1-2"})

        assert (whole.status_code, whole.content) == (200, b"abcdefghijklmnopqrstuvwxyz")
        assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"bc", "bytes 1-2/26")


class TestStreamingAnswers(StreamingAnswers):
    """
    Quart's responses made of asynchronous generators.
    """


class TestStreamingUploads(StreamingUploads):
    """
    Quart's request.body.
    """


class TestDepartures(Departures):
    """
    Clients that leave Quart's answers.
    """


class TestBackgroundWork(BackgroundWork):
    """
    Quart's add_background_task().
    """

    def test_shutdown_waits_for_background_work(self, serve: Serve, key: str) -> None:
        """
        Background work that ends during the shutdown has ended before after_serving.
        """
        with serve(APPLICATION) as server:
            with server.client() as client:
                client.get(f"/later/{key}")
            server.cue(key)

            assert server.stop() == 0
            assert ["startup", f"later {key} finished", "shutdown"] == list(server.notes)


class TestFaults(Faults):
    """
    Exceptions out of Quart.
    """


class TestWebSockets(WebSockets):
    """
    Quart's websocket.
    """

    # Quart 0.22 takes an empty binary message for a text message: event.get("bytes") or event["text"].
    messages = tuple(message for message in WebSockets.messages if message != b"")

    # Quart logs the exception itself and then closes as if the view had returned.
    code_of_a_fault = 1000

    # Quart ends a view by cancelling it and shows it no close code: hence these two.

    def test_client_closes(self, server: Server, key: str) -> None:
        """
        The view of a WebSocket that the client closes is cancelled.
        """
        with server.websocket(f"/ws/wait/{key}") as websocket:
            assert websocket.recv() == "ready"
            websocket.close(4000, "bye")

        server.notes.wait_for(f"ws {key} cancelled")
        server.still_serves()

    @departures
    def test_client_drops_the_connection(self, server: Server, key: str, depart: Depart) -> None:
        """
        The view of a WebSocket whose client has left without a closing handshake is cancelled.
        """
        dialogue = open_by_hand(server, f"/ws/wait/{key}")
        dialogue.read_until(b"ready")
        depart(dialogue)

        server.notes.wait_for(f"ws {key} cancelled")
        server.still_serves()

    def test_denial_response(self, server: Server) -> None:
        """
        A view that returns a response before it accepts answers the handshake with it.
        """
        with pytest.raises(InvalidStatus) as denial, server.websocket("/ws/deny"):
            pass

        response = denial.value.response
        assert (response.status_code, response.headers["x-answer"]) == (401, "yes")
        assert json.loads(response.body) == {"why": "no ticket"}

    def test_no_route(self, server: Server) -> None:
        """
        A WebSocket handshake for a path without a route is refused with Quart's 404.
        """
        with pytest.raises(InvalidStatus) as refusal, server.websocket("/ws/nowhere"):
            pass

        assert refusal.value.response.status_code == 404


class TestLifespan(Lifespan):
    """
    Quart's before_serving and after_serving.
    """


class TestRootPath:
    """
    Quart below a prefix that a proxy has removed.
    """

    def test_root_path(self, serve: Serve) -> None:
        """
        With --root-path routes match without the prefix, and URLs that the application makes have it.
        """
        with serve(APPLICATION, "--root-path", "/prefix") as server, server.client() as client:
            assert client.get("/items/tea").json()["name"] == "tea"
            assert client.get("/links").json() == {
                "item": "/prefix/items/tea",
                "path": "/links",
                "root": "/prefix",
            }
