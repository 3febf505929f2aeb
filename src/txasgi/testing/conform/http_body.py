"""
Request bodies, as the application receives them.
"""

from __future__ import annotations

from typing import Any

from txasgi.asgi.task import Message, Receive, Send
from txasgi.testing.conform.http_peer import (
    DISCONNECT,
    HELD,
    MIB,
    HttpGroup,
    answer_with,
    complete_answer,
    pieces,
    read_body,
)
from txasgi.testing.rig import response_body, response_start


class ReceiveConformance(HttpGroup):
    """
    What the application receives.
    """

    def test_body(self) -> None:
        """
        A body that came whole is received, more_body False at its end.
        """
        _, peer, script = self.script()

        peer.request("POST", body=b"hello")

        assert read_body(script.call) == b"hello"

    def test_no_body(self) -> None:
        """
        A request without body is one empty http.request.
        """
        _, peer, script = self.script()

        peer.request()

        message = script.call.receive()
        assert message == {"type": "http.request", "body": b"", "more_body": False}

    def test_empty_body(self) -> None:
        """
        An announced body of no bytes is received as empty.
        """
        _, peer, script = self.script()
        for at_once in (True, False):
            handle = peer.request("POST", body=b"", end=at_once)
            if not at_once:
                peer.body(handle, end=True)
            assert read_body(script.call) == b""
            answer_with(script.call)
            assert peer.answer(handle).complete

    def test_body_in_parts(self) -> None:
        """
        Each part of a body is received when it comes, more_body True until the last.
        """
        _, peer, script = self.script()
        handle = peer.request("POST", end=False)
        call = script.call
        receiving = call.receiving()
        assert not receiving.done()

        peer.body(handle, b"a")
        assert receiving.result() == {"type": "http.request", "body": b"a", "more_body": True}

        receiving = call.receiving()
        assert not receiving.done()
        peer.body(handle, b"b", end=True)
        message = receiving.result()
        rest = read_body(call) if message["more_body"] else b""
        assert message["body"] + rest == b"b"

    def test_body_ends_late(self) -> None:
        """
        The end of a body that comes by itself wakes a receive() that waits.
        """
        _, peer, script = self.script()
        handle = peer.request("POST", body=b"hello", end=False)
        message = script.call.receive()
        assert (message["body"], message["more_body"]) == (b"hello", True)
        receiving = script.call.receiving()
        assert not receiving.done()

        peer.body(handle, end=True)

        assert receiving.result() == {"type": "http.request", "body": b"", "more_body": False}

    def test_no_empty_parts(self) -> None:
        """
        receive() never returns an empty part in the middle of a body.
        """
        _, peer, script = self.script()
        handle = peer.request("POST", end=False)
        for letter in b"abc":
            peer.body(handle, bytes([letter]))
        peer.body(handle, b"d", end=True)

        parts: list[Message] = []
        while not parts or parts[-1]["more_body"]:
            parts.append(script.call.receive())

        assert b"".join(part["body"] for part in parts) == b"abcd"
        assert all(part["body"] for part in parts[:-1])

    def test_large_body(self) -> None:
        """
        A body of many reads comes complete and in order.
        """
        _, peer, script = self.script()
        sent = b"".join(pieces(3 * MIB, 100_000))
        handle = peer.request("POST", end=False)
        peer.body(handle, sent, end=True)
        received = bytearray()
        while True:
            message = script.call.receive()
            received += message["body"]
            peer.unsent(handle)
            if not message["more_body"]:
                break

        assert sent == received

    def test_request_trailers(self) -> None:
        """
        Trailers of a request end its body and are not taken for headers.
        """
        _, peer, script = self.script()
        if not peer.trailers_in:
            return
        handle = peer.request("POST", body=b"hello", end=False)
        peer.body(handle, end=True, trailers=[(b"x-sum", b"1")])

        assert read_body(script.call) == b"hello"
        assert b"x-sum" not in [name for name, _ in script.call.scope["headers"]]
        answer_with(script.call)
        assert peer.answer(handle).complete
        self.check_usable(peer, script)

    def test_receive_waits_for_the_end_of_the_answer(self) -> None:
        """
        receive() after the body waits, and gives http.disconnect once the answer is complete.
        """
        _, peer, script = self.script()
        peer.request()
        read_body(script.call)
        waiting = script.call.receiving()
        script.call.send(response_start())
        assert not waiting.done()
        script.call.send(response_body(b"a", more=True))
        assert not waiting.done()

        script.call.send(response_body(b"b"))

        assert waiting.result() == DISCONNECT
        assert script.call.receive() == DISCONNECT

    def test_disconnect_wakes_every_receive(self) -> None:
        """
        When the client leaves, each receive() that waits gives http.disconnect.
        """
        _, peer, script = self.script()
        peer.request()
        read_body(script.call)
        waiting = [script.call.receiving() for _ in range(3)]

        peer.leave()

        assert [task.result() for task in waiting] == [DISCONNECT] * 3

    def test_disconnect_before_the_body(self) -> None:
        """
        A receive() that waits for the body gives http.disconnect when the client gives up.
        """
        _, peer, script = self.script()
        handle = peer.request("POST", end=False)
        waiting = script.call.receiving()
        assert not waiting.done()

        peer.abandon(handle)

        assert waiting.result() == DISCONNECT

    def test_broken_off_body_never_ends(self) -> None:
        """
        A body that the client broke off is followed by http.disconnect, never by more_body False.
        """
        _, peer, script = self.script()
        handle = peer.request("POST", headers=[(b"content-length", b"10")], body=b"hello", end=False)

        peer.abandon(handle)

        messages = [script.call.receive(), script.call.receive(), script.call.receive()]
        assert messages[-1] == DISCONNECT
        assert all(message["more_body"] for message in messages if message["type"] == "http.request")

    def test_receive_after_disconnect_returns(self) -> None:
        """
        receive() after http.disconnect gives it again, as often as asked.
        """
        _, peer, script = self.script()
        peer.request()
        read_body(script.call)
        peer.leave()

        assert [script.call.receive() for _ in range(5)] == [DISCONNECT] * 5

    def test_receive_after_disconnect_does_not_hog_the_loop(self) -> None:
        """
        An application that goes on receiving after its client left lets others run.
        """
        many = 100_000
        counts: list[int] = []

        async def application(_scope: Any, receive: Receive, _send: Send) -> None:
            mine = len(counts)
            counts.append(0)
            for _ in range(many):
                await receive()
                counts[mine] += 1

        _, peer = self.serve(application)
        peer.request()
        peer.leave()

        assert 1 < counts[0] < many

    def test_receive_after_the_answer_does_not_hog_the_loop(self) -> None:
        """
        Nor does one that goes on receiving after its answer.
        """
        many = 100_000
        count = 0

        async def application(scope: Any, receive: Receive, send: Send) -> None:
            nonlocal count
            await send(response_start())
            await send(response_body(b"ok"))
            for _ in range(many if scope["path"] == "/loop" else 0):
                await receive()
                count += 1

        _, peer = self.serve(application)
        peer.request("GET", b"/loop")
        handle = peer.request("GET", b"/other")

        assert peer.answer(handle).complete
        assert 1 < count < many

    def test_cancelled_receive_loses_nothing(self) -> None:
        """
        A receive() that was cancelled while it waited takes no message with it.
        """
        rig, peer, script = self.script()
        handle = peer.request("POST", end=False)
        waiting = script.call.receiving()
        waiting.cancel()
        rig.settle()
        assert waiting.cancelled()

        peer.body(handle, b"hello", end=True)

        assert read_body(script.call) == b"hello"

    def test_each_part_goes_to_one_receive(self) -> None:
        """
        Of several receive() that wait, each part of the body wakes one, or all of them see the end.
        """
        _, peer, script = self.script()
        handle = peer.request("POST", end=False)
        waiting = [script.call.receiving() for _ in range(2)]

        peer.body(handle, b"a")
        got = [task.result() for task in waiting if task.done()]
        assert [message["body"] for message in got] == [b"a"]

        peer.body(handle, b"b", end=True)
        got = [task.result() for task in waiting if task.done()]
        rest = b"" if all(task.done() for task in waiting) and not got[-1]["more_body"] else read_body(script.call)
        assert sorted([*(message["body"] for message in got), rest])[-2:] == [b"a", b"b"]
        script.call.finish()

    def test_receive_after_an_early_answer(self) -> None:
        """
        receive() after a complete answer does not wait for a body that is still to come.
        """
        _, peer, script = self.script()
        handle = peer.request("POST", headers=[(b"content-length", b"10")], body=b"hello", end=False)
        script.call.send(response_start(), response_body(b"ok"))

        messages = [script.call.receive(), script.call.receive()]
        assert messages[-1] == DISCONNECT
        assert all(message["more_body"] for message in messages if message["type"] == "http.request")
        answer = peer.answer(handle)
        assert (answer.status, answer.body, answer.complete) == (200, b"ok", True)

    def test_body_behind_an_early_answer(self) -> None:
        """
        What is left of a body when its answer is complete holds nothing up, and is for nobody.
        """
        _, peer, script = self.script()
        handle = peer.request("POST", headers=[(b"content-length", b"%d" % MIB)], body=b"hello", end=False)
        answer_with(script.call)
        assert complete_answer(peer, handle) == (200, b"ok", True)
        if peer.multiplexed:
            # RFC 9113 section 8.1: the client was told to send no more of it.
            self.check_usable(peer, script)

        peer.body(handle, bytes(MIB - 5), end=True)

        assert peer.unsent(handle) == 0 or not peer.alive
        assert complete_answer(peer, handle) == (200, b"ok", True)
        if peer.multiplexed or peer.alive:
            self.check_usable(peer, script)

    def test_waiting_receive_and_early_answer(self) -> None:
        """
        A receive() that waits for a body gives http.disconnect when the answer is complete without it.
        """
        _, peer, script = self.script()
        peer.request("POST", headers=[(b"content-length", b"10")], end=False)
        waiting = script.call.receiving()
        assert not waiting.done()

        script.call.send(response_start(), response_body(b"ok"))

        assert waiting.result() == DISCONNECT

    def test_body_back_pressure(self) -> None:
        """
        The peer of an application that does not receive is stopped, and goes on once it does.
        """
        _, peer, script = self.script()
        handle = peer.request("POST", headers=[(b"content-length", b"%d" % (4 * MIB))], end=False)
        sent = b"".join(pieces(4 * MIB))
        peer.body(handle, sent, end=True)
        held = len(sent) - peer.unsent(handle)
        assert held <= HELD, f"{held} bytes held"

        received = bytearray()
        while True:
            message = script.call.receive()
            received += message["body"]
            # What is taken by the application and by nobody else lets the peer go on, but not further.
            assert len(sent) - peer.unsent(handle) - len(received) <= HELD
            if not message["more_body"]:
                break

        assert sent == received
        assert peer.unsent(handle) == 0

    def test_client_is_seen_leaving_while_its_body_waits(self) -> None:
        """
        A client that leaves while its body is not received: the application gets http.disconnect soon.
        """
        _, peer, script = self.script()
        handle = peer.request("POST", headers=[(b"content-length", b"%d" % (4 * MIB))], end=False)
        peer.body(handle, bytes(2 * MIB))

        peer.leave()

        for _ in range(1000):
            message = script.call.receive()
            if message["type"] == "http.disconnect":
                return
            assert message["more_body"]
        raise AssertionError("no http.disconnect")
