"""An application of Channels: Django's views, HTTP consumers and sync and async WebSocket consumers."""

import asyncio
import json
import time
from typing import Any

from channels.exceptions import DenyConnection
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer, WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from channels.sessions import CookieMiddleware
from django.urls import path, re_path
from django_app import app as django_views
from witness import DeliberateFault, cue, note


class Reflect(AsyncHttpConsumer):
    """
    Answers with what it got.
    """

    async def handle(self, body: bytes) -> None:
        name = self.scope["url_route"]["kwargs"]["name"]
        answer = json.dumps({"name": name, "method": self.scope["method"], "body": body.decode()})
        await self.send_response(200, answer.encode(), headers=[(b"Content-Type", b"application/json")])


class Stream(AsyncHttpConsumer):
    """
    Answers in two pieces and waits between them.
    """

    async def handle(self, body: bytes) -> None:
        await self.send_headers(headers=[(b"Content-Type", b"text/plain")])
        await self.send_body(b"first\n", more_body=True)
        await cue(self.scope["url_route"]["kwargs"]["key"]).wait()
        await self.send_body(b"second\n")


class Endless(AsyncHttpConsumer):
    """
    Answers for ever.
    """

    async def handle(self, body: bytes) -> None:
        await self.send_headers(headers=[(b"Content-Type", b"text/plain")])
        await self.send_body(b"first\n", more_body=True)
        while True:
            await asyncio.sleep(0.01)
            await self.send_body(b"more\n", more_body=True)

    async def disconnect(self) -> None:
        note(f"endless {self.scope['url_route']['kwargs']['key']} disconnected")


class Parked(AsyncHttpConsumer):
    """
    Answers one piece and waits for ever.
    """

    async def handle(self, body: bytes) -> None:
        await self.send_headers(headers=[(b"Content-Type", b"text/plain")])
        await self.send_body(b"first\n", more_body=True)
        await asyncio.Event().wait()

    async def disconnect(self) -> None:
        note(f"parked {self.scope['url_route']['kwargs']['key']} disconnected")


class LongPoll(AsyncHttpConsumer):
    """
    Keeps the request open and answers when a message comes, as the documentation of Channels shows it.
    """

    async def http_request(self, message: dict[str, Any]) -> None:
        self.key = self.scope["url_route"]["kwargs"]["key"]
        await self.channel_layer.group_add(self.key, self.channel_name)
        note(f"long poll {self.key} waits")

    async def room_message(self, event: dict[str, Any]) -> None:
        await self.send_response(200, event["text"].encode())

    async def disconnect(self) -> None:
        await self.channel_layer.group_discard(self.key, self.channel_name)
        note(f"long poll {self.key} disconnected")


class Say(AsyncHttpConsumer):
    """
    Sends what it got to a group.
    """

    async def handle(self, body: bytes) -> None:
        room = self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_send(room, {"type": "room.message", "text": body.decode()})
        await self.send_response(202, b"")


class HttpFault(AsyncHttpConsumer):
    """
    Raises before it answers.
    """

    async def handle(self, body: bytes) -> None:
        raise DeliberateFault(self.scope["url_route"]["kwargs"]["key"])


class SyncEcho(WebsocketConsumer):
    """
    Echoes text and binary messages.
    """

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data=text_data, bytes_data=bytes_data)


class SyncGreet(WebsocketConsumer):
    """
    Accepts with a header and tells what the handshake said.
    """

    def connect(self) -> None:
        self.accept(headers=[(b"x-answer", b"yes")])
        name = self.scope["url_route"]["kwargs"]["name"]
        self.send(text_data=json.dumps({"name": name, "cookies": self.scope["cookies"]}))
        self.close()


class SyncProtocol(WebsocketConsumer):
    """
    Chooses a subprotocol and tells what was offered.
    """

    def connect(self) -> None:
        offered = self.scope["subprotocols"]
        self.accept(subprotocol="chat.v2" if "chat.v2" in offered else None)
        self.send(text_data=json.dumps(offered))
        self.close()


class SyncClose(WebsocketConsumer):
    """
    Closes with a code and a reason.
    """

    def connect(self) -> None:
        self.accept()
        self.close(4321, "enough")


class SyncNote(WebsocketConsumer):
    """
    Notes how it was closed.
    """

    def connect(self) -> None:
        self.accept()
        self.send(text_data="ready")

    def disconnect(self, code: int) -> None:
        note(f"ws {self.scope['url_route']['kwargs']['key']} closed with {code}")


class SyncEndless(WebsocketConsumer):
    """
    Sends for ever, from its thread.
    """

    def connect(self) -> None:
        self.accept()
        try:
            while True:
                self.send(text_data="more")
                time.sleep(0.01)
        finally:
            note(f"ws {self.scope['url_route']['kwargs']['key']} ended")


class SyncRefuse(WebsocketConsumer):
    """
    Closes before it accepts.
    """

    def connect(self) -> None:
        self.close()


class SyncFault(WebsocketConsumer):
    """
    Raises after it accepted.
    """

    def connect(self) -> None:
        self.accept()
        raise DeliberateFault(self.scope["url_route"]["kwargs"]["key"])


