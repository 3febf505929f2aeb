"""An application of Django, settings and all: every HTTP route of behaviours.py, sync and async views."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.signals import request_finished
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path, reverse
from witness import DeliberateFault, cue, note

STATIC = Path(__file__).parent / "static"

settings.configure(
    ALLOWED_HOSTS=["*"],
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    DATA_UPLOAD_MAX_MEMORY_SIZE=None,
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"stderr": {"class": "logging.StreamHandler"}},
        "loggers": {"django.request": {"handlers": ["stderr"], "level": "ERROR", "propagate": False}},
    },
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="no secret",
    USE_TZ=True,
)

# The path of the request in whose context something happens: Django's signals do not tell it.
current_path: ContextVar[str] = ContextVar("current_path", default="")

running_tasks: set[asyncio.Task[None]] = set()


def item(request: HttpRequest, name: str) -> HttpResponse:
    return JsonResponse({"name": name, "query": dict(request.GET.lists())})


async def item_async(request: HttpRequest, name: str) -> HttpResponse:
    return JsonResponse({"name": name, "query": dict(request.GET.lists())})


def crumbs(request: HttpRequest) -> HttpResponse:
    response = JsonResponse({"many": request.headers.get("x-many"), "cookies": request.COOKIES})
    response["X-Answer"] = "yes"
    response.set_cookie("flavour", "oat")
    response.set_cookie("size", "large", httponly=True)
    return response


def reflect(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b'{"got": ' + request.body + b"}", content_type="application/json")


async def form(request: HttpRequest) -> HttpResponse:
    return JsonResponse(dict(request.POST.lists()))


def upload(request: HttpRequest) -> HttpResponse:
    file = request.FILES["file"]
    return JsonResponse(
        {
            "title": request.POST["title"],
            "name": file.name,
            "type": file.content_type,
            "sha256": hashlib.sha256(file.read()).hexdigest(),
        }
    )


def away(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=303, headers={"Location": reverse("item", args=["home"])})


def empty(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=204)


def unchanged(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=304, headers={"ETag": '"same"'})


def big(request: HttpRequest) -> HttpResponse:
    return HttpResponse(bytes(range(256)) * 4096 * 4, content_type="application/octet-stream")


def download(request: HttpRequest) -> HttpResponse:
    return FileResponse((STATIC / "alphabet.txt").open("rb"), as_attachment=True, filename="abc.txt")


async def open_cue(request: HttpRequest, key: str) -> HttpResponse:
    cue(key).set()
    return HttpResponse(status=204)


async def stream(request: HttpRequest, key: str) -> HttpResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"first\n"
        await cue(key).wait()
        yield b"second\n"

    return StreamingHttpResponse(pieces(), content_type="text/plain")


async def events(request: HttpRequest, key: str) -> HttpResponse:
    async def pieces() -> AsyncIterator[str]:
        yield "id: 1\ndata: first\n\n"
        await cue(key).wait()
        yield "id: 2\ndata: second\n\n"

    return StreamingHttpResponse(pieces(), content_type="text/event-stream")


async def endless(request: HttpRequest, key: str) -> HttpResponse:
    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"first\n"
            while True:
                await asyncio.sleep(0.01)
                yield b"more\n"
        finally:
            note(f"endless {key} closed")

    return StreamingHttpResponse(pieces(), content_type="text/plain")


async def parked(request: HttpRequest, key: str) -> HttpResponse:
    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"first\n"
            await asyncio.Event().wait()
        finally:
            note(f"parked {key} closed")

    return StreamingHttpResponse(pieces(), content_type="text/plain")


async def hang(request: HttpRequest, key: str) -> HttpResponse:
    try:
        note(f"hang {key} started")
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        note(f"hang {key} cancelled")
        raise
    return HttpResponse("never")


def intake(request: HttpRequest, key: str) -> HttpResponse:
    digest, total = hashlib.sha256(), 0
    while piece := request.read(65536):
        digest.update(piece)
        total += len(piece)
    return JsonResponse({"total": total, "sha256": digest.hexdigest()})


async def later(request: HttpRequest, key: str) -> HttpResponse:
    async def work() -> None:
        try:
            await cue(key).wait()
            note(f"later {key} finished")
        except asyncio.CancelledError:
            note(f"later {key} cancelled")
            raise

    task = asyncio.create_task(work())
    running_tasks.add(task)
    task.add_done_callback(running_tasks.discard)
    return HttpResponse("done\n")


def fault(request: HttpRequest, key: str) -> HttpResponse:
    raise DeliberateFault(key)


async def fault_async(request: HttpRequest, key: str) -> HttpResponse:
    raise DeliberateFault(key)


async def fault_midway(request: HttpRequest, key: str) -> HttpResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"first\n"
        await cue(key).wait()
        raise DeliberateFault(key)

    return StreamingHttpResponse(pieces(), content_type="text/plain")


def links(request: HttpRequest) -> HttpResponse:
    return JsonResponse(
        {
            "item": reverse("item", args=["tea"]),
            "full_path": request.get_full_path(),
            "path_info": request.path_info,
            "script_name": request.META["SCRIPT_NAME"],
            "url": request.build_absolute_uri(),
        }
    )


urlpatterns = [
    path("items/<str:name>", item, name="item"),
    path("async-items/<str:name>", item_async),
    path("crumbs", crumbs),
    path("json", reflect),
    path("form", form),
    path("upload", upload),
    path("away", away),
    path("empty", empty),
    path("unchanged", unchanged),
    path("big", big),
    path("download", download),
    path("cue/<str:key>", open_cue),
    path("stream/<str:key>", stream),
    path("events/<str:key>", events),
    path("endless/<str:key>", endless),
    path("parked/<str:key>", parked),
    path("hang/<str:key>", hang),
    path("intake/<str:key>", intake),
    path("later/<str:key>", later),
    path("fault/<str:key>", fault),
    path("async-fault/<str:key>", fault_async),
    path("fault-midway/<str:key>", fault_midway),
    path("links", links),
]


def note_request_finished(**_: Any) -> None:
    note(f"request finished {current_path.get()}")


request_finished.connect(note_request_finished)

django = get_asgi_application()


async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Any]) -> None:
    """
    Django, with notes of what no view sees: it reads a body whole before it looks for a view.
    """
    where = scope.get("path", "")
    current_path.set(where)
    if not where.startswith("/intake/"):
        await django(scope, receive, send)
        return

    key, total, whole = where.rpartition("/")[2], 0, False

    async def noting_receive() -> Any:
        nonlocal total, whole
        message = await receive()
        if message["type"] == "http.request":
            total += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            note(f"intake {key} {total}")
        elif not whole:
            note(f"intake {key} lost")
        return message

    await django(scope, noting_receive, send)
