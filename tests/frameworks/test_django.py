"""Django: everything in behaviours.py that it has, and its views, signals, files and script name."""

import signal

import httpx
import pytest
from tests.frameworks.behaviours import (
    BackgroundWork,
    Depart,
    Departures,
    Faults,
    Requests,
    StreamingAnswers,
    StreamingUploads,
    departures,
)
from tests.frameworks.conftest import Serve
from tests.frameworks.running import Server

APPLICATION = "django_app:app"


class TestRequests(Requests):
    """
    Requests to Django's views.
    """

    def test_async_view(self, client: httpx.Client) -> None:
        """
        An async view has the same request as a sync one.
        """
        assert client.get("/async-items/zo%C3%AB?q=1&q=2").json() == {
            "name": "zoë",
            "query": {"q": ["1", "2"]},
        }

    def test_file_response(self, client: httpx.Client) -> None:
        """
        A FileResponse arrives whole, with its length and Content-Disposition.
        """
        answer = client.get("/download")

        assert answer.content == b"abcdefghijklmnopqrstuvwxyz"
        assert answer.headers["content-length"] == "26"
        assert answer.headers["content-disposition"] == 'attachment; filename="abc.txt"'

    def test_request_finished(self, server: Server, client: httpx.Client, key: str) -> None:
        """
        The signal request_finished is sent once a request is answered, while the connection stays open.
        """
        client.get(f"/items/{key}")

        server.notes.wait_for(f"request finished /items/{key}")

    def test_urls(self, server: Server, client: httpx.Client) -> None:
        """
        URLs that the application makes name the server as the client does.
        """
        assert {
            "item": "/items/tea",
            "full_path": "/links?a=1",
            "path_info": "/links",
            "script_name": "",
            "url": f"{server.url}/links?a=1",
        } == client.get("/links?a=1").json()


class TestStreamingAnswers(StreamingAnswers):
    """
    Django's StreamingHttpResponse of asynchronous generators.
    """


class TestStreamingUploads(StreamingUploads):
    """
    Django's reading of a body, which it does before it looks for a view.
    """


class TestDepartures(Departures):
    """
    Clients that leave Django's answers.
    """

    @departures
    @pytest.mark.parametrize("path", ["endless", "parked"])
    def test_request_finished_of_a_stream(self, server: Server, key: str, depart: Depart, path: str) -> None:
        """
        The signal request_finished is sent, too, when the client leaves in the middle of a stream.
        """
        dialogue = server.dial()
        dialogue.request("GET", f"/{path}/{key}")
        dialogue.read_until(b"first\n")
        assert f"request finished /{path}/{key}" not in server.notes
        depart(dialogue)

        server.notes.wait_for(f"request finished /{path}/{key}")
        server.still_serves()

    @departures
    def test_client_leaves_before_the_answer(self, server: Server, key: str, depart: Depart) -> None:
        """
        An async view that still works when its client leaves is cancelled, and request_finished is sent.
        """
        dialogue = server.dial()
        dialogue.request("GET", f"/hang/{key}")
        server.notes.wait_for(f"hang {key} started")
        depart(dialogue)

        server.notes.wait_for(f"hang {key} cancelled")
        server.notes.wait_for(f"request finished /hang/{key}")
        server.still_serves()


class TestBackgroundWork(BackgroundWork):
    """
    Tasks that Django's views start.
    """


class TestFaults(Faults):
    """
    Exceptions out of Django's views.
    """

    def test_exception_in_an_async_view(self, server: Server, client: httpx.Client, key: str) -> None:
        """
        An exception in an async view is a 500, with its traceback in the log once.
        """
        assert client.get(f"/async-fault/{key}").status_code == 500

        server.log.first(lambda line: line.endswith(f"DeliberateFault: {key}"), "traceback of the fault")
        server.still_serves()
        assert server.faults(key) == 1


class TestWithoutLifespan:
    """
    Django has no lifespan: it raises for that scope.
    """

    @pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
    def test_shutdown(self, serve: Serve, how: signal.Signals) -> None:
        """
        An application without a lifespan is served and ended by a signal with status 0, without a traceback.
        """
        with serve(APPLICATION) as server:
            server.still_serves()

            assert server.stop(how) == 0
            assert server.unexpected_tracebacks() == []


class TestRootPath:
    """
    Django below a prefix that a proxy has removed.
    """

    def test_root_path(self, serve: Serve) -> None:
        """
        With --root-path views match without the prefix, and it is the script name of URLs that Django makes.
        """
        with serve(APPLICATION, "--root-path", "/prefix") as server, server.client() as client:
            assert client.get("/items/tea").json()["name"] == "tea"
            assert {
                "item": "/prefix/items/tea",
                "full_path": "/prefix/links?a=1",
                "path_info": "/links",
                "script_name": "/prefix",
                "url": f"{server.url}/prefix/links?a=1",
            } == client.get("/links?a=1").json()
