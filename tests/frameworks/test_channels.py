"""Channels: sync and async WebSocket consumers, HTTP consumers, groups in memory, Django's views beside."""

import json
import signal

import httpx
import pytest
from tests.frameworks.behaviours import (
    Depart,
    Requests,
    StreamingAnswers,
    depart_together,
    departures,
    read_through,
)
from tests.frameworks.conftest import Serve
from tests.frameworks.running import Server
from tests.frameworks.websocket_behaviours import WebSockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

APPLICATION = "channels_app:app"


class TestRequests(Requests):
    """
    Requests to Django's views below ProtocolTypeRouter.
    """


class TestStreamingAnswers(StreamingAnswers):
    """
    Streams of Django's views below ProtocolTypeRouter.
    """


class TestSyncWebSockets(WebSockets):
    """
    Channels' WebsocketConsumer, whose methods run in threads.
    """

    root = "/sync"


class TestAsyncWebSockets(WebSockets):
    """
    Channels' AsyncWebsocketConsumer.
    """

    root = "/async"

    @pytest.mark.parametrize(("origin", "accepted"), [("https://good.example", True), ("https://bad.example", False)])
    def test_origin(self, server: Server, origin: str, accepted: bool) -> None:
        """
        A handshake from a foreign origin is refused with 403 by the OriginValidator.
        """
        if accepted:
            with server.websocket("/guarded", origin=origin) as websocket:
                websocket.send("hello")
                assert websocket.recv() == "hello"
        else:
            with pytest.raises(InvalidStatus) as refusal, server.websocket("/guarded", origin=origin):
                pass
            assert refusal.value.response.status_code == 403


class TestGroups:
    """
    Group messages through InMemoryChannelLayer.
    """

    def test_group_message(self, server: Server, key: str) -> None:
        """
        What one member of a group says is heard by every member and by nobody else.
        """
        with (
            server.websocket(f"/room/{key}") as ann,
            server.websocket(f"/room/{key}") as bob,
            server.websocket(f"/room/{key}x") as eve,
        ):
            for websocket in (ann, bob, eve):
                assert "joined" in json.loads(websocket.recv())
            ann.send(json.dumps({"say": "hello"}))
            assert [json.loads(websocket.recv()) for websocket in (ann, bob)] == [{"heard": "hello"}] * 2
            eve.send(json.dumps({"say": "alone"}))
            assert json.loads(eve.recv()) == {"heard": "alone"}

    def test_leaving_a_group(self, server: Server, key: str) -> None:
        """
        A member that has closed its connection is out of the group, and the others go on.
        """
        with server.websocket(f"/room/{key}") as ann:
            with server.websocket(f"/room/{key}") as bob:
                assert [{"joined": key}] * 2 == [json.loads(websocket.recv()) for websocket in (ann, bob)]
            server.notes.wait_for(f"room {key} left with 1000")
            ann.send(json.dumps({"say": "still here"}))
            assert json.loads(ann.recv()) == {"heard": "still here"}

    def test_message_from_http(self, server: Server, client: httpx.Client, key: str) -> None:
        """
        A group message that an HTTP request causes reaches a WebSocket.
        """
        with server.websocket(f"/room/{key}") as ann:
            assert {"joined": key} == json.loads(ann.recv())
            assert client.post(f"/consumer/say/{key}", content="news").status_code == 202
            assert json.loads(ann.recv()) == {"heard": "news"}

    def test_group_of_a_sync_consumer(self, server: Server, client: httpx.Client) -> None:
        """
        A group message reaches a sync consumer that declares the group.
        """
        with server.websocket("/everybody") as ann:
            assert ann.recv() == "joined"
            client.post("/consumer/say/everybody", content="news")
            assert ann.recv() == "news"


class TestHttpConsumers:
    """
    Channels' AsyncHttpConsumer.
    """

    def test_answer(self, client: httpx.Client) -> None:
        """
        A consumer has the body and answers with its status and headers.
        """
        answer = client.post("/consumer/reflect/zo%C3%AB", content="hello")

        assert answer.json() == {"name": "zoë", "method": "POST", "body": "hello"}
        assert answer.headers["content-type"] == "application/json"

    def test_streaming_answer(self, server: Server, client: httpx.Client, key: str) -> None:
        """
        The first piece arrives while the consumer waits for a request that the client makes only then.
        """
        with client.stream("GET", f"/consumer/stream/{key}") as answer:
            pieces = answer.iter_raw()
            read_through(pieces, b"first\n")
            server.cue(key)

            assert b"".join(pieces) == b"second\n"

    def test_long_poll(self, server: Server, client: httpx.Client, key: str) -> None:
        """
        A consumer that keeps its request open answers when a group message comes.
        """
        with server.dial() as dialogue:
            dialogue.request("GET", f"/consumer/long-poll/{key}", "Connection: close")
            server.notes.wait_for(f"long poll {key} waits")
            client.post(f"/consumer/say/{key}", content="news")

            assert b"news" in dialogue.read_to_end()
        server.notes.wait_for(f"long poll {key} disconnected")

    @departures
    def test_client_leaves_a_long_poll(self, server: Server, key: str, depart: Depart) -> None:
        """
        A consumer that keeps its request open is told when the client leaves.
        """
        dialogue = server.dial()
        dialogue.request("GET", f"/consumer/long-poll/{key}")
        server.notes.wait_for(f"long poll {key} waits")
        depart(dialogue)

        server.notes.wait_for(f"long poll {key} disconnected")
        server.still_serves()

    @pytest.mark.parametrize("path", ["endless", "parked"])
    def test_client_leaves_a_stream(self, server: Server, key: str, path: str) -> None:
        """
        A consumer in the middle of its answer is ended once its client has left, without a traceback.
        """
        depart_together(server, f"/consumer/{path}/{key}", b"first\n")

        server.notes.wait_for(f"{path} {key}-leave disconnected")
        server.notes.wait_for(f"{path} {key}-vanish disconnected")
        server.still_serves()

    def test_exception(self, server: Server, client: httpx.Client, key: str) -> None:
        """
        An exception in a consumer is a 500, with its traceback in the log once.
        """
        assert client.get(f"/consumer/fault/{key}").status_code == 500

        server.log.first(lambda line: line.endswith(f"DeliberateFault: {key}"), "traceback of the fault")
        server.still_serves()
        assert server.faults(key) == 1


class TestWithoutLifespan:
    """
    ProtocolTypeRouter without a lifespan raises for that scope.
    """

    @pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
    def test_shutdown(self, serve: Serve, how: signal.Signals) -> None:
        """
        A signal closes open WebSockets with 1012 and ends the server with status 0, without a traceback.
        """
        with serve(APPLICATION) as server, server.websocket("/room/end") as websocket:
            assert json.loads(websocket.recv()) == {"joined": "end"}
            server.process.send_signal(how)
            with pytest.raises(ConnectionClosed) as closed:
                websocket.recv()

            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
            assert server.wait_until_it_has_ended() == 0
            assert "room end left with 1012" in server.notes


class TestRootPath:
    """
    Channels below a prefix that a proxy has removed.
    """

    def test_root_path(self, serve: Serve) -> None:
        """
        With --root-path consumers and views match without the prefix.
        """
        with serve(APPLICATION, "--root-path", "/prefix") as server, server.client() as client:
            assert client.get("/consumer/reflect/x").json()["name"] == "x"
            assert client.get("/links").json()["item"] == "/prefix/items/tea"
            with server.websocket("/async/greet/x") as websocket:
                assert json.loads(websocket.recv())["name"] == "x"
