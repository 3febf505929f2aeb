"""
The opening handshake.
"""

from __future__ import annotations

from txasgi.errors import ApplicationError, ClientDisconnected
from txasgi.testing.conform.websocket_peer import ACCEPT, DEFLATE, WebSocketGroup, departure, raised
from txasgi.testing.rig import Script


class HandshakeConformance(WebSocketGroup):
    """
    The opening handshake.
    """

    def test_scope(self) -> None:
        """
        The scope has what ASGI lists for a WebSocket, and no method.
        """
        state = {"pool": object()}
        script = Script()
        peer = self.peer(script, state=state, root_path="/root")
        peer.open(b"/a%20b/%C3%A9?x=%20y", [(b"x-thing", b"one"), (b"x-thing", b"\xfftwo")], ["chat", "superchat"])

        scope = script.call.scope
        assert scope["type"] == "websocket"
        assert scope["asgi"]["version"] == "3.0" and scope["asgi"]["spec_version"] in ("2.4", "2.5")
        assert scope["http_version"] == self.http_version
        assert scope["scheme"] == "ws"
        assert scope["path"] == "/root/a b/é"
        assert scope["raw_path"] == b"/root/a%20b/%C3%A9"
        assert scope["query_string"] == b"x=%20y"
        assert scope["root_path"] == "/root"
        assert [value for name, value in scope["headers"] if name == b"x-thing"] == [b"one", b"\xfftwo"]
        assert all(name == name.lower() for name, _ in scope["headers"])
        assert scope["subprotocols"] == ["chat", "superchat"]
        assert scope["extensions"]["websocket.http.response"] == {}
        assert scope["client"][0] == "192.0.2.7" and scope["server"][0] == "127.0.0.1"
        assert scope["state"] == state and scope["state"] is not state
        assert scope["state"]["pool"] is state["pool"]
        assert "method" not in scope
        script.call.send({"type": "websocket.close"})

    def test_scope_without_extras(self) -> None:
        """
        Without subprotocols and lifespan state the scope has an empty list and no state.
        """
        call, _ = self.asked()

        assert call.scope["subprotocols"] == []
        assert "state" not in call.scope

    def test_secure_scheme(self) -> None:
        """
        Over TLS the scheme is wss.
        """
        call, _ = self.asked(secure=True)

        assert call.scope["scheme"] == "wss"

    def test_nothing_is_answered_before_the_application_decides(self) -> None:
        """
        The handshake stays unanswered, and a second receive waits, until the application has decided.
        """
        call, peer = self.asked()
        receiving = call.receiving()

        assert peer.status is None and not receiving.done()

        receiving.cancel()
        self.accept(call)

        assert peer.status == self.opened_status

    def test_accept(self) -> None:
        """
        Accepted without more, the answer names no subprotocol and no extension that was not offered.
        """
        _, peer = self.opened()

        names = [name for name, _ in peer.headers]
        assert b"sec-websocket-protocol" not in names
        assert b"sec-websocket-extensions" not in names

    def test_accept_with_subprotocol_and_headers(self) -> None:
        """
        The chosen subprotocol and the application's headers, in their order, are in the answer.
        """
        call, peer = self.asked(subprotocols=["chat", "superchat"])
        cookies = [(b"set-cookie", b"a=1"), (b"x-other", b"  spaced "), (b"set-cookie", b"b=2")]
        self.accept(call, subprotocol="superchat", headers=cookies)

        assert peer.status == self.opened_status
        assert [v for n, v in peer.headers if n == b"sec-websocket-protocol"] == [b"superchat"]
        assert [v for n, v in peer.headers if n == b"set-cookie"] == [b"a=1", b"b=2"]
        assert (b"x-other", b"spaced") in peer.headers

    def test_wrong_accept(self) -> None:
        """
        An accept with bad headers or a subprotocol that was not offered raises, and a right one still opens.
        """
        for wrong in (
            {"headers": [(b"x-a", b"b\r\nx-c: d")]},
            {"headers": [(b"x a", b"b")]},
            {"headers": [("x-a", "b")]},
            {"headers": [(b":status", b"200")]},
            {"headers": [(b"sec-websocket-protocol", b"chat")]},
            {"subprotocol": "other"},
            {"subprotocol": ""},
            {"subprotocol": b"chat"},
        ):
            call, peer = self.asked(subprotocols=["chat"])

            assert isinstance(raised(call, {**ACCEPT, **wrong}), ApplicationError), wrong
            assert peer.status is None, wrong

            self.accept(call, subprotocol="chat")
            assert peer.status == self.opened_status, wrong

    def test_handshake_fields_are_the_servers(self) -> None:
        """
        Headers of the application cannot double or replace those that make the handshake.
        """
        call, peer = self.asked(extensions=[DEFLATE])
        ours = (b"sec-websocket-accept", b"sec-websocket-extensions", b"connection", b"upgrade", b"transfer-encoding")
        raised(call, {**ACCEPT, "headers": [(name, b"x") for name in ours]})
        if peer.status is None:
            self.accept(call)

        assert peer.status == self.opened_status
        assert not [name for name, value in peer.headers if value == b"x"]

    def test_accept_with_server_and_date(self) -> None:
        """
        Server and Date of the application are sent instead of the server's, not beside them.
        """
        call, peer = self.asked()
        self.accept(call, headers=[(b"server", b"mine"), (b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")])

        assert [value for name, value in peer.headers if name == b"server"] == [b"mine"]
        assert [value for name, value in peer.headers if name == b"date"] == [b"Thu, 01 Jan 1970 00:00:00 GMT"]

    def test_accept_twice(self) -> None:
        """
        A second accept raises, and the connection stays open.
        """
        call, peer = self.opened()

        assert isinstance(raised(call, ACCEPT), ApplicationError)
        call.send({"type": "websocket.send", "text": "still here"})
        assert peer.frames() == [("text", "still here")]

    def test_close_before_accept(self) -> None:
        """
        Closed before it was accepted, the answer is 403, and receive gives the disconnect.
        """
        call, peer = self.asked()
        call.send({"type": "websocket.close", "code": 4001, "reason": "no"})

        assert peer.status == 403 and peer.complete
        assert departure(call.receive())[0] == 1006
        call.finish()
        assert [(str(o.status), o.kind == "open") for o in self.rig.outcomes] == [("403", False)]

    def test_messages_before_the_decision(self) -> None:
        """
        What is neither a decision nor known raises, and the decision is still open.
        """
        call, peer = self.asked()
        for wrong in (
            {"type": "websocket.send", "text": "early"},
            {"type": "http.response.start", "status": 200},
            {"type": "websocket.http.response.body", "body": b""},
            {"type": "websocket.receive", "text": "x"},
            {"type": "unheard.of"},
            {},
        ):
            assert isinstance(raised(call, wrong), ApplicationError), wrong
        assert peer.status is None

        self.accept(call)
        assert peer.status == self.opened_status

    def test_exception_before_accept(self) -> None:
        """
        An exception before the decision is a 500, logged once with its traceback.
        """
        call, peer = self.asked()
        call.fail(ValueError("broken"))

        assert peer.status == 500 and peer.complete
        assert [ValueError] == [record.exc_info[0] for record in self.faults() if record.exc_info]

    def test_return_before_accept(self) -> None:
        """
        A return without a decision is a 500, logged once.
        """
        call, peer = self.asked()
        call.finish()

        assert peer.status == 500 and peer.complete
        assert len(self.faults()) == 1

    def test_peer_leaves_before_accept(self) -> None:
        """
        A client that leaves before the decision is a disconnect 1006; accept raises ClientDisconnected, not logged.
        """
        call, peer = self.asked()
        receiving = call.receiving()
        peer.leave()

        assert departure(receiving.result())[0] == 1006
        error = raised(call, ACCEPT)
        assert isinstance(error, ClientDisconnected) and isinstance(error, OSError)
        call.fail(error)
