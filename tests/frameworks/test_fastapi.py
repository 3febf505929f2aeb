"""FastAPI: everything in behaviours.py, and validation, dependencies, its own event stream, root_path."""

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
    depart_together,
)
from tests.frameworks.conftest import Serve
from tests.frameworks.running import Server
from tests.frameworks.websocket_behaviours import WebSockets
from websockets.exceptions import ConnectionClosed

APPLICATION = "fastapi_app:app"


class TestRequests(Requests):
    """
    Requests to FastAPI's path operations.
    """

    def test_valid_body(self, client: httpx.Client) -> None:
        """
        A body that fits its model comes back as the model.
        """
        assert client.post("/order", json={"name": "tea", "count": "2"}).json() == {"name": "tea", "count": 2}

    def test_invalid_body(self, client: httpx.Client) -> None:
        """
        A body that does not fit its model is a 422 that names the field.
        """
        answer = client.post("/order", json={"name": "tea", "count": 0})

        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == ["body", "count"]

    def test_file_from_a_plain_function(self, client: httpx.Client) -> None:
        """
        A file response of a path operation that runs in a thread arrives whole.
        """
        answer = client.get("/download", headers={"Range": "bytes=1-2"})

        assert (answer.status_code, answer.content) == (206, b"bc")


class TestStreamingAnswers(StreamingAnswers):
    """
    FastAPI's StreamingResponse and EventSourceResponse.
    """


class TestStreamingUploads(StreamingUploads):
    """
    FastAPI's request.stream().
    """


class TestDepartures(Departures):
    """
    Clients that leave FastAPI's answers.
    """

    @pytest.mark.parametrize("path", ["endless", "parked"])
    def test_dependency_is_closed(self, server: Server, key: str, path: str) -> None:
        """
        A dependency of a stream is closed once its client has left.
        """
        depart_together(server, f"/{path}/{key}", b"first\n")

        for name in (f"{key}-leave", f"{key}-vanish"):
            server.notes.wait_for(f"{path} {name} closed")
            server.notes.wait_for(f"dependency {name} closed")
        server.still_serves()

    def test_client_leaves_an_event_stream(self, server: Server, key: str) -> None:
        """
        An event stream that waits is closed once its client has left, without a traceback.
        """
        depart_together(server, f"/endless-events/{key}", b"first")

        server.notes.wait_for(f"endless-events {key}-leave closed")
        server.notes.wait_for(f"endless-events {key}-vanish closed")
        server.still_serves()


class TestBackgroundWork(BackgroundWork):
    """
    FastAPI's BackgroundTasks.
    """

    def test_tasks_run_in_turn(self, server: Server, client: httpx.Client, key: str) -> None:
        """
        A second background task runs after the first has finished.
        """
        client.get(f"/later/{key}")
        server.cue(key)
        server.notes.wait_for(f"later {key} second task")

        assert f"later {key} finished" in server.notes


class TestFaults(Faults):
    """
    Exceptions out of FastAPI, from threads too.
    """


class TestWebSockets(WebSockets):
    """
    FastAPI's WebSocket.
    """

    def test_websocket_exception(self, server: Server) -> None:
        """
        A WebSocketException after the accept closes with its code and reason.
        """
        with server.websocket("/ws/policy") as websocket, pytest.raises(ConnectionClosed) as closed:
            websocket.recv()

        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "no ticket")

    def test_dependency_of_a_websocket_is_closed(self, server: Server, key: str) -> None:
        """
        A dependency of a WebSocket is closed once the client has closed it.
        """
        with server.websocket(f"/ws/note/{key}") as websocket:
            assert websocket.recv() == "ready"

        server.notes.wait_for(f"dependency {key} closed")
        server.still_serves()


class TestLifespan(Lifespan):
    """
    FastAPI's lifespan.
    """


class TestRootPath:
    """
    FastAPI below a prefix that a proxy has removed.
    """

    def test_root_path(self, serve: Serve) -> None:
        """
        With --root-path routes match without the prefix, and the OpenAPI document names it as the server.
        """
        with serve(APPLICATION, "--root-path", "/prefix") as server, server.client() as client:
            assert client.get("/items/tea").json()["name"] == "tea"
            assert client.get("/openapi.json").json()["servers"] == [{"url": "/prefix"}]
            assert "/prefix/openapi.json" in client.get("/docs").text
