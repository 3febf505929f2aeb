"""An application of Litestar: every route of behaviours.py, with its streams, events, files and listeners."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from litestar import (
    Litestar,
    MediaType,
    Request,
    Response,
    WebSocket,
    get,
    post,
    route,
    websocket,
    websocket_listener,
)
from litestar.background_tasks import BackgroundTask
from litestar.datastructures import Cookie, UploadFile
from litestar.enums import HttpMethod, RequestEncodingType
from litestar.exceptions import InternalServerException, PermissionDeniedException, WebSocketDisconnect
from litestar.params import Body
from litestar.response import File, Redirect, ServerSentEvent, ServerSentEventMessage, Stream
from litestar.static_files import create_static_files_router
from litestar.types import Scope
from witness import DeliberateFault, cue, note

STATIC = Path(__file__).parent / "static"


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    note("startup")
    app.state.started = "yes"
    yield
    note("shutdown")


async def log_fault(error: Exception, scope: Scope) -> None:
    """
    Log what Litestar answers with a 500: by default it does so in debug mode only.
    """
    if isinstance(error, DeliberateFault):
        logging.getLogger("faults").error("fault in a view", exc_info=error)


@route("/items/{name:str}", http_method=[HttpMethod.GET, HttpMethod.HEAD], media_type=MediaType.JSON)
async def item(request: Request, name: str) -> Response[dict[str, Any]]:
    return Response({"name": name, "query": request.query_params.dict()})


@get("/crumbs")
async def crumbs(request: Request) -> Response[dict[str, Any]]:
    many = ",".join(request.headers.getall("x-many", []))
    return Response(
        {"many": many, "cookies": request.cookies},
        headers={"X-Answer": "yes"},
        cookies=[Cookie("flavour", value="oat"), Cookie("size", value="large", httponly=True)],
    )


@post("/json", status_code=200)
async def reflect(data: dict[str, Any]) -> dict[str, Any]:
    return {"got": data}


@post("/form", status_code=200)
async def form(request: Request) -> dict[str, Any]:
    return (await request.form()).dict()


@post("/upload", status_code=200)
async def upload(
    data: Annotated[dict[str, Any], Body(media_type=RequestEncodingType.MULTI_PART)],
) -> dict[str, Any]:
    file: UploadFile = data["file"]
    return {
        "title": data["title"],
        "name": file.filename,
        "type": file.content_type,
        "sha256": hashlib.sha256(await file.read()).hexdigest(),
    }


@get("/away", status_code=303)
async def away() -> Redirect:
    return Redirect("/items/home", status_code=303)


@get("/empty", status_code=204)
async def empty() -> None:
    return None


@get("/unchanged", status_code=304)
async def unchanged() -> Response[None]:
    return Response(None, headers={"ETag": '"same"'})


@get("/big", media_type="application/octet-stream")
async def big() -> bytes:
    return bytes(range(256)) * 4096 * 4


@get("/download")
async def download() -> File:
    return File(STATIC / "alphabet.txt", filename="abc.txt")


@post("/cue/{key:str}", status_code=204)
async def open_cue(key: str) -> None:
    cue(key).set()


@route("/stream/{key:str}", http_method=[HttpMethod.GET, HttpMethod.HEAD])
async def stream(key: str) -> Stream:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"first\n"
        await cue(key).wait()
        yield b"second\n"

    return Stream(pieces(), media_type=MediaType.TEXT)


@get("/events/{key:str}")
async def events(key: str) -> ServerSentEvent:
    async def pieces() -> AsyncIterator[ServerSentEventMessage]:
        yield ServerSentEventMessage(data="first", id=1)
        await cue(key).wait()
        yield ServerSentEventMessage(data="second", id=2)

    return ServerSentEvent(pieces())


@get("/endless/{key:str}")
async def endless(key: str) -> Stream:
    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"first\n"
            while True:
                await asyncio.sleep(0.01)
                yield b"more\n"
        finally:
            note(f"endless {key} closed")

    return Stream(pieces(), media_type=MediaType.TEXT)


@get("/parked/{key:str}")
async def parked(key: str) -> Stream:
    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"first\n"
            await asyncio.Event().wait()
        finally:
            note(f"parked {key} closed")

    return Stream(pieces(), media_type=MediaType.TEXT)


@post("/intake/{key:str}", status_code=200, request_max_body_size=None)
async def intake(request: Request, key: str) -> dict[str, Any]:
    digest, total = hashlib.sha256(), 0
    try:
        async for piece in request.stream():
            digest.update(piece)
            total += len(piece)
            note(f"intake {key} {total}")
    except InternalServerException:
        note(f"intake {key} lost")
        raise
    return {"total": total, "sha256": digest.hexdigest()}


async def work(key: str) -> None:
    """
    What is done after the answer.
    """
    try:
        await cue(key).wait()
        note(f"later {key} finished")
    except asyncio.CancelledError:
        note(f"later {key} cancelled")
        raise


@get("/later/{key:str}", media_type=MediaType.TEXT)
async def later(key: str) -> Response[str]:
    return Response("done\n", background=BackgroundTask(work, key))


@get("/stream-later/{key:str}")
async def stream_later(key: str) -> Stream:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"done\n"

    return Stream(pieces(), media_type=MediaType.TEXT, background=BackgroundTask(work, key))


@get("/fault/{key:str}")
async def fault(key: str) -> None:
    raise DeliberateFault(key)


@get("/fault-midway/{key:str}")
async def fault_midway(key: str) -> Stream:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"first\n"
        await cue(key).wait()
        raise DeliberateFault(key)

    return Stream(pieces(), media_type=MediaType.TEXT)


@get("/state")
async def state(request: Request) -> dict[str, str]:
    return {"started": request.app.state.started}


@get("/links")
async def links(request: Request) -> dict[str, str]:
    return {"url": str(request.url), "base": str(request.base_url)}


@websocket("/ws/echo")
async def ws_echo(socket: WebSocket) -> None:
    await socket.accept()
    while (message := await socket.receive())["type"] == "websocket.receive":
        if message.get("text") is not None:
            await socket.send_text(message["text"])
        else:
            await socket.send_bytes(message["bytes"])


@websocket_listener("/ws/listener")
async def ws_listener(data: dict[str, Any]) -> dict[str, Any]:
    return {"heard": data}


@websocket("/ws/greet/{name:str}")
async def ws_greet(socket: WebSocket, name: str) -> None:
    await socket.accept(headers={"X-Answer": "yes"})
    await socket.send_json({"name": name, "cookies": socket.cookies})
    await socket.close()


@websocket("/ws/protocol")
async def ws_protocol(socket: WebSocket) -> None:
    offered = socket.scope["subprotocols"]
    await socket.accept(subprotocols="chat.v2" if "chat.v2" in offered else None)
    await socket.send_json(offered)
    await socket.close()


@websocket("/ws/close")
async def ws_close(socket: WebSocket) -> None:
    await socket.accept()
    await socket.close(4321, "enough")


@websocket("/ws/note/{key:str}")
async def ws_note(socket: WebSocket, key: str) -> None:
    await socket.accept()
    await socket.send_text("ready")
    try:
        await socket.receive_text()
    except WebSocketDisconnect as gone:
        note(f"ws {key} closed with {gone.code}")


@websocket("/ws/endless/{key:str}")
async def ws_endless(socket: WebSocket, key: str) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text("more")
            await asyncio.sleep(0.01)
    finally:
        note(f"ws {key} ended")


@websocket("/ws/refuse")
async def ws_refuse(socket: WebSocket) -> None:
    raise PermissionDeniedException("no ticket")


@websocket("/ws/fault/{key:str}")
async def ws_fault(socket: WebSocket, key: str) -> None:
    await socket.accept()
    raise DeliberateFault(key)


app = Litestar(
    route_handlers=[
        item,
        crumbs,
        reflect,
        form,
        upload,
        away,
        empty,
        unchanged,
        big,
        download,
        open_cue,
        stream,
        events,
        endless,
        parked,
        intake,
        later,
        stream_later,
        fault,
        fault_midway,
        state,
        links,
        create_static_files_router("/static", directories=[STATIC]),
        ws_echo,
        ws_listener,
        ws_greet,
        ws_protocol,
        ws_close,
        ws_note,
        ws_endless,
        ws_refuse,
        ws_fault,
    ],
    lifespan=[lifespan],
    after_exception=[log_fault],
)
