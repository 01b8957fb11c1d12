"""ASGI apps for servers that want the name of one, such as granian: the gateway without its short road, and one of constant bytes."""

import json
import os
from contextlib import AsyncExitStack
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from app.server import gateway
from app.settings import read_settings
from app.views import definition_of
from bench.peers.read_app import CONFIG, constant


class _Gateway:
    """Opened when its server says that it begins."""

    def __init__(self) -> None:
        self._opened = AsyncExitStack()
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            settings = read_settings()
            self._app = await self._opened.enter_async_context(gateway(settings, definition_of(settings)))
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self._opened.aclose()
            await send({"type": "lifespan.shutdown.complete"})
        elif self._app is not None:
            await self._app(scope, receive, send)


asgi = _Gateway()
bare = constant(json.loads(Path(os.environ[CONFIG]).read_text())["answer"].encode()) if CONFIG in os.environ else asgi
