"""
Asserts in the conformance suites say what they saw, as those in tests do.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("txasgi.testing.conform_http", "txasgi.testing.conform_websocket")
