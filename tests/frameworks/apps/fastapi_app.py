"""An application of FastAPI: every route of behaviours.py, dependencies, validation, its own event stream."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import (
    BackgroundTasks,
    Cookie,
    Depends,
    FastAPI,
    File,
    Form,
    Header,
    Request,
    Response,
    UploadFile,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
    status,
)
from fastapi.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    StreamingResponse,
)
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect
from witness import DeliberateFault, cue, note

STATIC = Path(__file__).parent / "static"


class Order(BaseModel):
    """
    A body that FastAPI validates.
    """

    name: str
    count: int = Field(ge=1)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
    note("startup")
    yield {"started": "yes"}
    note("shutdown")


app = FastAPI(lifespan=lifespan)


@app.head("/items/{name}", include_in_schema=False)
@app.get("/items/{name}")
async def item(request: Request, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "query": {name: request.query_params.getlist(name) for name in request.query_params},
    }


@app.get("/crumbs")
async def crumbs(
    response: Response,
    x_many: Annotated[list[str] | None, Header()] = None,
    flavour: Annotated[str | None, Cookie()] = None,
    size: Annotated[str | None, Cookie()] = None,
) -> dict[str, Any]:
    response.headers["X-Answer"] = "yes"
    response.set_cookie("flavour", "oat")
    response.set_cookie("size", "large", httponly=True)
    return {"many": ",".join(x_many or []), "cookies": {"flavour": flavour, "size": size}}


@app.post("/json")
async def reflect(body: dict[str, Any]) -> dict[str, Any]:
    return {"got": body}


@app.post("/form")
async def form(name: Annotated[list[str], Form()], tag: Annotated[list[str], Form()]) -> dict[str, Any]:
    return {"name": name, "tag": tag}


@app.post("/upload")
async def upload(title: Annotated[str, Form()], file: Annotated[UploadFile, File()]) -> dict[str, Any]:
    return {
        "title": title,
        "name": file.filename,
        "type": file.content_type,
        "sha256": hashlib.sha256(await file.read()).hexdigest(),
    }


@app.post("/order")
async def order(body: Order) -> Order:
    return body


@app.get("/away")
async def away() -> Response:
    return RedirectResponse("/items/home", status_code=303)


@app.get("/empty", status_code=204)
async def empty() -> None:
    return None


@app.get("/unchanged")
async def unchanged() -> Response:
    return Response(status_code=304, headers={"ETag": '"same"'})


@app.get("/big")
def big() -> Response:
    return Response(bytes(range(256)) * 4096 * 4, media_type="application/octet-stream")


@app.get("/download")
def download() -> Response:
    return FileResponse(STATIC / "alphabet.txt", filename="abc.txt")


@app.post("/cue/{key}", status_code=204)
async def open_cue(key: str) -> None:
    cue(key).set()


@app.head("/stream/{key}", include_in_schema=False)
@app.get("/stream/{key}")
async def stream(key: str) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"first\n"
        await cue(key).wait()
        yield b"second\n"

    return StreamingResponse(pieces(), media_type="text/plain")


@app.get("/events/{key}", response_class=EventSourceResponse)
async def events(key: str) -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent(data="first", id="1")
    await cue(key).wait()
    yield ServerSentEvent(data="second", id="2")


@app.get("/endless-events/{key}", response_class=EventSourceResponse)
async def endless_events(key: str) -> AsyncIterator[ServerSentEvent]:
    try:
        yield ServerSentEvent(data="first")
        await asyncio.Event().wait()
    finally:
        note(f"endless-events {key} closed")


async def closing(key: str) -> AsyncIterator[str]:
    """
    A dependency with something to give back.
    """
    try:
        yield key
    finally:
        note(f"dependency {key} closed")


@app.get("/endless/{key}")
async def endless(key: Annotated[str, Depends(closing)]) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"first\n"
            while True:
                await asyncio.sleep(0.01)
                yield b"more\n"
        finally:
            note(f"endless {key} closed")

    return StreamingResponse(pieces(), media_type="text/plain")


@app.get("/parked/{key}")
async def parked(key: Annotated[str, Depends(closing)]) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"first\n"
            await asyncio.Event().wait()
        finally:
            note(f"parked {key} closed")

    return StreamingResponse(pieces(), media_type="text/plain")


@app.post("/intake/{key}")
async def intake(request: Request, key: str) -> Response:
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


@app.get("/later/{key}")
async def later(key: str, tasks: BackgroundTasks) -> Response:
    async def work() -> None:
        try:
            await cue(key).wait()
            note(f"later {key} finished")
        except asyncio.CancelledError:
            note(f"later {key} cancelled")
            raise

    tasks.add_task(work)
    tasks.add_task(note, f"later {key} second task")
    return PlainTextResponse("done\n", background=tasks)


@app.get("/fault/{key}")
def fault(key: str) -> None:
    """
    Runs in a thread, as every plain function of FastAPI does.
    """
    raise DeliberateFault(key)


@app.get("/fault-midway/{key}")
async def fault_midway(key: str) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"first\n"
        await cue(key).wait()
        raise DeliberateFault(key)

    return StreamingResponse(pieces())


@app.get("/state")
async def state(request: Request) -> dict[str, str]:
    return {"started": request.state.started}


@app.websocket("/ws/echo")
async def ws_echo(websocket: WebSocket) -> None:
    await websocket.accept()
    while (message := await websocket.receive())["type"] == "websocket.receive":
        if message.get("text") is not None:
            await websocket.send_text(message["text"])
        else:
            await websocket.send_bytes(message["bytes"])


@app.websocket("/ws/greet/{name}")
async def ws_greet(websocket: WebSocket, name: str) -> None:
    await websocket.accept(headers=[(b"x-answer", b"yes")])
    await websocket.send_json({"name": name, "cookies": websocket.cookies})
    await websocket.close()


@app.websocket("/ws/protocol")
async def ws_protocol(websocket: WebSocket) -> None:
    offered = websocket.scope["subprotocols"]
    await websocket.accept(subprotocol="chat.v2" if "chat.v2" in offered else None)
    await websocket.send_json(offered)
    await websocket.close()


@app.websocket("/ws/close")
async def ws_close(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close(4321, "enough")


@app.websocket("/ws/note/{key}")
async def ws_note(websocket: WebSocket, key: Annotated[str, Depends(closing)]) -> None:
    await websocket.accept()
    await websocket.send_text("ready")
    try:
        await websocket.receive_text()
    except WebSocketDisconnect as gone:
        note(f"ws {key} closed with {gone.code}")


@app.websocket("/ws/endless/{key}")
async def ws_endless(websocket: WebSocket, key: str) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text("more")
            await asyncio.sleep(0.01)
    finally:
        note(f"ws {key} ended")


@app.websocket("/ws/refuse")
async def ws_refuse(websocket: WebSocket) -> None:
    raise WebSocketException(status.WS_1008_POLICY_VIOLATION, "no ticket")


@app.websocket("/ws/policy")
async def ws_policy(websocket: WebSocket) -> None:
    await websocket.accept()
    raise WebSocketException(status.WS_1008_POLICY_VIOLATION, "no ticket")


@app.websocket("/ws/fault/{key}")
async def ws_fault(websocket: WebSocket, key: str) -> None:
    await websocket.accept()
    raise DeliberateFault(key)
