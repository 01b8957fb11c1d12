"""The front page, live: what it shows of all modes, while data changes and while nothing answers."""

import asyncio
import re

import asyncpg
import pytest
from playwright.async_api import Locator, Page, Route, expect

from tests.browser.arranged import Watched
from tests.browser.conftest import OpenPage, OpenSite
from tests.request.arranged import DEFINITION, View

MODES = ["view", "cache-aside", "cache-invalidate", "sql"]
SECONDS = re.compile(r"^age \d+\.\d s$")
ANOTHER_TWEET = "INSERT INTO tweets (user_id, text, created_at) VALUES (1, 'another', now())"


def cells(page: Page, field: str) -> Locator:
    """What each mode says of a field."""
    return page.locator("tbody tr").filter(has=page.get_by_role("rowheader", name=field, exact=True)).locator("td")


def marked(page: Page) -> Locator:
    return page.locator("td.differs")


async def add_tweet(view: View) -> None:
    await view.redis.hincrby(view.key("1"), view.code("tweet_count"), 1)


def asked(watched: Watched) -> list[tuple[str, str]]:
    """Mode and id of each request so far."""
    return [(request.headers["viewgate-mode"], (request.post_data_json or {})["variables"]["id"]) for request in watched.queries()]


async def test_three_columns_show_every_field_alike(open_site: OpenSite, open_page: OpenPage) -> None:
    page = (await open_page(await open_site(), "/")).page
    await expect(page.locator("thead th .mode")).to_have_text(MODES)
    names = ["id", *(field.camel for field in DEFINITION.fields)]
    await expect(page.locator("tbody th")).to_have_text(names)
    await expect(cells(page, "username")).to_have_text(["code_1"] * 3)
    await expect(cells(page, "followerCount")).to_have_text(["5"] * 3)
    for name in names:
        assert len(set(await cells(page, name).all_inner_texts())) == 1
    await expect(marked(page)).to_have_count(0)
    await expect(page.locator(".from")).to_have_text([re.compile(r"^g1 · age \d+ days$"), SECONDS, SECONDS])


async def test_times_come_with_a_median_and_a_line(open_site: OpenSite, open_page: OpenPage) -> None:
    page = (await open_page(await open_site(), "/")).page
    for place in range(3):
        await expect(page.locator(".ms").nth(place)).to_contain_text(" ms")
        await expect(page.locator(".median").nth(place)).to_contain_text("median ")
        await expect(page.locator("polyline").nth(place)).not_to_have_attribute("points", "")


async def test_a_change_is_shown_while_you_look(open_site: OpenSite, open_page: OpenPage, seeded: View, source: asyncpg.Connection) -> None:
    page = (await open_page(await open_site(cache_ttl_seconds=1), "/")).page
    await expect(cells(page, "tweetCount")).to_have_text(["3", "3", "3"])
    await source.execute(ANOTHER_TWEET)
    await add_tweet(seeded)
    await expect(cells(page, "tweetCount")).to_have_text(["4", "4", "4"])


async def test_what_differs_is_marked_until_it_agrees(
    open_site: OpenSite, open_page: OpenPage, seeded: View, source: asyncpg.Connection
) -> None:
    page = (await open_page(await open_site(), "/")).page
    await expect(cells(page, "tweetCount")).to_have_text(["3", "3", "3"])
    await source.execute(ANOTHER_TWEET)
    await expect(cells(page, "tweetCount")).to_have_text(["3", "3", "4"])
    await expect(marked(page)).to_have_text(["4"])
    await add_tweet(seeded)
    await expect(cells(page, "tweetCount")).to_have_text(["4", "3", "4"])
    await expect(marked(page)).to_have_text(["3"])
    await add_tweet(seeded)
    await expect(marked(page)).to_have_text(["5", "3", "4"])
    await expect(page.locator("#why")).to_be_visible()


async def test_a_server_that_is_away_is_told_and_forgotten_when_it_is_back(open_site: OpenSite, open_page: OpenPage) -> None:
    site = await open_site()
    watched = await open_page(site, "/")
    page = watched.page
    await expect(cells(page, "username")).to_have_text(["code_1"] * 3)
    await site.stop()
    await expect(page.locator(".trouble")).to_have_text(["The gateway cannot be reached; asking again."] * 3)
    await expect(page.locator("td.old")).to_have_count(3 * (len(DEFINITION.fields) + 1))
    await site.start()
    await expect(page.locator(".trouble")).to_have_text([""] * 3)
    await expect(page.locator("td.old")).to_have_count(0)
    assert watched.forgive("net::ERR_CONNECTION_REFUSED") + watched.forgive("net::ERR_EMPTY_RESPONSE") > 0


async def test_one_mode_that_fails_is_told_by_code_and_sentence(open_site: OpenSite, open_page: OpenPage, seeded: View) -> None:
    page = (await open_page(await open_site(), "/")).page
    await expect(cells(page, "username")).to_have_text(["code_1"] * 3)
    await seeded.redis.hdel(seeded.key("1"), seeded.code("tweet_count"))
    await expect(page.locator(".trouble")).to_have_text([re.compile("^FIELD_MISSING: .+"), "", ""])
    await expect(marked(page)).to_have_count(0)


