"""
Asserts in the conformance suites and in clients say what they saw, as those in tests do.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("txasgi.testing.conform", "tests.wire.h1_client")
