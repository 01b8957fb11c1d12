"""Following on /compare: a press goes to a service that writes, through Kafka, projector and sink, and each mode is seen to catch up."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
from playwright.async_api import expect

from app.settings import Settings
from demo.seed import user
from demo.servers.process import NotReadyError, free_port, until
from demo.servers.server import Server
from tests.browser.arranged import Site, Watched
from tests.browser.conftest import OpenPage
from tests.browser.test_compare_page import cells
from tests.road import Road, open_road

# on a machine that is busy, with a projector and a sink that begin
SOON_MS = 60_000
DURATION = re.compile(r"^(\d+ ms|\d+\.\d s)$")


@dataclass(slots=True)
class Town:
    """A gateway whose page may write, and the service that does."""

    site: Site
    writes: str
    service: asyncio.subprocess.Process

    async def opened(self, open_page: OpenPage) -> Watched:
        watched = await open_page(self.site, "about:blank")
        watched.writes = self.writes
        await watched.page.goto(self.site.url + "/compare")
        await expect(cells(watched.page, "username")).to_have_text(["code_1"] * 4, timeout=SOON_MS)
        return watched


@pytest.fixture
async def road(kafka_at: Server, redis_at: Server, postgres_at: Server) -> AsyncIterator[Road]:
    async with open_road(kafka_at, redis_at, postgres_at) as opened:
        yield opened


@pytest.fixture
async def town(road: Road) -> AsyncIterator[Town]:
    port, writes = free_port(), f"http://127.0.0.1:{free_port()}"
    given = road.settings.model_dump(exclude_unset=True)
    settings = Settings(**given, port=port, writes_url=writes, allow_mode_header=True, cache_ttl_seconds=1)
    for number in (1, 2):
        road.publisher.publish("c", None, user(number), 1_700_000_000_000)
    road.publisher.flush()
    await road.project()
    await road.start("-m", "app", "invalidate")
    await road.start("-m", "demo.sink")
    service = await road.start("-m", "demo.follows", VIEWGATE_WRITES_URL=writes, VIEWGATE_PORT=str(port))
    await until(lambda: _answers(f"{writes}/livez"), 30)
    async with Site.running(settings, road.definition) as site:
        yield Town(site, writes, service)


async def _answers(url: str) -> None:
    async with httpx.AsyncClient() as client:
        try:
            await client.get(url)
        except httpx.HTTPError as error:
            raise NotReadyError(repr(error)) from error


async def test_a_follow_is_seen_to_reach_each_mode_and_so_is_its_undoing(town: Town, open_page: OpenPage) -> None:
    watched = await town.opened(open_page)
    page = watched.page
    await expect(page.get_by_role("button", name="take it back")).to_be_disabled()
    for press, count, sign in (("follow", "1", "+"), ("take it back", "0", "\u2212")):
        await page.get_by_role("button", name=press).click()
        await expect(page.locator("#followed")).to_have_text(re.compile(r"^User \d+ .*follows 1: acknowledged after \d+ ms\.$"))
        await expect(page.locator(".strip.done .took")).to_have_text([DURATION] * 4, timeout=SOON_MS)
        await expect(cells(page, "followerCount")).to_have_text([count] * 4)
        line = page.locator("#presses tbody tr").first.locator("td")
        await expect(line).to_have_text([f"{sign}1 for 1", re.compile(r"^\d+ ms$"), DURATION, DURATION, DURATION, DURATION])
    await expect(page.locator("#presses tbody tr")).to_have_count(2)
    await expect(page.get_by_role("button", name="take it back")).to_be_disabled()


async def test_what_the_service_refuses_is_told_and_nothing_is_watched(town: Town, open_page: OpenPage) -> None:
    watched = await town.opened(open_page)
    page = watched.page
    await page.get_by_label("user id").fill("999999")
    await page.get_by_role("button", name="follow", exact=True).click()
    await expect(page.locator("#followed")).to_have_text("No mode knows a user with id 999999.")
    await page.get_by_label("user id").fill("1")
    town.service.kill()
    await town.service.wait()
    await page.get_by_role("button", name="follow", exact=True).click()
    await expect(page.locator("#followed")).to_have_text(f"The service at {town.writes} cannot be reached.")
    await expect(page.locator(".strip .took")).to_have_text([""] * 4)
    assert watched.forgive("net::ERR_CONNECTION_REFUSED") > 0


async def test_a_gateway_without_such_a_service_has_no_button(road: Road, open_page: OpenPage) -> None:
    async with Site.running(road.settings, road.definition) as site:
        page = (await open_page(site, "/compare")).page
        await expect(page.get_by_role("heading", name="Load")).to_be_visible()
        await expect(page.locator("#following")).to_be_hidden()
