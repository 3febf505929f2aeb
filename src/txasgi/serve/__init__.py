"""
Processes: the command, and the server that runs in one process.

`txasgi.serve` is both this package and the function `await txasgi.serve(app)`: the package can be called.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    def __call__(self, app: Any, **options: Any) -> Awaitable[None]:
        from txasgi.serve.running import serve

        return serve(app, **options)


# Importing a package binds it to its name in the package above, where the function is looked for.
sys.modules[__name__].__class__ = _CallablePackage
