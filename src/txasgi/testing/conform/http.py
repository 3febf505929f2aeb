"""
The conformance suite of a wire, for HTTP: each behaviour once, whatever carries it.

A wire is tested by a subclass of `HttpConformance` whose `make` returns a `Rig` and a peer that speaks the wire's
protocol, best with a parser that is not ours:

    class TestH1Conformance(HttpConformance):
        def make(self, application, **gate_options):
            rig = Rig(application, **gate_options)
            return rig, H1Peer(rig)

Written for pytest, which collects the subclass; `caplog` and `tmp_path` are its fixtures. What a test expects comes
from the ASGI specification (HTTP 2.5 and extensions) and from RFC 9110, never from what a wire happens to do. Where
these leave a choice, the tests accept each of them.
"""

from __future__ import annotations

from txasgi.testing.conform.http_answer import SendConformance
from txasgi.testing.conform.http_body import ReceiveConformance
from txasgi.testing.conform.http_disconnect import DisconnectConformance
from txasgi.testing.conform.http_extensions import ExtensionConformance
from txasgi.testing.conform.http_failures import FailureConformance
from txasgi.testing.conform.http_outcomes import OutcomeConformance
from txasgi.testing.conform.http_push import PushConformance
from txasgi.testing.conform.http_refusals import RefusalConformance
from txasgi.testing.conform.http_scope import ScopeConformance
from txasgi.testing.conform.http_tasks import TaskConformance


class HttpConformance(
    ScopeConformance,
    ReceiveConformance,
    SendConformance,
    RefusalConformance,
    FailureConformance,
    DisconnectConformance,
    ExtensionConformance,
    PushConformance,
    TaskConformance,
    OutcomeConformance,
):
    """
    All of it. A subclass has a `make`.
    """
