"""What every framework's application shows through the server over WebSocket; see behaviours.py."""

import json

import pytest
from tests.frameworks.behaviours import PIECE, Depart, departures
from tests.frameworks.peers import DEADLINE_S, Dialogue
from tests.frameworks.running import Server
from websockets.exceptions import ConnectionClosed, InvalidStatus


class WebSockets:
    """
    WebSocket messages and closing, both ways, with the websockets library as the peer.

    root: where the WebSocket routes are.
    messages: what is echoed; a framework may leave out what it cannot take.
    code_of_a_fault: the close code that the framework, or the server for it, gives to an exception.
    """

    root = "/ws"
    messages: tuple[str | bytes, ...] = ("", "zoë €", b"", b"\x00\xff", "x" * 200, "y" * 70_000, PIECE * 160)
    code_of_a_fault = 1011

    @pytest.mark.parametrize("compression", [None, "deflate"])
    def test_text_and_binary(self, server: Server, compression: str | None) -> None:
        """
        Text and binary messages of every size come back as they were sent, empty ones too.
        """
        with server.websocket(f"{self.root}/echo", compression=compression, max_size=None) as websocket:
            for message in self.messages:
                websocket.send(message)
                assert message == websocket.recv()

    def test_fragmented_message(self, server: Server) -> None:
        """
        A message sent in fragments reaches the application as one.
        """
        with server.websocket(f"{self.root}/echo") as websocket:
            websocket.send(["frag", "men", "ted"])

            assert websocket.recv() == "fragmented"

    def test_many_messages_keep_their_order(self, server: Server) -> None:
        """
        Messages sent without waiting for answers come back in their order.
        """
        with server.websocket(f"{self.root}/echo") as websocket:
            for number in range(200):
                websocket.send(str(number))

            assert [str(number) for number in range(200)] == [websocket.recv() for _ in range(200)]

    def test_ping(self, server: Server) -> None:
        """
        A ping is answered while the application waits for a message.
        """
        with server.websocket(f"{self.root}/echo") as websocket:
            assert websocket.ping("are you there").wait(DEADLINE_S)

    def test_handshake_fields(self, server: Server) -> None:
        """
        Path, cookies and accept headers of the handshake pass both ways.
        """
        fields = {"Cookie": "flavour=rye; size=small"}
        with server.websocket(f"{self.root}/greet/zo%C3%AB", additional_headers=fields) as websocket:
            greeting = json.loads(websocket.recv())
            assert websocket.response is not None

            assert greeting == {"name": "zoë", "cookies": {"flavour": "rye", "size": "small"}}
            assert websocket.response.headers["x-answer"] == "yes"

    def test_subprotocol(self, server: Server) -> None:
        """
        The application sees the offered subprotocols in order and the client gets the chosen one.
        """
        with server.websocket(f"{self.root}/protocol", subprotocols=["chat.v1", "chat.v2"]) as websocket:
            assert websocket.subprotocol == "chat.v2"
            assert json.loads(websocket.recv()) == ["chat.v1", "chat.v2"]

    def test_no_subprotocol(self, server: Server) -> None:
        """
        Without an agreed subprotocol the connection has none.
        """
        with server.websocket(f"{self.root}/protocol", subprotocols=["chat.v1"]) as websocket:
            assert websocket.subprotocol is None
            assert json.loads(websocket.recv()) == ["chat.v1"]

    def test_server_closes(self, server: Server) -> None:
        """
        The close code and reason of the application reach the client.
        """
        with server.websocket(f"{self.root}/close") as websocket, pytest.raises(ConnectionClosed) as closed:
            websocket.recv()

        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "enough")

    def test_client_closes(self, server: Server, key: str) -> None:
        """
        The close code of the client reaches the application.
        """
        with server.websocket(f"{self.root}/note/{key}") as websocket:
            assert websocket.recv() == "ready"
            websocket.close(4000, "bye")

        server.notes.wait_for(f"ws {key} closed with 4000")

    @departures
    def test_client_drops_the_connection(self, server: Server, key: str, depart: Depart) -> None:
        """
        A connection that ends without a closing handshake reaches the application as code 1006.
        """
        dialogue = open_by_hand(server, f"{self.root}/note/{key}")
        dialogue.read_until(b"ready")
        depart(dialogue)

        server.notes.wait_for(f"ws {key} closed with 1006")
        server.still_serves()

    @departures
    def test_client_leaves_a_sending_application(self, server: Server, key: str, depart: Depart) -> None:
        """
        An application that goes on sending to a client that has left ends, without a traceback.
        """
        dialogue = open_by_hand(server, f"{self.root}/endless/{key}")
        dialogue.read_until(b"more")
        depart(dialogue)

        server.notes.wait_for(f"ws {key} ended")
        server.still_serves()

    def test_refusal(self, server: Server) -> None:
        """
        A connection that the application closes before accepting it is refused with 403.
        """
        with pytest.raises(InvalidStatus) as refusal, server.websocket(f"{self.root}/refuse"):
            pass

        assert refusal.value.response.status_code == 403

    def test_exception_after_accept(self, server: Server, key: str) -> None:
        """
        An exception in the application closes the connection with a code and is logged once.
        """
        with (
            server.websocket(f"{self.root}/fault/{key}") as websocket,
            pytest.raises(ConnectionClosed) as closed,
        ):
            websocket.recv()

        assert closed.value.rcvd is not None
        assert self.code_of_a_fault == closed.value.rcvd.code
        server.log.first(lambda line: line.endswith(f"DeliberateFault: {key}"), "traceback of the fault")
        server.still_serves()
        assert server.faults(key) == 1


def open_by_hand(server: Server, path: str) -> Dialogue:
    """
    A WebSocket opened over a connection that the test can end without a closing handshake.
    """
    dialogue = server.dial()
    dialogue.request(
        "GET",
        path,
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )
    head = dialogue.read_until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    return dialogue
