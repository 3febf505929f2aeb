"""Starlette: everything in behaviours.py, and files, ranges, early hints, middleware, root_path, draining."""

import hashlib
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
    read_through,
)
from tests.frameworks.conftest import Serve
from tests.frameworks.peers import DEADLINE_S
from tests.frameworks.running import Server, launched
from tests.frameworks.websocket_behaviours import WebSockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

APPLICATION = "starlette_app:app"

LARGE = bytes(range(256)) * 4096 * 16

ALPHABET = b"abcdefghijklmnopqrstuvwxyz"


class TestRequests(Requests):
    """
    Requests to Starlette's routes.
    """

    def test_early_hints(self, server: Server) -> None:
        """
        An early hint goes out as 103 ahead of the answer.
        """
        with server.dial() as dialogue:
            dialogue.request("GET", "/hinted", "Connection: close")
            hint = dialogue.read_until(b"\r\n\r\n")
            answer = dialogue.read_to_end()

        assert hint.startswith(b"HTTP/1.1 103 ")
        assert b"link: </style.css>; rel=preload; as=style" in hint.lower()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"hinted\n")

    def test_url_for(self, server: Server, client: httpx.Client) -> None:
        """
        URLs that the application makes name the server as the client does.
        """
        assert {
            "item": f"{server.url}/items/tea",
            "inner": f"{server.url}/sub/inner/x",
            "url": f"{server.url}/links?a=%20b",
        } == client.get("/links?a=%20b").json()


class TestFiles:
    """
    Starlette's StaticFiles and FileResponse.
    """

    def test_file(self, client: httpx.Client) -> None:
        """
        A static file arrives whole, with its type and length.
        """
        answer = client.get("/static/alphabet.txt")

        assert answer.content == ALPHABET
        assert answer.headers["content-length"] == "26"
        assert answer.headers["content-type"].startswith("text/plain")

    def test_head(self, client: httpx.Client) -> None:
        """
        HEAD of a file has the length of the file and no body.
        """
        answer = client.head("/static/alphabet.txt")

        assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "26")

    def test_not_modified(self, client: httpx.Client) -> None:
        """
        A file that the client has already is a 304.
        """
        etag = client.get("/static/alphabet.txt").headers["etag"]

        assert client.get("/static/alphabet.txt", headers={"If-None-Match": etag}).status_code == 304

    @pytest.mark.parametrize(
        "path", ["/static/nothing.txt", "/static/..%2Fstarlette_app.py", "/static/%2E%2E/witness.py"]
    )
    def test_no_such_file(self, client: httpx.Client, path: str) -> None:
        """
        A file that is not in the folder, or is outside of it, is a 404.
        """
        assert client.get(path).status_code == 404

    def test_large_file(self, client: httpx.Client) -> None:
        """
        A file much larger than a socket buffer arrives whole.
        """
        assert hashlib.sha256(LARGE).digest() == hashlib.sha256(client.get("/large").content).digest()

    @pytest.mark.parametrize("path", ["/large", "/big"])
    def test_stalled_client(self, server: Server, path: str) -> None:
        """
        A client that does not read for a while keeps nobody from being served, and misses nothing.
        """
        with server.dial() as dialogue:
            dialogue.request("GET", path, "Connection: close")
            head = dialogue.read_until(b"\r\n\r\n")
            server.still_serves()
            body = dialogue.read_to_end()

        assert f"content-length: {len(body)}\r\n".encode() in head.lower()
        assert hashlib.sha256(LARGE[: len(body)]).digest() == hashlib.sha256(body).digest()

    def test_download(self, client: httpx.Client) -> None:
        """
        A file response has its Content-Disposition and the whole file, time after time on one connection.
        """
        for _ in range(3):
            answer = client.get("/download")
            assert answer.content == ALPHABET
            assert answer.headers["content-disposition"] == 'attachment; filename="abc.txt"'

    @pytest.mark.parametrize("path", ["/static/alphabet.txt", "/download"])
    @pytest.mark.parametrize(
        ("asked", "content_range", "body"),
        [
            ("bytes=0-4", "bytes 0-4/26", b"abcde"),
            ("bytes=20-", "bytes 20-25/26", b"uvwxyz"),
            ("bytes=-3", "bytes 23-25/26", b"xyz"),
        ],
    )
    def test_range(self, client: httpx.Client, path: str, asked: str, content_range: str, body: bytes) -> None:
        """
        A range of a file is a 206 with just these bytes.
        """
        answer = client.get(path, headers={"Range": asked})

        assert (206, content_range, body) == (
            answer.status_code,
            answer.headers["content-range"],
            answer.content,
        )

    def test_several_ranges(self, client: httpx.Client) -> None:
        """
        Several ranges of a file are one multipart answer of the length that it promises.
        """
        answer = client.get("/download", headers={"Range": "bytes=0-1,24-25"})

        assert answer.status_code == 206
        assert answer.headers["content-type"].startswith("multipart/byteranges")
        assert str(len(answer.content)) == answer.headers["content-length"]
        assert answer.content.index(b"ab") < answer.content.index(b"yz")

    def test_range_out_of_the_file(self, client: httpx.Client) -> None:
        """
        A range behind the end of the file is a 416 that tells the length.
        """
        answer = client.get("/download", headers={"Range": "bytes=26-30"})

        assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */26")


