"""
What an application is called with over HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from txasgi.seam import Field
from txasgi.testing.conform.http_peer import HttpGroup, answer_with
from txasgi.testing.rig import response_body, response_start


class ScopeConformance(HttpGroup):
    """
    What the application is called with.
    """

    def scope_of(self, target: bytes, headers: Sequence[Field] = (), **gate_options: Any) -> Any:
        """
        The scope of a GET.
        """
        _, peer, script = self.script(**gate_options)
        peer.request("GET", target, headers)
        return script.call.scope

    def test_scope_keys(self) -> None:
        """
        The scope has every key of the HTTP specification 2.5, each of its type.
        """
        _, peer, script = self.script(state={})

        peer.request("DELETE", b"/a?b=c", [(b"x-a", b"1")])

        scope = script.call.scope
        assert scope["type"] == "http"
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
        assert peer.version == scope["http_version"]
        assert scope["method"] == "DELETE"
        assert scope["scheme"] == "http"
        assert scope["path"] == "/a"
        assert scope["raw_path"] == b"/a"
        assert scope["query_string"] == b"b=c"
        assert scope["root_path"] == ""
        assert (b"x-a", b"1") in [tuple(pair) for pair in scope["headers"]]
        assert peer.client == tuple(scope["client"])
        assert peer.server == tuple(scope["server"])
        assert scope["state"] == {}
        assert isinstance(scope["extensions"], dict)

    def test_extensions(self) -> None:
        """
        The scope names the extensions that work, each with a dict, and never debug.
        """
        _, peer, script = self.script()

        peer.request()

        extensions = script.call.scope["extensions"]
        assert all(isinstance(value, dict) for value in extensions.values())
        assert peer.trailers_out == ("http.response.trailers" in extensions)
        assert peer.early_hints == ("http.response.early_hint" in extensions)
        assert "http.response.pathsend" in extensions
        assert "http.response.debug" not in extensions
        assert "tls" not in extensions

    def test_extensions_are_not_shared(self) -> None:
        """
        An application that writes into its scope changes no other request's.
        """
        _, peer, script = self.script(state={"a": 1})
        peer.request()
        first = script.call.scope
        first["extensions"]["mine"] = {}
        first["asgi"]["mine"] = "x"
        first["state"]["mine"] = 1
        first["headers"] = []
        answer_with(script.call)

        peer.request()

        scope = script.call.scope
        assert "mine" not in scope["extensions"]
        assert "mine" not in scope["asgi"]
        assert scope["state"] == {"a": 1}
        assert scope["headers"]

    def test_scope_is_the_applications(self) -> None:
        """
        What an application does to its scope does not change how it is answered for.
        """
        _, peer, script = self.script()
        handle = peer.request("POST", b"/", [(b"te", b"trailers"), (b"content-length", b"5")], end=False)
        scope = script.call.scope
        scope["headers"][:] = [(b"content-length", b"nonsense"), (b"te", b"")]
        scope["method"], scope["http_version"] = "HEAD", "0.9"
        script.call.send(response_start(200, trailers=True), response_body(b"ok"))
        script.call.send({"type": "http.response.trailers", "headers": [(b"x-a", b"1")]})

        answer = peer.answer(handle)
        assert (answer.status, answer.body, answer.complete) == (200, b"ok", True)
        assert not peer.trailers_out or answer.trailers == [(b"x-a", b"1")]

    def test_path_is_decoded(self) -> None:
        """
        path is percent-decoded as UTF-8, raw_path is as it came; a slash that was encoded is told apart only there.
        """
        scope = self.scope_of(b"/a%2Fb%20c/%E2%82%AC/%e2%82%ac?%E2%82%AC=%2F")

        assert scope["path"] == "/a/b c/€/€"
        assert scope["raw_path"] == b"/a%2Fb%20c/%E2%82%AC/%e2%82%ac"
        assert scope["query_string"] == b"%E2%82%AC=%2F"

    def test_path_that_is_not_utf8(self) -> None:
        """
        Percent-encoded bytes that are not UTF-8 reach the application as a text that can be encoded again.
        """
        scope = self.scope_of(b"/a%ffb%c3")

        assert scope["raw_path"] == b"/a%ffb%c3"
        assert scope["path"].startswith("/a")
        scope["path"].encode()

    def test_path_is_not_tidied(self) -> None:
        """
        Dots, doubled slashes, plus signs and semicolons are the application's business.
        """
        scope = self.scope_of(b"//a/../b/./;c=1+2//?")

        assert scope["path"] == "//a/../b/./;c=1+2//"
        assert scope["raw_path"] == b"//a/../b/./;c=1+2//"
        assert scope["query_string"] == b""

    def test_path_with_a_lone_percent_sign(self) -> None:
        """
        A percent sign without two digits stands for itself.
        """
        scope = self.scope_of(b"/100%/%zz/%4")

        assert scope["path"] == "/100%/%zz/%4"
        assert scope["raw_path"] == b"/100%/%zz/%4"

    def test_path_decoded_once(self) -> None:
        """
        An encoded percent sign is not decoded again.
        """
        assert self.scope_of(b"/%2541")["path"] == "/%41"

    def test_encoded_controls_in_path(self) -> None:
        """
        Encoded line breaks and NUL are decoded in path and stay encoded in raw_path.
        """
        scope = self.scope_of(b"/a%0d%0ab%00")

        assert scope["path"] == "/a\r\nb\0"
        assert scope["raw_path"] == b"/a%0d%0ab%00"

    def test_query_string(self) -> None:
        """
        The query is everything behind the first question mark, as it came.
        """
        scope = self.scope_of(b"/a?b=c?d&e=%20+%ff")

        assert scope["path"] == "/a"
        assert scope["query_string"] == b"b=c?d&e=%20+%ff"

    def test_root_path(self) -> None:
        """
        root_path stands in front of path and of raw_path.
        """
        scope = self.scope_of(b"/a%20b?c", root_path="/mount")

        assert scope["root_path"] == "/mount"
        assert scope["path"] == "/mount/a b"
        assert scope["raw_path"] == b"/mount/a%20b"
        assert scope["query_string"] == b"c"

    def test_root_path_is_not_the_clients(self) -> None:
        """
        No header sets root_path, client or scheme of a server that trusts nobody.
        """
        scope = self.scope_of(
            b"/",
            [
                (b"daphne-root-path", b"/evil"),
                (b"x-forwarded-for", b"203.0.113.1"),
                (b"x-forwarded-proto", b"https"),
                (b"x-forwarded-prefix", b"/evil"),
                (b"forwarded", b"for=203.0.113.1;proto=https"),
                (b"script-name", b"/evil"),
            ],
        )

        assert scope["root_path"] == ""
        assert scope["path"] == "/"
        assert scope["scheme"] == "http"
        assert scope["client"][0] != "203.0.113.1"

    def test_headers(self) -> None:
        """
        Header names are lower case, values bytes without white space around them; order and duplicates are kept.
        """
        scope = self.scope_of(
            b"/",
            [
                (b"accept", b"a"),
                (b"x-b", b"2"),
                (b"accept", b"b, c"),
                (b"x-empty", b""),
                (b"x-latin", b"\xe9\xff"),
                (b"x-b", b"1"),
            ],
        )

        headers = [tuple(pair) for pair in scope["headers"]]
        assert [value for name, value in headers if name == b"accept"] == [b"a", b"b, c"]
        assert [value for name, value in headers if name == b"x-b"] == [b"2", b"1"]
        assert (b"x-empty", b"") in headers
        assert (b"x-latin", b"\xe9\xff") in headers
        assert all(name == name.lower() and not name.startswith(b":") for name, _ in headers)
        assert len([name for name, _ in headers if name == b"host"]) == 1
        ours = [pair for pair in headers if pair[0] in (b"accept", b"x-b", b"x-empty")]
        assert [name for name, _ in ours] == [b"accept", b"x-b", b"accept", b"x-empty", b"x-b"]

    def test_state_is_a_shallow_copy(self) -> None:
        """
        Each request has its own state dict that holds the same objects.
        """
        shared: list[str] = []
        state = {"shared": shared}
        _, peer, script = self.script(state=state)
        peer.request()
        scope = script.call.scope
        assert scope["state"]["shared"] is shared
        scope["state"]["own"] = 1
        answer_with(script.call)

        peer.request()

        assert {"shared": shared} == script.call.scope["state"]
        assert {"shared": shared} == state

    def test_state_follows_lifespan(self) -> None:
        """
        What lifespan puts into the state later is seen by later requests.
        """
        state: dict[str, Any] = {}
        _, peer, script = self.script(state=state)
        state["late"] = 1

        peer.request()

        assert script.call.scope["state"] == {"late": 1}

    def test_methods(self) -> None:
        """
        Each method of RFC 9110 and PATCH reaches the application.
        """
        _, peer, script = self.script()
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
            handle = peer.request(method)
            assert method == script.call.scope["method"]
            answer_with(script.call)
            assert peer.answer(handle).complete, method
