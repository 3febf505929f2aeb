"""
Applications of every shape that there is, and some that are none. Each answers with its own name.
"""

import functools
from typing import Any


async def answer(name: str, scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": name.encode()})


async def function(scope: Any, receive: Any, send: Any) -> None:
    await answer("function", scope, receive, send)


def plain(scope: Any, receive: Any, send: Any) -> Any:
    return answer("plain", scope, receive, send)


def starred(*arguments: Any) -> Any:
    return answer("starred", *arguments)


class Callable3:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await answer("callable3", scope, receive, send)

    async def method(self, scope: Any, receive: Any, send: Any) -> None:
        await answer("method", scope, receive, send)

    @classmethod
    async def class_method(cls, scope: Any, receive: Any, send: Any) -> None:
        await answer("class_method", scope, receive, send)


class Awaitable3:
    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self.arguments = (scope, receive, send)

    def __await__(self) -> Any:
        return answer("awaitable3", *self.arguments).__await__()


class Class2:
    def __init__(self, scope: Any) -> None:
        self.scope = scope

    async def __call__(self, receive: Any, send: Any) -> None:
        await answer("class2", self.scope, receive, send)


class Configured2(Class2):
    def __init__(self, scope: Any, word: str) -> None:
        super().__init__(scope)

    async def __call__(self, receive: Any, send: Any) -> None:
        await answer("partial_class2", self.scope, receive, send)


def function2(scope: Any) -> Any:
    return functools.partial(answer, "function2", scope)


class Callable2:
    def __call__(self, scope: Any) -> Any:
        return functools.partial(answer, "callable2", scope)


def named(name: str, scope: Any, receive: Any, send: Any) -> Any:
    return answer(name, scope, receive, send)


def keyed(scope: Any, receive: Any, send: Any, name: str) -> Any:
    return answer(name, scope, receive, send)


def keyed2(scope: Any, name: str) -> Any:
    return functools.partial(answer, name, scope)


def decorated(application: Any) -> Any:
    @functools.wraps(application)
    def inner(*arguments: Any) -> Any:
        return application(*arguments)

    return inner


callable3 = Callable3()
method = callable3.method
class_method = Callable3.class_method
awaitable3 = Awaitable3
partial = functools.partial(answer, "partial")
partial_plain = functools.partial(named, "partial_plain")
partial_keyed = functools.partial(keyed, name="partial_keyed")
partial_of_partial = functools.partial(functools.partial(named), "partial_of_partial")
decorated3 = decorated(plain)

class2 = Class2
callable2 = Callable2()
partial_class2 = functools.partial(Configured2, word="x")
partial_function2 = functools.partial(keyed2, name="partial_function2")
decorated2 = decorated(function2)

NAMES = {
    "decorated3": "plain",
    "decorated2": "function2",
}
ASGI3 = [
    "function",
    "plain",
    "starred",
    "callable3",
    "method",
    "class_method",
    "awaitable3",
    "partial",
    "partial_plain",
    "partial_keyed",
    "partial_of_partial",
    "decorated3",
]
ASGI2 = ["class2", "function2", "callable2", "partial_class2", "partial_function2", "decorated2"]


def make() -> Any:
    return function


def make2() -> Any:
    return Class2


def make_nothing() -> Any:
    return None


def make_fault() -> Any:
    raise LookupError("no such\napplication")


class Holder:
    class inner:
        app = staticmethod(function)


app = function
number = 3
