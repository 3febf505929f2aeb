"""An application of Starlette: every route of behaviours.py, static files, middleware, a mount."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect
from witness import DeliberateFault, cue, note

# Made at start-up in the folder that the server runs in.
LARGE = Path("large.bin")

STATIC = Path(__file__).parent / "static"


async def item(request: Request) -> Response:
    query = {name: request.query_params.getlist(name) for name in request.query_params}
    return JSONResponse({"name": request.path_params["name"], "query": query})


async def crumbs(request: Request) -> Response:
    many = ",".join(request.headers.getlist("x-many"))
    response = JSONResponse({"many": many, "cookies": request.cookies}, headers={"X-Answer": "yes"})
    response.set_cookie("flavour", "oat")
    response.set_cookie("size", "large", httponly=True)
    return response


async def reflect(request: Request) -> Response:
    return JSONResponse({"got": await request.json()})


async def form(request: Request) -> Response:
    async with request.form() as fields:
        return JSONResponse({name: fields.getlist(name) for name in fields})


async def upload(request: Request) -> Response:
    async with request.form() as fields:
        file = fields["file"]
        content = await file.read()
        return JSONResponse(
            {
                "title": fields["title"],
                "name": file.filename,
                "type": file.content_type,
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )


async def away(request: Request) -> Response:
    return RedirectResponse("/items/home", status_code=303)


async def empty(request: Request) -> Response:
    return Response(status_code=204)


async def unchanged(request: Request) -> Response:
    return Response(status_code=304, headers={"ETag": '"same"'})


async def big(request: Request) -> Response:
    return Response(bytes(range(256)) * 4096 * 4, media_type="application/octet-stream")


async def open_cue(request: Request) -> Response:
    cue(request.path_params["key"]).set()
    return Response(status_code=204)


async def stream(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"first\n"
        await cue(request.path_params["key"]).wait()
        yield b"second\n"

    return StreamingResponse(pieces(), media_type="text/plain")


async def events(request: Request) -> Response:
    async def pieces() -> AsyncIterator[str]:
        yield "id: 1\ndata: first\n\n"
        await cue(request.path_params["key"]).wait()
        yield "id: 2\ndata: second\n\n"

    return StreamingResponse(pieces(), media_type="text/event-stream")


async def endless(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"first\n"
            while True:
                await asyncio.sleep(0.01)
                yield b"more\n"
        finally:
            note(f"endless {request.path_params['key']} closed")

    return StreamingResponse(pieces(), media_type="text/plain")


async def parked(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"first\n"
            await asyncio.Event().wait()
        finally:
            note(f"parked {request.path_params['key']} closed")

    return StreamingResponse(pieces(), media_type="text/plain")


async def watch(request: Request) -> Response:
    """
    Polls for the disconnect, as many a long poll in the wild does.
    """
    note(f"watch {request.path_params['key']} started")
    while not await request.is_disconnected():
        await asyncio.sleep(0.01)
    note(f"watch {request.path_params['key']} saw the disconnect")
    return PlainTextResponse("too late")


async def intake(request: Request) -> Response:
    key = request.path_params["key"]
    digest, total = hashlib.sha256(), 0
    try:
        async for piece in request.stream():
            digest.update(piece)
            total += len(piece)
            note(f"intake {key} {total}")
    except ClientDisconnect:
        note(f"intake {key} lost")
        raise
    return JSONResponse({"total": total, "sha256": digest.hexdigest()})


async def later(request: Request) -> Response:
    key = request.path_params["key"]

    async def work() -> None:
        try:
            await cue(key).wait()
            note(f"later {key} finished")
        except asyncio.CancelledError:
            note(f"later {key} cancelled")
            raise

    return PlainTextResponse("done\n", background=BackgroundTask(work))


async def stream_later(request: Request) -> Response:
    key = request.path_params["key"]

    async def pieces() -> AsyncIterator[bytes]:
        yield b"done\n"

    async def work() -> None:
        await cue(key).wait()
        note(f"stream-later {key} finished")

    return StreamingResponse(pieces(), background=BackgroundTask(work))


async def fault(request: Request) -> Response:
    raise DeliberateFault(request.path_params["key"])


async def fault_midway(request: Request) -> Response:
    key = request.path_params["key"]

    async def pieces() -> AsyncIterator[bytes]:
        yield b"first\n"
        await cue(key).wait()
        raise DeliberateFault(key)

    return StreamingResponse(pieces())


async def state(request: Request) -> Response:
    return JSONResponse({"started": request.state.started})


async def mark(request: Request) -> Response:
    seen = hasattr(request.state, "mark")
    request.state.mark = "mine"
    return JSONResponse({"seen": seen, "started": request.state.started})


async def links(request: Request) -> Response:
    return JSONResponse(
        {
            "item": str(request.url_for("item", name="tea")),
            "inner": str(request.url_for("sub:inner", name="x")),
            "url": str(request.url),
        }
    )


async def inner(request: Request) -> Response:
    return JSONResponse({"name": request.path_params["name"], "root_path": request.scope["root_path"]})


async def hinted(request: Request) -> Response:
    await request.send_early_hints("</style.css>; rel=preload; as=style")
    return PlainTextResponse("hinted\n")


async def download(request: Request) -> Response:
    return FileResponse(STATIC / "alphabet.txt", filename="abc.txt")


async def large(request: Request) -> Response:
    return FileResponse(LARGE)


async def slow_intake(request: Request) -> Response:
    """
    Begins to read only when it is told to.
    """
    key = request.path_params["key"]
    note(f"slow intake {key} waits")
    await cue(key).wait()
    return JSONResponse({"sha256": hashlib.sha256(await request.body()).hexdigest()})


async def ws_echo(websocket: WebSocket) -> None:
    await websocket.accept()
    while (message := await websocket.receive())["type"] == "websocket.receive":
        if message.get("text") is not None:
            await websocket.send_text(message["text"])
        else:
            await websocket.send_bytes(message["bytes"])


async def ws_greet(websocket: WebSocket) -> None:
    await websocket.accept(headers=[(b"x-answer", b"yes"), (b"set-cookie", b"flavour=oat")])
    await websocket.send_json({"name": websocket.path_params["name"], "cookies": websocket.cookies})
    await websocket.close()


async def ws_protocol(websocket: WebSocket) -> None:
    offered = websocket.scope["subprotocols"]
    await websocket.accept(subprotocol="chat.v2" if "chat.v2" in offered else None)
    await websocket.send_json(offered)
    await websocket.close()


async def ws_close(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close(4321, "enough")


async def ws_note(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("ready")
    try:
        await websocket.receive_text()
    except WebSocketDisconnect as gone:
        note(f"ws {websocket.path_params['key']} closed with {gone.code}")
        note(f"ws {websocket.path_params['key']} reason: {gone.reason}")


async def ws_endless(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text("more")
            await asyncio.sleep(0.01)
    finally:
        note(f"ws {websocket.path_params['key']} ended")


async def ws_refuse(websocket: WebSocket) -> None:
    await websocket.close()


async def ws_deny(websocket: WebSocket) -> None:
    await websocket.send_denial_response(JSONResponse({"why": "no ticket"}, 401, {"X-Answer": "yes"}))


async def ws_fault(websocket: WebSocket) -> None:
    await websocket.accept()
    raise DeliberateFault(websocket.path_params["key"])


class Stamp(BaseHTTPMiddleware):
    """
    The middleware that most people write: it runs the application in a task of its own.
    """

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["X-Stamp"] = "seen"
        return response


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
    note("startup")
    await asyncio.to_thread(LARGE.write_bytes, bytes(range(256)) * 4096 * 16)
    yield {"started": "yes"}
    note("shutdown")


@asynccontextmanager
async def broken_lifespan(app: Starlette) -> AsyncIterator[None]:
    raise DeliberateFault("startup")
    yield


routes = [
    Route("/items/{name}", item, name="item"),
    Route("/crumbs", crumbs),
    Route("/json", reflect, methods=["POST"]),
    Route("/form", form, methods=["POST"]),
    Route("/upload", upload, methods=["POST"]),
    Route("/away", away),
    Route("/empty", empty),
    Route("/unchanged", unchanged),
    Route("/big", big),
    Route("/cue/{key}", open_cue, methods=["POST"]),
    Route("/stream/{key}", stream),
    Route("/events/{key}", events),
    Route("/endless/{key}", endless),
    Route("/parked/{key}", parked),
    Route("/watch/{key}", watch),
    Route("/intake/{key}", intake, methods=["POST"]),
    Route("/later/{key}", later),
    Route("/stream-later/{key}", stream_later),
    Route("/fault/{key}", fault),
    Route("/fault-midway/{key}", fault_midway),
    Route("/state", state),
    Route("/mark", mark),
    Route("/links", links),
    Route("/hinted", hinted),
    Route("/download", download),
    Route("/large", large),
    Route("/slow-intake/{key}", slow_intake, methods=["POST"]),
    Mount("/sub", routes=[Route("/inner/{name}", inner, name="inner")], name="sub"),
    Mount("/static", StaticFiles(directory=STATIC)),
    WebSocketRoute("/ws/echo", ws_echo),
    WebSocketRoute("/ws/greet/{name}", ws_greet),
    WebSocketRoute("/ws/protocol", ws_protocol),
    WebSocketRoute("/ws/close", ws_close),
    WebSocketRoute("/ws/note/{key}", ws_note),
    WebSocketRoute("/ws/endless/{key}", ws_endless),
    WebSocketRoute("/ws/refuse", ws_refuse),
    WebSocketRoute("/ws/deny", ws_deny),
    WebSocketRoute("/ws/fault/{key}", ws_fault),
]

stamped = Starlette(routes=[route for route in routes if isinstance(route, Route)])
stamped.add_middleware(Stamp)

app = Starlette(routes=[*routes, Mount("/stamped", stamped)], lifespan=lifespan)

broken = Starlette(lifespan=broken_lifespan)
