"""What the tests in the browser open: a gateway on a port, and a page that notes what it asks for and complains of."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Self

import uvicorn
from playwright.async_api import BrowserContext, ConsoleMessage, Error, Page, Request, Route
from starlette.types import ASGIApp

from app.server import gateway
from app.settings import Settings
from demo.seed import user as seeded_user
from demo.servers.process import free_port
from schema.definition import Definition
from tests.request.arranged import DEFINITION, User, user

TELL_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) => console.error("violation", event.violatedDirective, event.blockedURI));
"""


def _seeded(number: int) -> User:
    row = seeded_user(number)
    columns = {f.name: getattr(row, f.name) for f in DEFINITION.columns if f.name != "username"}
    return user(number, row.username, (number * 3, number, number * 5, 7), **columns)


SEEDED = [_seeded(number) for number in range(1, 8)]


class Site:
    """A gateway on 127.0.0.1. `stop` ends its server, `start` begins one at the same port."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._port = port
        self.url = f"http://127.0.0.1:{port}"

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, settings: Settings, definition: Definition = DEFINITION) -> AsyncIterator[Self]:
        """At the settings' port, if they were given one."""
        async with gateway(settings, definition) as app:
            site = cls(app, settings.port if "port" in settings.model_fields_set else free_port())
            await site.start()
            try:
                yield site
            finally:
                await site.stop()

    async def start(self) -> None:
        config = uvicorn.Config(
            self._app, port=self._port, http="httptools", lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve())
        async with asyncio.timeout(10):
            await self._server.listening.wait()

    async def stop(self) -> None:
        self._server.should_exit = True
        await self._serving


class _Server(uvicorn.Server):
    """Says when it listens, and leaves the signals to pytest."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


# without slots: playwright keeps a note at the object whose method it calls
@dataclass
class Watched:
    """A page. foreign: what it asked of another origin than its own and `writes`, where its follows go.

    complaints: its console's warnings and errors, CSP's among them.
    """

    page: Page
    origin: str
    writes: str = ""
    foreign: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)

    @classmethod
    async def opened(cls, context: BrowserContext, origin: str) -> Self:
        watched = cls(await context.new_page(), origin)
        await context.add_init_script(TELL_VIOLATIONS)
        await context.route("**/*", watched._allow)
        watched.page.on("console", watched._hear)
        watched.page.on("pageerror", watched._catch)
        watched.page.on("request", watched._count)
        return watched

    def queries(self) -> list[Request]:
        """The GraphQL requests so far, without GraphiQL's own about the schema."""
        posts = [request for request in self.asked if request.url == f"{self.origin}/graphql" and request.method == "POST"]
        return [request for request in posts if "IntrospectionQuery" not in (request.post_data or "")]

    def forgive(self, text: str) -> int:
        """Drop the complaints that hold this text; how many they were."""
        kept = [complaint for complaint in self.complaints if text not in complaint]
        dropped, self.complaints = len(self.complaints) - len(kept), kept
        return dropped

    async def scrolls_sideways(self) -> bool:
        return bool(await self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))

    async def _allow(self, route: Route) -> None:
        if route.request.url.startswith(f"{self.origin}/") or (self.writes and route.request.url == f"{self.writes}/follows"):
            await route.continue_()
        else:
            self.foreign.append(route.request.url)
            await route.abort()

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("warning", "error"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _catch(self, error: Error) -> None:
        self.complaints.append(str(error))

    def _count(self, request: Request) -> None:
        self.asked.append(request)


async def held(page: Page, mode: str) -> asyncio.Event:
    """What the page asks in this mode waits until the event is set."""
    released = asyncio.Event()

    async def hold(route: Route) -> None:
        if route.request.headers.get("viewgate-mode") == mode:
            await released.wait()
        await route.fallback()

    await page.route("**/graphql", hold)
    return released
