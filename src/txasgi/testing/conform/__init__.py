"""
The conformance suite of a wire: each behaviour once, whatever carries it. `http` has that of HTTP, `websocket` that of
WebSocket; the modules beside them are their groups of tests.
"""
