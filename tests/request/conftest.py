"""Redis, PostgreSQL and gateways over them, for the tests of the read path."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from app.server import application, gateway
from app.settings import Settings
from app.telemetry import GatewayMetrics
from demo.servers.server import Server
from schema.compile import Plans
from schema.loader import Loader
from tests.clients.running import served
from tests.request.arranged import DEFINITION

CACHE = Path(__file__).parents[2] / ".cache"

Open = Callable[..., Awaitable[httpx.AsyncClient]]


@pytest.fixture(params=["plan", "executor", "short"])
def answered_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test of the API is run thrice: answered by plans, by Strawberry's executor alone, and on the short road from a socket."""
    if request.param == "executor":
        monkeypatch.setattr(Plans, "known", lambda *_: None)
    return str(request.param)


@pytest.fixture
async def open_gateway(answered_by: str, redis_at: Server, users_at: str) -> AsyncIterator[Open]:
    """A gateway over the two servers, settings given by name, as an HTTP client."""
    async with AsyncExitStack() as opened:

        async def open_one(**given: Any) -> httpx.AsyncClient:
            addresses = {"redis_url": redis_at.address, "postgres_url": users_at}
            settings = Settings(**(addresses | {"allow_mode_header": True} | given))
            app = await opened.enter_async_context(gateway(settings, DEFINITION))
            return await opened.enter_async_context(_client(app, answered_by))

        yield open_one


@pytest.fixture
async def open_over(answered_by: str) -> AsyncIterator[Open]:
    """A gateway over loaders that are given, mode by mode, and without any server."""
    async with AsyncExitStack() as opened:

        async def open_one(*loaders: Loader, **given: Any) -> httpx.AsyncClient:
            modes = dict(zip(("view", "cache-aside", "sql"), loaders, strict=False))
            app = application(Settings(**given), DEFINITION, modes, GatewayMetrics())  # type: ignore[arg-type] # zip forgets what a Mode is
            return await opened.enter_async_context(_client(app, answered_by))

        yield open_one


@asynccontextmanager
async def _client(app: Starlette, answered_by: str) -> AsyncIterator[httpx.AsyncClient]:
    if answered_by == "short":
        async with served(app) as url, httpx.AsyncClient(base_url=url.removesuffix("/graphql")) as client:
            yield client
        return
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://gateway") as client:
        yield client
