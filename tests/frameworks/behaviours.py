"""
What every framework's application shows through the server over HTTP, each behaviour written once.

A test module takes the classes that its framework can show; its application has their routes, which are the
paths used here. An application tells the test what it sees with witness.note(), and waits for the test where
it waits for witness.cue(): so an order of events is proved by a handshake, never by a time.
"""

import hashlib
import json
import signal
from collections.abc import Callable, Iterator

import httpx
import pytest
from tests.frameworks.conftest import Serve
from tests.frameworks.peers import Dialogue
from tests.frameworks.running import Server

PIECE = b"0123456789abcdef" * 512

# How a client leaves: Dialogue.leave or Dialogue.vanish.
Depart = Callable[[Dialogue], None]

departures = pytest.mark.parametrize("depart", [Dialogue.leave, Dialogue.vanish], ids=["leaves", "vanishes"])


def read_through(pieces: Iterator[bytes], wanted: bytes) -> None:
    """
    Take pieces of an answer until they are *wanted*, which they must be the start of all the way.
    """
    taken = b""
    while taken != wanted:
        taken += next(pieces)
        assert wanted.startswith(taken)


def depart_together(server: Server, path: str, last: bytes) -> None:
    """
    Request two answers and read each up to *last*, then leave the one and vanish from the other.

    The paths end in -leave and -vanish. Both at once, as to be cancelled takes a second or two.
    """
    leaving, vanishing = server.dial(), server.dial()
    leaving.request("GET", f"{path}-leave")
    vanishing.request("GET", f"{path}-vanish")
    leaving.read_until(last)
    vanishing.read_until(last)
    leaving.leave()
    vanishing.vanish()


