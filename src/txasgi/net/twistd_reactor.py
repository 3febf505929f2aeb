"""
What `twistd --reactor=txasgi` installs.
"""

from __future__ import annotations

from txasgi.net.reactor import plugin_install as install

__all__ = ["install"]