async def test_another_id_is_asked_for_at_once(open_site: OpenSite, open_page: OpenPage) -> None:
    watched = await open_page(await open_site(), "/")
    page = watched.page
    await expect(cells(page, "username")).to_have_text(["code_1"] * 3)
    await page.get_by_label("user id").fill("2")
    await expect(cells(page, "id")).to_have_text(["2"] * 3)
    await page.get_by_label("user id").fill("99")
    await expect(page.locator(".trouble")).to_have_text(["There is none with id 99."] * 3)
    await expect(cells(page, "id")).to_have_text(["\u2013"] * 3)
    await page.get_by_label("user id").fill("007")
    await expect(page.locator(".trouble")).to_have_text([re.compile("^INVALID_ID: .+")] * 3)
    await page.get_by_label("user id").fill("")
    await expect(page.locator("#paused")).to_have_text("Write an id.")
    await page.get_by_role("button", name="another at random").click()
    await expect(page.get_by_label("user id")).to_have_value(re.compile(r"^\d+$"))
    assert {mode for mode, _ in asked(watched)} == set(MODES)


async def test_where_no_mode_may_be_chosen_there_is_one_column_and_the_setting_is_named(open_site: OpenSite, open_page: OpenPage) -> None:
    watched = await open_page(await open_site(allow_mode_header=False), "/")
    page = watched.page
    await expect(page.locator("thead th .mode")).to_have_text(["view"])
    await expect(cells(page, "username")).to_have_text(["code_1"])
    await expect(page.locator("#one")).to_contain_text("VIEWGATE_ALLOW_MODE_HEADER")
    await expect(page.locator("#why")).to_be_hidden()
    assert ["viewgate-mode" in request.headers for request in watched.queries()[:1]] == [False]


async def test_nothing_is_asked_while_the_page_is_hidden(open_site: OpenSite, open_page: OpenPage) -> None:
    watched = await open_page(await open_site(), "about:blank")
    page = watched.page
    await page.clock.install()
    await page.goto(watched.origin)
    await expect(cells(page, "username")).to_have_text(["code_1"] * 3)
    await hide(page, True)
    before = len(watched.queries())
    await page.clock.run_for(30_000)
    assert len(watched.queries()) == before
    async with page.expect_request(watched.origin + "/graphql"):
        await hide(page, False)


async def hide(page: Page, hidden: bool) -> None:
    await page.evaluate(
        "(hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true }); "
        "document.dispatchEvent(new Event('visibilitychange')); }",
        hidden,
    )


async def test_a_slow_mode_is_asked_once_at_a_time_and_holds_up_no_other(open_site: OpenSite, open_page: OpenPage) -> None:
    watched = await open_page(await open_site(), "about:blank")
    page = watched.page
    released = asyncio.Event()

    async def hold(route: Route) -> None:
        if route.request.headers.get("viewgate-mode") == "sql":
            await released.wait()
        await route.fallback()

    await page.route("**/graphql", hold)
    await page.goto(watched.origin)
    for _ in range(3):
        async with page.expect_request(lambda request: request.headers.get("viewgate-mode") == "view"):
            pass
    for row_id in ("2", "3"):
        await page.get_by_label("user id").fill(row_id)
        await expect(cells(page, "id")).to_have_text([row_id, row_id, ""])
    assert [row_id for mode, row_id in asked(watched) if mode == "sql"] == ["1"]
    released.set()
    await expect(cells(page, "id")).to_have_text(["3"] * 3)
    assert [row_id for mode, row_id in asked(watched) if mode == "sql"][:2] == ["1", "3"]


async def test_a_number_of_64_bits_is_shown_as_it_was_sent(open_site: OpenSite, open_page: OpenPage) -> None:
    watched = await open_page(await open_site(allow_mode_header=False), "about:blank")
    await watched.page.route("**/graphql", lambda route: route.fulfill(body='{"data":{"user":{"tweetCount":9007199254740993}}}'))
    await watched.page.goto(watched.origin)
    await expect(cells(watched.page, "tweetCount")).to_have_text(["9007199254740993"])


@pytest.mark.parametrize(("scheme", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 23, 28)")])
async def test_it_is_light_or_dark_as_the_system_is(open_site: OpenSite, open_page: OpenPage, scheme: str, paper: str) -> None:
    page = (await open_page(await open_site(), "/", color_scheme=scheme)).page
    await expect(page.locator("body")).to_have_css("background-color", paper)


@pytest.mark.parametrize("path", ["/", "/docs/", "/docs/settings", "/docs/readme"])
async def test_a_narrow_screen_scrolls_one_way_only(open_site: OpenSite, open_page: OpenPage, path: str) -> None:
    watched = await open_page(await open_site(), path, 390, 844)
    if path == "/":
        await expect(cells(watched.page, "username")).to_have_text(["code_1"] * 3)
    assert not await watched.scrolls_sideways()


async def test_the_docs_are_read_without_a_network(open_site: OpenSite, open_page: OpenPage) -> None:
    site = await open_site()
    watched = await open_page(site, "/")
    page = watched.page
    await page.get_by_role("banner").get_by_role("link", name="docs").click()
    await page.get_by_role("link", name="Settings", exact=True).click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Settings")
    await expect(page.get_by_role("cell", name="VIEWGATE_PAGES")).to_be_visible()
    addresses = await page.locator("a[href^='/'], a[href^='#']").evaluate_all("(links) => links.map((link) => link.href)")
    assert {(await page.request.get(address, headers={"accept": "text/html"})).status for address in addresses} == {200}
    assert len(addresses) > 4


@pytest.mark.parametrize("path", ["/", "/graphql", "/docs/"])
async def test_without_pages_a_browser_finds_none(open_site: OpenSite, open_page: OpenPage, path: str) -> None:
    watched = await open_page(await open_site(pages=False), "about:blank")
    response = await watched.page.goto(watched.origin + path)
    assert response
    assert (response.status, response.headers["content-type"]) == (400 if path == "/graphql" else 404, "application/json")
    watched.forgive("Failed to load resource")