class Requests:
    """
    A request reaches the view as it was sent, and the view's answer reaches the client as it was made.
    """

    def test_path_parameter(self, client: httpx.Client) -> None:
        """
        A path parameter reaches the view.
        """
        assert client.get("/items/tea").json()["name"] == "tea"

    def test_unicode_path(self, client: httpx.Client) -> None:
        """
        A percent-encoded UTF-8 path parameter reaches the view decoded once.
        """
        assert client.get("/items/zo%C3%AB%20%E2%82%AC25%2520").json()["name"] == "zoë €25%20"

    def test_plus_in_path(self, client: httpx.Client) -> None:
        """
        A plus sign in the path stays a plus sign.
        """
        assert client.get("/items/a+b").json()["name"] == "a+b"

    def test_query(self, client: httpx.Client) -> None:
        """
        Query parameters reach the view decoded, repeated ones in their order.
        """
        query = client.get("/items/tea?q=a%26b&q=2&price=%E2%82%AC&words=a+b%2B&none=").json()["query"]

        assert query == {"q": ["a&b", "2"], "price": ["€"], "words": ["a b+"], "none": [""]}

    def test_headers_and_cookies(self, client: httpx.Client) -> None:
        """
        Repeated headers and all cookies of a request reach the view.
        """
        fields = [("X-Many", "1"), ("X-Many", "2"), ("Cookie", "flavour=rye; size=small")]
        answer = client.get("/crumbs", headers=fields)

        assert answer.json() == {"many": "1,2", "cookies": {"flavour": "rye", "size": "small"}}

    def test_several_set_cookie(self, client: httpx.Client) -> None:
        """
        Several Set-Cookie fields of an answer stay separate, beside its other headers.
        """
        answer = client.get("/crumbs")
        cookies = answer.headers.get_list("set-cookie")

        assert sorted(cookie.partition(";")[0] for cookie in cookies) == ["flavour=oat", "size=large"]
        assert answer.headers.get_list("x-answer") == ["yes"]

    def test_json(self, client: httpx.Client) -> None:
        """
        A JSON body comes back as it was sent.
        """
        sent = {"name": "zoë", "list": [1, 2.5, None, True], "empty": {}}

        assert {"got": sent} == client.post("/json", json=sent).json()

    def test_form(self, client: httpx.Client) -> None:
        """
        The fields of a form reach the view, repeated ones in their order.
        """
        answer = client.post("/form", data={"name": "zoë & co", "tag": ["a", "b"]})

        assert answer.json() == {"name": ["zoë & co"], "tag": ["a", "b"]}

    def test_multipart_file(self, client: httpx.Client) -> None:
        """
        A file uploaded in a multipart form reaches the view whole, with its name and type.
        """
        content = PIECE * 100
        answer = client.post(
            "/upload", data={"title": "numbers"}, files={"file": ("n.bin", content, "application/x-numbers")}
        )

        assert {
            "title": "numbers",
            "name": "n.bin",
            "type": "application/x-numbers",
            "sha256": hashlib.sha256(content).hexdigest(),
        } == answer.json()

    def test_redirect(self, client: httpx.Client) -> None:
        """
        A redirect keeps its Location and is followed on the same connection.
        """
        answer = client.get("/away", follow_redirects=True)

        assert [step.status_code for step in answer.history] == [303]
        assert answer.url.path == "/items/home"
        assert answer.json()["name"] == "home"

    def test_large_answer(self, client: httpx.Client) -> None:
        """
        An answer much larger than a socket buffer arrives whole.
        """
        answer = client.get("/big")

        assert bytes(range(256)) * 4096 * 4 == answer.content
        assert str(len(answer.content)) == answer.headers["content-length"]

    def test_head(self, server: Server) -> None:
        """
        HEAD has the headers of GET, no body, and leaves the connection in step.
        """
        with server.dial() as dialogue:
            dialogue.request("HEAD", "/items/tea")
            head = dialogue.read_until(b"\r\n\r\n")
            dialogue.request("GET", "/items/tea", "Connection: close")
            second_head = dialogue.read_until(b"\r\n\r\n")
            body = dialogue.read_to_end()

        assert head.startswith(b"HTTP/1.1 200 ")
        assert second_head.startswith(b"HTTP/1.1 200 ")
        assert f"content-length: {len(body)}\r\n".encode() in head.lower()
        assert json.loads(body)["name"] == "tea"

    @pytest.mark.parametrize(("path", "status"), [("/empty", 204), ("/unchanged", 304)])
    def test_answer_without_body(self, server: Server, path: str, status: int) -> None:
        """
        A 204 or a 304 has no body, no Transfer-Encoding, and leaves the connection in step.
        """
        with server.dial() as dialogue:
            dialogue.request("GET", path)
            head = dialogue.read_until(b"\r\n\r\n")
            dialogue.request("GET", "/items/tea", "Connection: close")
            second_head = dialogue.read_until(b"\r\n\r\n")

        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        assert b"transfer-encoding" not in head.lower()
        assert (b'etag: "same"' in head.lower()) == (status == 304)
        assert second_head.startswith(b"HTTP/1.1 200 ")

    def test_unknown_path(self, client: httpx.Client) -> None:
        """
        A path without a route is the framework's own 404.
        """
        assert client.get("/nowhere").status_code == 404

    def test_one_connection_for_many_requests(self, server: Server) -> None:
        """
        Requests sent at once on one connection are answered there, in their order.
        """
        with server.dial() as dialogue:
            for name in ("a", "b", "c"):
                dialogue.request("GET", f"/items/{name}")
            dialogue.request("GET", "/items/d", "Connection: close")
            answers = dialogue.read_to_end()

        places = [answers.index(name) for name in (b'"a"', b'"b"', b'"c"', b'"d"')]
        assert sorted(places) == places
        assert answers.count(b"HTTP/1.1 200 ") == 4


