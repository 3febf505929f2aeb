"""
Asserts in the conformance suites and in clients say what they saw, as those in tests do.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    "txasgi.testing.conform",
    "txasgi.testing.h2_client",
    "txasgi.testing.h2_crowd",
    "txasgi.testing.h2_stream",
    "tests.wire.h1_client",
    "tests.wire.h2_frames",
    "tests.wire.h2_scene",
)