class TestStreamingAnswers(StreamingAnswers):
    """
    Starlette's StreamingResponse.
    """

    def test_stream_through_middleware(self, server: Server, client: httpx.Client, key: str) -> None:
        """
        A stream below BaseHTTPMiddleware arrives piece by piece.
        """
        with client.stream("GET", f"/stamped/stream/{key}") as answer:
            pieces = answer.iter_raw()
            read_through(pieces, b"first\n")
            server.cue(key)

            assert b"".join(pieces) == b"second\n"
        assert answer.headers["x-stamp"] == "seen"


class TestStreamingUploads(StreamingUploads):
    """
    Starlette's request.stream().
    """

    def test_upload_through_middleware(self, client: httpx.Client, key: str) -> None:
        """
        A chunked upload passes BaseHTTPMiddleware whole.
        """
        answer = client.post(f"/stamped/intake/{key}", content=iter([b"01234", b"56789"]))

        assert {"total": 10, "sha256": hashlib.sha256(b"0123456789").hexdigest()} == answer.json()

    def test_application_that_does_not_read(self, server: Server, key: str) -> None:
        """
        A large upload that the application does not read yet harms nobody, and arrives whole.
        """

        def upload() -> httpx.Response:
            with server.client() as client:
                return client.post(f"/slow-intake/{key}", content=LARGE)

        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(upload)
            server.notes.wait_for(f"slow intake {key} waits")
            server.still_serves()
            assert not answer.done()
            server.cue(key)

            assert {"sha256": hashlib.sha256(LARGE).hexdigest()} == answer.result().json()


class TestDepartures(Departures):
    """
    Clients that leave Starlette's answers.
    """

    @departures
    def test_is_disconnected(self, server: Server, key: str, depart: Depart) -> None:
        """
        An application that polls request.is_disconnected() before it answers sees its client leave.
        """
        dialogue = server.dial()
        dialogue.request("GET", f"/watch/{key}")
        server.notes.wait_for(f"watch {key} started")
        depart(dialogue)

        server.notes.wait_for(f"watch {key} saw the disconnect")
        server.still_serves()

    @departures
    def test_client_leaves_a_stream_below_middleware(self, server: Server, key: str, depart: Depart) -> None:
        """
        A stream below BaseHTTPMiddleware is closed once its client has left, without a traceback.
        """
        dialogue = server.dial()
        dialogue.request("GET", f"/stamped/endless/{key}")
        dialogue.read_until(b"first\n")
        depart(dialogue)

        server.notes.wait_for(f"endless {key} closed")
        server.still_serves()

    @departures
    @pytest.mark.parametrize("fields", [[], ["Range: bytes=1-"]], ids=["file", "range"])
    def test_client_leaves_a_large_file(self, server: Server, depart: Depart, fields: list[str]) -> None:
        """
        A client that leaves a large file that it has not read harms nobody.
        """
        dialogue = server.dial()
        dialogue.request("GET", "/large", *fields)
        dialogue.read_until(b"\r\n\r\n")
        server.still_serves()
        depart(dialogue)

        server.still_serves()


class TestBackgroundWork(BackgroundWork):
    """
    Starlette's BackgroundTask.
    """

    @pytest.mark.parametrize("path", ["/stream-later", "/stamped/later", "/stamped/stream-later"])
    def test_background_work_of_other_answers(self, server: Server, client: httpx.Client, key: str, path: str) -> None:
        """
        Background work of streams and below middleware begins while the connection stays open, and completes.
        """
        assert client.get(f"{path}/{key}").text == "done\n"
        server.cue(key)

        server.notes.first(lambda line: line.endswith(f"later {key} finished"), "note of the work")