class StreamingAnswers:
    """
    An answer goes out while the application still produces it.
    """

    def test_streaming_answer(self, server: Server, client: httpx.Client, key: str) -> None:
        """
        The first piece arrives while the application waits for a request that the client makes only then.
        """
        with client.stream("GET", f"/stream/{key}") as answer:
            pieces = answer.iter_raw()
            read_through(pieces, b"first\n")
            server.cue(key)

            assert b"".join(pieces) == b"second\n"
        assert "content-length" not in answer.headers

    def test_two_streams_side_by_side(self, server: Server, client: httpx.Client, key: str) -> None:
        """
        Two streaming answers are produced at the same time, and the later one may end first.
        """
        with (
            client.stream("GET", f"/stream/{key}a") as first,
            client.stream("GET", f"/stream/{key}b") as second,
        ):
            first_pieces, second_pieces = first.iter_raw(), second.iter_raw()
            read_through(first_pieces, b"first\n")
            read_through(second_pieces, b"first\n")
            server.cue(f"{key}b")
            assert b"".join(second_pieces) == b"second\n"
            server.cue(f"{key}a")
            assert b"".join(first_pieces) == b"second\n"

    def test_head_of_a_stream(self, server: Server, key: str) -> None:
        """
        HEAD of a streaming answer sends no body and leaves the connection in step.
        """
        server.cue(key)
        with server.dial() as dialogue:
            dialogue.request("HEAD", f"/stream/{key}")
            head = dialogue.read_until(b"\r\n\r\n")
            dialogue.request("GET", "/items/tea", "Connection: close")
            second_head = dialogue.read_until(b"\r\n\r\n")

        assert head.startswith(b"HTTP/1.1 200 ")
        assert second_head.startswith(b"HTTP/1.1 200 ")

    def test_stream_to_http_1_0(self, server: Server, key: str) -> None:
        """
        A streaming answer to an HTTP/1.0 client is not chunked and ends with the connection.
        """
        server.cue(key)
        with server.dial() as dialogue:
            dialogue.send(f"GET /stream/{key} HTTP/1.0\r\n\r\n".encode())
            head = dialogue.read_until(b"\r\n\r\n")
            body = dialogue.read_to_end()

        assert b"transfer-encoding" not in head.lower()
        assert body == b"first\nsecond\n"

    def test_server_sent_events(self, server: Server, client: httpx.Client, key: str) -> None:
        """
        A server-sent event arrives while the application waits before the next one.
        """
        with client.stream("GET", f"/events/{key}") as answer:
            lines = answer.iter_lines()
            assert "first" in next(line for line in lines if line.startswith("data:"))
            server.cue(key)
            assert "second" in next(line for line in lines if line.startswith("data:"))

        assert answer.headers["content-type"].startswith("text/event-stream")


class StreamingUploads:
    """
    The application reads a body while the client still sends it.
    """

    def test_streaming_upload(self, server: Server, client: httpx.Client, key: str) -> None:
        """
        The application has read each piece before the client sends the next one.
        """

        def pieces() -> Iterator[bytes]:
            for sent in range(1, 4):
                yield PIECE
                server.notes.wait_for(f"intake {key} {sent * len(PIECE)}")

        answer = client.post(f"/intake/{key}", content=pieces())

        assert {"total": 3 * len(PIECE), "sha256": hashlib.sha256(PIECE * 3).hexdigest()} == answer.json()

    def test_streaming_upload_of_known_length(self, server: Server, key: str) -> None:
        """
        A body with a Content-Length is read by the application while it comes, too.
        """
        with server.dial() as dialogue:
            dialogue.request("POST", f"/intake/{key}", "Content-Length: 10", "Connection: close")
            dialogue.send(b"01234")
            server.notes.wait_for(f"intake {key} 5")
            dialogue.send(b"56789")
            answer = dialogue.read_to_end()

        assert answer.startswith(b"HTTP/1.1 200 ")
        assert hashlib.sha256(b"0123456789").hexdigest().encode() in answer

    def test_large_upload(self, client: httpx.Client, key: str) -> None:
        """
        A body much larger than a socket buffer reaches the application whole.
        """
        answer = client.post(f"/intake/{key}", content=PIECE * 512)

        assert {"total": 512 * len(PIECE), "sha256": hashlib.sha256(PIECE * 512).hexdigest()} == answer.json()

    def test_expect_continue(self, server: Server, key: str) -> None:
        """
        A client that expects 100 Continue gets it once the application reads, and then its answer.
        """
        with server.dial() as dialogue:
            dialogue.request("POST", f"/intake/{key}", "Content-Length: 5", "Expect: 100-continue", "Connection: close")
            assert dialogue.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
            dialogue.send(b"01234")

            assert dialogue.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")

    @departures
    def test_client_leaves_during_upload(self, server: Server, key: str, depart: Depart) -> None:
        """
        The application is told of a client that leaves in the middle of its upload; nobody else notices.
        """
        dialogue = server.dial()
        dialogue.request("POST", f"/intake/{key}", "Transfer-Encoding: chunked")
        dialogue.send_chunk(b"01234")
        server.notes.wait_for(f"intake {key} 5")
        depart(dialogue)

        server.notes.wait_for(f"intake {key} lost")
        server.still_serves()


