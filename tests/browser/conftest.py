"""A Chromium whose network is closed but for the gateway, and a gateway over real servers that hold users as the demo seeds them."""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest
from playwright.async_api import Browser, async_playwright
from redis.asyncio import Redis

from app.settings import Settings
from demo.servers.server import Server
from tests.browser.arranged import SEEDED, Site, Watched
from tests.request.arranged import View, write_tables
from tests.road import make_database

# names are not resolved at all, so that nothing but 127.0.0.1 can be reached
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]

# as tools/system-packages looks for them
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

OpenSite = Callable[..., Awaitable[Site]]
OpenPage = Callable[..., Awaitable[Watched]]


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Of a Chromium of this machine; skipped on a laptop that has none, failed under CI=true."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        missing = f"needs Chromium, Debian's package chromium: none of {', '.join(BROWSERS)} is on PATH"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@pytest.fixture(scope="session")
async def chromium(chromium_path: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_path, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
async def seeded_at(postgres_at: Server) -> str:
    """The address of a database of this folder's own; its tables are written anew for each test."""
    return await make_database(postgres_at, "browser")


@pytest.fixture
async def source(seeded_at: str) -> AsyncIterator[asyncpg.Connection]:
    """The source tables, with SEEDED."""
    connection = await asyncpg.connect(seeded_at)
    await write_tables(connection, SEEDED)
    yield connection
    await connection.close()


@pytest.fixture
async def seeded(redis: Redis, source: asyncpg.Connection) -> View:
    """SEEDED, live as generation g1, and in the source tables."""
    written = View(redis)
    await written.write(SEEDED)
    return written


@pytest.fixture
async def open_site(redis_at: Server, seeded_at: str, seeded: View) -> AsyncIterator[OpenSite]:
    """A gateway on a port of its own, settings given by name."""
    async with AsyncExitStack() as opened:

        async def open_one(**given: Any) -> Site:
            addresses = {"redis_url": redis_at.address, "postgres_url": seeded_at}
            return await opened.enter_async_context(Site.running(Settings(**(addresses | {"allow_mode_header": True} | given))))

        yield open_one


@pytest.fixture
async def open_page(chromium: Browser) -> AsyncIterator[OpenPage]:
    """A page in a profile of its own. At the end no page may have asked another origin, or complained."""
    opened: list[Watched] = []

    async def open_one(site: Site, path: str, width: int = 1280, height: int = 800, **given: Any) -> Watched:
        context = await chromium.new_context(viewport={"width": width, "height": height}, **given)
        watched = await Watched.opened(context, site.url)
        opened.append(watched)
        await watched.page.goto(path if path == "about:blank" else site.url + path)
        return watched

    yield open_one
    for watched in opened:
        await watched.page.context.close()
    assert [foreign for watched in opened for foreign in watched.foreign] == []
    assert [complaint for watched in opened for complaint in watched.complaints] == []