class TestFaults(Faults):
    """
    Exceptions out of Starlette.
    """


class TestWebSockets(WebSockets):
    """
    Starlette's WebSocket.
    """

    def test_denial_response(self, server: Server) -> None:
        """
        An application can answer a WebSocket handshake with an HTTP response of its own.
        """
        with pytest.raises(InvalidStatus) as denial, server.websocket("/ws/deny"):
            pass

        response = denial.value.response
        assert (response.status_code, response.headers["x-answer"]) == (401, "yes")
        assert json.loads(response.body) == {"why": "no ticket"}

    def test_reason_of_the_client(self, server: Server, key: str) -> None:
        """
        The close reason of the client reaches the application.
        """
        with server.websocket(f"/ws/note/{key}") as websocket:
            assert websocket.recv() == "ready"
            websocket.close(4000, "zoë says bye")

        server.notes.wait_for(f"ws {key} reason: zoë says bye")

    def test_no_route(self, server: Server) -> None:
        """
        A WebSocket handshake for a path without a route is refused with Starlette's 404 or with 403.
        """
        with pytest.raises(InvalidStatus) as refusal, server.websocket("/ws/nowhere"):
            pass

        assert refusal.value.response.status_code in (403, 404)


class TestLifespan(Lifespan):
    """
    Starlette's lifespan, and how the server drains around it.
    """

    def test_state_of_a_request(self, client: httpx.Client) -> None:
        """
        What a request puts into its state is not seen by the next one.
        """
        for _ in range(2):
            assert client.get("/mark").json() == {"seen": False, "started": "yes"}

    def test_startup_fails(self, tmp_path: Path) -> None:
        """
        A failed start-up ends the server with status 3 before it listens, and the log tells why.
        """
        with launched("starlette_app:broken", folder=tmp_path) as server:
            assert server.wait_until_it_has_ended() == 3
            assert "DeliberateFault: startup" in server.log.text()
            assert "http://" not in server.log.text()

    def test_upload_outlives_sigterm(self, serve: Serve, key: str) -> None:
        """
        A request in progress when SIGTERM comes is answered whole, then the shutdown runs.
        """
        with serve(APPLICATION) as server, server.dial() as dialogue:
            dialogue.request("POST", f"/intake/{key}", "Content-Length: 10")
            dialogue.send(b"01234")
            server.notes.wait_for(f"intake {key} 5")
            server.process.terminate()
            wait_until_refused(server)
            dialogue.send(b"56789")

            answer = dialogue.read_to_end()
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert hashlib.sha256(b"0123456789").hexdigest().encode() in answer
            assert server.wait_until_it_has_ended() == 0
            assert list(server.notes)[-1] == "shutdown"

    def test_websocket_at_sigterm(self, serve: Serve, key: str) -> None:
        """
        SIGTERM closes an open WebSocket with 1012, which the application sees before its shutdown.
        """
        with serve(APPLICATION) as server, server.websocket(f"/ws/note/{key}") as websocket:
            assert websocket.recv() == "ready"
            server.process.terminate()
            with pytest.raises(ConnectionClosed) as closed:
                websocket.recv()

            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
            assert server.wait_until_it_has_ended() == 0
            notes = list(server.notes)
            assert notes.index(f"ws {key} closed with 1012") < notes.index("shutdown")


class TestRootPath:
    """
    Starlette below a prefix that a proxy has removed.
    """

    def test_root_path(self, serve: Serve) -> None:
        """
        With --root-path routes match without the prefix, and URLs that the application makes have it.
        """
        with serve(APPLICATION, "--root-path", "/prefix") as server, server.client() as client:
            assert client.get("/items/tea").json()["name"] == "tea"
            assert client.get("/sub/inner/x").json() == {"name": "x", "root_path": "/prefix/sub"}
            assert client.get("/static/alphabet.txt").content == ALPHABET
            assert {
                "item": f"{server.url}/prefix/items/tea",
                "inner": f"{server.url}/prefix/sub/inner/x",
                "url": f"{server.url}/prefix/links?a=1",
            } == client.get("/links?a=1").json()


def wait_until_refused(server: Server) -> None:
    """
    Return once the server accepts no connection any more.
    """
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection(server.address, timeout=DEADLINE_S).close()
        except OSError:
            return
        time.sleep(0.01)
    raise AssertionError(f"the server still accepts connections {DEADLINE_S} s after SIGTERM")