class AsyncEcho(AsyncWebsocketConsumer):
    """
    Echoes text and binary messages.
    """

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data, bytes_data=bytes_data)


class AsyncGreet(AsyncWebsocketConsumer):
    """
    Accepts with a header and tells what the handshake said.
    """

    async def connect(self) -> None:
        await self.accept(headers=[(b"x-answer", b"yes")])
        name = self.scope["url_route"]["kwargs"]["name"]
        await self.send(text_data=json.dumps({"name": name, "cookies": self.scope["cookies"]}))
        await self.close()


class AsyncProtocol(AsyncWebsocketConsumer):
    """
    Chooses a subprotocol and tells what was offered.
    """

    async def connect(self) -> None:
        offered = self.scope["subprotocols"]
        await self.accept(subprotocol="chat.v2" if "chat.v2" in offered else None)
        await self.send(text_data=json.dumps(offered))
        await self.close()


class AsyncClose(AsyncWebsocketConsumer):
    """
    Closes with a code and a reason.
    """

    async def connect(self) -> None:
        await self.accept()
        await self.close(4321, "enough")


class AsyncNote(AsyncWebsocketConsumer):
    """
    Notes how it was closed.
    """

    async def connect(self) -> None:
        await self.accept()
        await self.send(text_data="ready")

    async def disconnect(self, code: int) -> None:
        note(f"ws {self.scope['url_route']['kwargs']['key']} closed with {code}")


class AsyncEndless(AsyncWebsocketConsumer):
    """
    Sends for ever.
    """

    async def connect(self) -> None:
        await self.accept()
        try:
            while True:
                await self.send(text_data="more")
                await asyncio.sleep(0.01)
        finally:
            note(f"ws {self.scope['url_route']['kwargs']['key']} ended")


class AsyncRefuse(AsyncWebsocketConsumer):
    """
    Denies before it accepts.
    """

    async def connect(self) -> None:
        raise DenyConnection


class AsyncFault(AsyncWebsocketConsumer):
    """
    Raises after it accepted.
    """

    async def connect(self) -> None:
        await self.accept()
        raise DeliberateFault(self.scope["url_route"]["kwargs"]["key"])


class Room(AsyncJsonWebsocketConsumer):
    """
    Hands what one member says to all members of its room.
    """

    async def connect(self) -> None:
        self.room = self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()
        await self.send_json({"joined": self.room})

    async def receive_json(self, content: Any, **_: Any) -> None:
        await self.channel_layer.group_send(self.room, {"type": "room.message", "text": content["say"]})

    async def room_message(self, event: dict[str, Any]) -> None:
        await self.send_json({"heard": event["text"]})

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.room, self.channel_name)
        note(f"room {self.room} left with {code}")


class SyncRoom(WebsocketConsumer):
    """
    A member of a room by a sync consumer, which Channels itself puts into its groups.
    """

    groups = ("everybody",)

    def connect(self) -> None:
        self.accept()
        self.send(text_data="joined")

    def room_message(self, event: dict[str, Any]) -> None:
        self.send(text_data=event["text"])


websocket_routes = [
    path("sync/echo", SyncEcho.as_asgi()),
    path("sync/greet/<str:name>", SyncGreet.as_asgi()),
    path("sync/protocol", SyncProtocol.as_asgi()),
    path("sync/close", SyncClose.as_asgi()),
    path("sync/note/<str:key>", SyncNote.as_asgi()),
    path("sync/endless/<str:key>", SyncEndless.as_asgi()),
    path("sync/refuse", SyncRefuse.as_asgi()),
    path("sync/fault/<str:key>", SyncFault.as_asgi()),
    path("async/echo", AsyncEcho.as_asgi()),
    path("async/greet/<str:name>", AsyncGreet.as_asgi()),
    path("async/protocol", AsyncProtocol.as_asgi()),
    path("async/close", AsyncClose.as_asgi()),
    path("async/note/<str:key>", AsyncNote.as_asgi()),
    path("async/endless/<str:key>", AsyncEndless.as_asgi()),
    path("async/refuse", AsyncRefuse.as_asgi()),
    path("async/fault/<str:key>", AsyncFault.as_asgi()),
    path("room/<str:room>", Room.as_asgi()),
    path("everybody", SyncRoom.as_asgi()),
    path("guarded", OriginValidator(AsyncEcho.as_asgi(), ["https://good.example"])),
]

http_routes = [
    path("consumer/reflect/<str:name>", Reflect.as_asgi()),
    path("consumer/stream/<str:key>", Stream.as_asgi()),
    path("consumer/endless/<str:key>", Endless.as_asgi()),
    path("consumer/parked/<str:key>", Parked.as_asgi()),
    path("consumer/long-poll/<str:key>", LongPoll.as_asgi()),
    path("consumer/say/<str:room>", Say.as_asgi()),
    path("consumer/fault/<str:key>", HttpFault.as_asgi()),
    re_path(r"", django_views),
]

app = ProtocolTypeRouter({"http": URLRouter(http_routes), "websocket": CookieMiddleware(URLRouter(websocket_routes))})
