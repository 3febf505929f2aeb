"""
An application under the name that Django gives it.
"""

from tests.serve.apps.shapes import function as application

__all__ = ["application"]