class Departures:
    """
    A client that leaves during its answer ends what was made for it, and nothing else.
    """

    @departures
    def test_client_leaves_a_producing_stream(self, server: Server, key: str, depart: Depart) -> None:
        """
        A stream that goes on producing is closed once its client has left, without a traceback.
        """
        dialogue = server.dial()
        dialogue.request("GET", f"/endless/{key}")
        dialogue.read_until(b"first\n")
        depart(dialogue)

        server.notes.wait_for(f"endless {key} closed")
        server.still_serves()

    def test_client_leaves_a_waiting_stream(self, server: Server, key: str) -> None:
        """
        A stream that waits for something that never comes is closed once its client has left.
        """
        depart_together(server, f"/parked/{key}", b"first\n")

        server.notes.wait_for(f"parked {key}-leave closed")
        server.notes.wait_for(f"parked {key}-vanish closed")
        server.still_serves()

    def test_other_streams_survive_a_departure(self, server: Server, client: httpx.Client, key: str) -> None:
        """
        A client that leaves does not disturb the stream of another.
        """
        with client.stream("GET", f"/stream/{key}") as answer:
            pieces = answer.iter_raw()
            read_through(pieces, b"first\n")
            dialogue = server.dial()
            dialogue.request("GET", f"/endless/{key}")
            dialogue.read_until(b"first\n")
            dialogue.vanish()
            server.notes.wait_for(f"endless {key} closed")
            server.cue(key)

            assert b"".join(pieces) == b"second\n"


class BackgroundWork:
    """
    Work that an application does after its answer.
    """

    def test_answer_comes_before_background_work(self, server: Server, client: httpx.Client, key: str) -> None:
        """
        The whole answer arrives while the background work still waits for the client's next request.
        """
        assert client.get(f"/later/{key}").text == "done\n"
        assert f"later {key} finished" not in server.notes

        server.cue(key)
        server.notes.wait_for(f"later {key} finished")

    def test_background_work_outlives_the_connection(self, server: Server, key: str) -> None:
        """
        Background work is not cancelled when the client closes its connection after the answer.

        A stream whose client leaves after that one shows when the time has come to cancel.
        """
        depart_together(server, f"/later/{key}", b"done\n")
        depart_together(server, f"/parked/{key}", b"first\n")
        server.notes.wait_for(f"parked {key}-leave closed")
        server.still_serves()

        for name in (f"{key}-leave", f"{key}-vanish"):
            server.cue(name)
            server.notes.wait_for(f"later {name} finished")
            assert f"later {name} cancelled" not in server.notes


class Faults:
    """
    An exception in the application is answered and logged, once.
    """

    def test_exception_before_the_answer(self, server: Server, client: httpx.Client, key: str) -> None:
        """
        An exception in a view is a 500, with its traceback in the log once and not in the answer.
        """
        answer = client.get(f"/fault/{key}")

        assert answer.status_code == 500
        assert "Traceback" not in answer.text
        server.log.first(lambda line: line.endswith(f"DeliberateFault: {key}"), "traceback of the fault")
        server.still_serves()
        assert server.faults(key) == 1

    def test_exception_during_the_answer(self, server: Server, client: httpx.Client, key: str) -> None:
        """
        An exception after the answer has begun breaks the answer off, so that it cannot pass for whole.
        """
        with client.stream("GET", f"/fault-midway/{key}") as answer:
            pieces = answer.iter_raw()
            read_through(pieces, b"first\n")
            server.cue(key)
            with pytest.raises(httpx.TransportError):
                next(pieces)

        server.log.first(lambda line: line.endswith(f"DeliberateFault: {key}"), "traceback of the fault")
        server.still_serves()
        assert server.faults(key) == 1


class Lifespan:
    """
    The application's start-up comes before its first request and its shutdown after its last.
    """

    def test_startup_value(self, client: httpx.Client) -> None:
        """
        What the start-up made is there for every request.
        """
        assert client.get("/state").json() == {"started": "yes"}

    @pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
    def test_shutdown(self, serve: Serve, request: pytest.FixtureRequest, how: signal.Signals) -> None:
        """
        A signal ends the server with status 0 after the application's shutdown has run once.
        """
        with serve(request.module.APPLICATION) as server:
            server.notes.wait_for("startup")
            server.still_serves()
            assert "shutdown" not in server.notes

            assert server.stop(how) == 0
            assert list(server.notes) == ["startup", "shutdown"]
