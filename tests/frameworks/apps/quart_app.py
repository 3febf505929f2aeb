"""An application of Quart: every route of behaviours.py, with its serving hooks and background tasks."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from quart import (
    Quart,
    Response,
    abort,
    jsonify,
    make_response,
    redirect,
    request,
    send_file,
    url_for,
    websocket,
)
from witness import DeliberateFault, cue, note

STATIC = Path(__file__).parent / "static"

app = Quart(__name__, static_folder=STATIC)


@app.before_serving
async def startup() -> None:
    note("startup")
    app.config["STARTED"] = "yes"


@app.after_serving
async def shutdown() -> None:
    note("shutdown")


@app.get("/items/<name>")
async def item(name: str) -> dict[str, Any]:
    return {"name": name, "query": request.args.to_dict(flat=False)}


@app.get("/crumbs")
async def crumbs() -> Response:
    many = ",".join(request.headers.getlist("x-many"))
    response = await make_response({"many": many, "cookies": dict(request.cookies)})
    response.headers["X-Answer"] = "yes"
    response.set_cookie("flavour", "oat")
    response.set_cookie("size", "large", httponly=True)
    return response


@app.post("/json")
async def reflect() -> dict[str, Any]:
    return {"got": await request.get_json()}


@app.post("/form")
async def form() -> dict[str, Any]:
    return (await request.form).to_dict(flat=False)


@app.post("/upload")
async def upload() -> dict[str, Any]:
    file = (await request.files)["file"]
    return {
        "title": (await request.form)["title"],
        "name": file.filename,
        "type": file.mimetype,
        "sha256": hashlib.sha256(file.read()).hexdigest(),
    }


@app.get("/away")
async def away() -> Response:
    return redirect("/items/home", 303)


@app.get("/empty")
async def empty() -> tuple[str, int]:
    return "", 204


@app.get("/unchanged")
async def unchanged() -> tuple[str, int, dict[str, str]]:
    return "", 304, {"ETag": '"same"'}


@app.get("/big")
async def big() -> Response:
    return Response(bytes(range(256)) * 4096 * 4, mimetype="application/octet-stream")


@app.get("/download")
async def download() -> Response:
    return await send_file(STATIC / "alphabet.txt", as_attachment=True, attachment_filename="abc.txt", conditional=True)


@app.post("/cue/<key>")
async def open_cue(key: str) -> tuple[str, int]:
    cue(key).set()
    return "", 204


@app.get("/stream/<key>")
async def stream(key: str) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"first\n"
        await cue(key).wait()
        yield b"second\n"

    return Response(pieces(), mimetype="text/plain")


@app.get("/events/<key>")
async def events(key: str) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"id: 1\ndata: first\n\n"
        await cue(key).wait()
        yield b"id: 2\ndata: second\n\n"

    response = await make_response(pieces(), {"Content-Type": "text/event-stream"})
    response.timeout = None
    return response


@app.get("/endless/<key>")
async def endless(key: str) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"first\n"
            while True:
                await asyncio.sleep(0.01)
                yield b"more\n"
        finally:
            note(f"endless {key} closed")

    return Response(pieces(), mimetype="text/plain")


@app.get("/parked/<key>")
async def parked(key: str) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"first\n"
            await asyncio.Event().wait()
        finally:
            note(f"parked {key} closed")

    return Response(pieces(), mimetype="text/plain")


@app.post("/intake/<key>")
async def intake(key: str) -> Response:
    digest, total = hashlib.sha256(), 0
    try:
        async for piece in request.body:
            digest.update(piece)
            total += len(piece)
            note(f"intake {key} {total}")
    except asyncio.CancelledError:
        note(f"intake {key} lost")
        raise
    return jsonify({"total": total, "sha256": digest.hexdigest()})


@app.get("/later/<key>")
async def later(key: str) -> str:
    async def work() -> None:
        try:
            await cue(key).wait()
            note(f"later {key} finished")
        except asyncio.CancelledError:
            note(f"later {key} cancelled")
            raise

    app.add_background_task(work)
    return "done\n"


@app.get("/fault/<key>")
async def fault(key: str) -> str:
    raise DeliberateFault(key)


@app.get("/fault-midway/<key>")
async def fault_midway(key: str) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"first\n"
        await cue(key).wait()
        raise DeliberateFault(key)

    return Response(pieces(), mimetype="text/plain")


@app.get("/state")
async def state() -> dict[str, str]:
    return {"started": app.config["STARTED"]}


@app.get("/links")
async def links() -> dict[str, str]:
    return {"item": url_for("item", name="tea"), "path": request.path, "root": request.root_path}


@app.websocket("/ws/echo")
async def ws_echo() -> None:
    while True:
        await websocket.send(await websocket.receive())


@app.websocket("/ws/greet/<name>")
async def ws_greet(name: str) -> None:
    await websocket.accept(headers={"X-Answer": "yes"})
    await websocket.send_json({"name": name, "cookies": dict(websocket.cookies)})


@app.websocket("/ws/protocol")
async def ws_protocol() -> None:
    offered = websocket.requested_subprotocols
    await websocket.accept(subprotocol="chat.v2" if "chat.v2" in offered else None)
    await websocket.send_json(offered)


@app.websocket("/ws/close")
async def ws_close() -> None:
    await websocket.accept()
    await websocket.close(4321, "enough")


@app.websocket("/ws/wait/<key>")
async def ws_wait(key: str) -> None:
    try:
        await websocket.send("ready")
        await websocket.receive()
    except asyncio.CancelledError:
        note(f"ws {key} cancelled")
        raise


@app.websocket("/ws/endless/<key>")
async def ws_endless(key: str) -> None:
    try:
        while True:
            await websocket.send("more")
            await asyncio.sleep(0.01)
    finally:
        note(f"ws {key} ended")


@app.websocket("/ws/refuse")
async def ws_refuse() -> None:
    abort(403)


@app.websocket("/ws/deny")
async def ws_deny() -> tuple[dict[str, str], int, dict[str, str]]:
    return {"why": "no ticket"}, 401, {"X-Answer": "yes"}


@app.websocket("/ws/fault/<key>")
async def ws_fault(key: str) -> None:
    await websocket.accept()
    raise DeliberateFault(key)
