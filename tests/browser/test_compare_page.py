"""/compare, live: what it shows of all modes, what each read, and what it shows while data changes and while nothing answers."""

import re

import asyncpg
import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.arranged import Watched, held
from tests.browser.conftest import OpenPage, OpenSite
from tests.request.arranged import DEFINITION, View

MODES = ["view", "cache-aside", "cache-invalidate", "sql"]
SECONDS = re.compile(r"^age \d+\.\d s$")
ANOTHER_TWEET = "INSERT INTO tweets (user_id, text, created_at) VALUES (1, 'another', now())"


def cells(page: Page, field: str) -> Locator:
    """What each mode says of a field."""
    return page.locator("#answers tbody tr").filter(has=page.get_by_role("rowheader", name=field, exact=True)).locator("td")


def marked(page: Page) -> Locator:
    return page.locator("td.differs")


async def add_tweet(view: View) -> None:
    await view.redis.hincrby(view.key("1"), view.code("tweet_count"), 1)


def asked(watched: Watched) -> list[tuple[str, str]]:
    """Mode and id of each request so far."""
    return [(request.headers["viewgate-mode"], (request.post_data_json or {})["variables"]["id"]) for request in watched.queries()]


async def test_a_column_for_each_mode_shows_every_field_alike(open_site: OpenSite, open_page: OpenPage) -> None:
    page = (await open_page(await open_site(), "/compare")).page
    await expect(page.locator("#answers thead th .mode")).to_have_text(MODES)
    names = ["id", *(field.camel for field in DEFINITION.fields)]
    await expect(page.locator("#answers tbody th")).to_have_text(names)
    await expect(cells(page, "username")).to_have_text(["code_1"] * 4)
    await expect(cells(page, "followerCount")).to_have_text(["5"] * 4)
    for name in names:
        assert len(set(await cells(page, name).all_inner_texts())) == 1
    await expect(marked(page)).to_have_count(0)
    await expect(page.locator(".from")).to_have_text([re.compile(r"^age \d+ days · g1$"), SECONDS, SECONDS, SECONDS])


async def test_times_come_with_a_median_and_a_line(open_site: OpenSite, open_page: OpenPage) -> None:
    page = (await open_page(await open_site(), "/compare")).page
    for place in range(4):
        await expect(page.locator(".ms").nth(place)).to_contain_text(" ms")
        await expect(page.locator(".median").nth(place)).to_contain_text("median ")
        await expect(page.locator(".spark polyline").nth(place)).not_to_have_attribute("points", "")


async def test_a_change_is_shown_while_you_look(open_site: OpenSite, open_page: OpenPage, seeded: View, source: asyncpg.Connection) -> None:
    page = (await open_page(await open_site(cache_ttl_seconds=1, cache_invalidate_ttl_seconds=1), "/compare")).page
    await expect(cells(page, "tweetCount")).to_have_text(["3"] * 4)
    await source.execute(ANOTHER_TWEET)
    await add_tweet(seeded)
    await expect(cells(page, "tweetCount")).to_have_text(["4"] * 4)


async def test_what_differs_is_marked_until_it_agrees(
    open_site: OpenSite, open_page: OpenPage, seeded: View, source: asyncpg.Connection
) -> None:
    page = (await open_page(await open_site(), "/compare")).page
    await expect(cells(page, "tweetCount")).to_have_text(["3"] * 4)
    await source.execute(ANOTHER_TWEET)
    await expect(cells(page, "tweetCount")).to_have_text(["3", "3", "3", "4"])
    await expect(marked(page)).to_have_text(["4"])
    await add_tweet(seeded)
    await expect(cells(page, "tweetCount")).to_have_text(["4", "3", "3", "4"])
    await expect(marked(page)).to_have_text(["3", "3"])
    await add_tweet(seeded)
    await expect(marked(page)).to_have_text(["5", "4"])
    await expect(page.locator("#why")).to_be_visible()


async def test_a_server_that_is_away_is_told_and_forgotten_when_it_is_back(open_site: OpenSite, open_page: OpenPage) -> None:
    site = await open_site()
    watched = await open_page(site, "/compare")
    page = watched.page
    await expect(cells(page, "username")).to_have_text(["code_1"] * 4)
    await site.stop()
    await expect(page.locator("#answers .trouble")).to_have_text(["The gateway cannot be reached; asking again."] * 4)
    await expect(page.locator("td.old")).to_have_count(4 * (len(DEFINITION.fields) + 1))
    await site.start()
    await expect(page.locator("#answers .trouble")).to_have_text([""] * 4)
    await expect(page.locator("td.old")).to_have_count(0)
    assert watched.forgive("net::ERR_CONNECTION_REFUSED") + watched.forgive("net::ERR_EMPTY_RESPONSE") > 0


async def test_one_mode_that_fails_is_told_by_code_and_sentence(open_site: OpenSite, open_page: OpenPage, seeded: View) -> None:
    page = (await open_page(await open_site(), "/compare")).page
    await expect(cells(page, "username")).to_have_text(["code_1"] * 4)
    await seeded.redis.hdel(seeded.key("1"), seeded.code("tweet_count"))
    await expect(page.locator("#answers .trouble")).to_have_text([re.compile("^FIELD_MISSING: .+"), "", "", ""])
    await expect(marked(page)).to_have_count(0)


async def test_another_id_is_asked_for_at_once(open_site: OpenSite, open_page: OpenPage) -> None:
    watched = await open_page(await open_site(), "/compare")
    page = watched.page
    await expect(cells(page, "username")).to_have_text(["code_1"] * 4)
    await page.get_by_label("user id").fill("2")
    await expect(cells(page, "id")).to_have_text(["2"] * 4)
    await page.get_by_label("user id").fill("99")
    await expect(page.locator("#answers .trouble")).to_have_text(["There is none with id 99."] * 4)
    await expect(cells(page, "id")).to_have_text(["\u2013"] * 4)
    await page.get_by_label("user id").fill("007")
    await expect(page.locator("#answers .trouble")).to_have_text([re.compile("^INVALID_ID: .+")] * 4)
    await page.get_by_label("user id").fill("")
    await expect(page.locator("#paused")).to_have_text("Write an id.")
    await page.get_by_role("button", name="random").click()
    await expect(page.get_by_label("user id")).to_have_value(re.compile(r"^\d+$"))
    assert {mode for mode, _ in asked(watched)} == set(MODES)


async def test_where_no_mode_may_be_chosen_there_is_one_column_and_the_setting_is_named(open_site: OpenSite, open_page: OpenPage) -> None:
    watched = await open_page(await open_site(allow_mode_header=False), "/compare")
    page = watched.page
    await expect(page.locator("#answers thead th .mode")).to_have_text(["view"])
    await expect(cells(page, "username")).to_have_text(["code_1"])
    await expect(page.locator("#one")).to_contain_text("VIEWGATE_ALLOW_MODE_HEADER")
    await expect(page.locator("#why")).to_be_hidden()
    assert ["viewgate-mode" in request.headers for request in watched.queries()[:1]] == [False]


async def test_nothing_is_asked_while_the_page_is_hidden(open_site: OpenSite, open_page: OpenPage) -> None:
    watched = await open_page(await open_site(), "about:blank")
    page = watched.page
    await page.clock.install()
    await page.goto(watched.origin + "/compare")
    await expect(cells(page, "username")).to_have_text(["code_1"] * 4)
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
    released = await held(page, "sql")
    await page.goto(watched.origin + "/compare")
    for _ in range(3):
        async with page.expect_request(lambda request: request.headers.get("viewgate-mode") == "view"):
            pass
    for row_id in ("2", "3"):
        await page.get_by_label("user id").fill(row_id)
        await expect(cells(page, "id")).to_have_text([row_id, row_id, row_id, ""])
    assert [row_id for mode, row_id in asked(watched) if mode == "sql"] == ["1"]
    released.set()
    await expect(cells(page, "id")).to_have_text(["3"] * 4)
    assert [row_id for mode, row_id in asked(watched) if mode == "sql"][:2] == ["1", "3"]


async def test_a_number_of_64_bits_is_shown_as_it_was_sent(open_site: OpenSite, open_page: OpenPage) -> None:
    watched = await open_page(await open_site(allow_mode_header=False), "about:blank")
    await watched.page.route("**/graphql", lambda route: route.fulfill(body='{"data":{"user":{"tweetCount":9007199254740993}}}'))
    await watched.page.goto(watched.origin + "/compare")
    await expect(cells(watched.page, "tweetCount")).to_have_text(["9007199254740993"])


@pytest.mark.parametrize(("scheme", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 23, 28)")])
async def test_it_is_light_or_dark_as_the_system_is(open_site: OpenSite, open_page: OpenPage, scheme: str, paper: str) -> None:
    page = (await open_page(await open_site(), "/compare", color_scheme=scheme)).page
    await expect(page.locator("body")).to_have_css("background-color", paper)


async def test_what_each_read_is_told_in_short_and_opens_to_what_was_sent(open_site: OpenSite, open_page: OpenPage, seeded: View) -> None:
    page = (await open_page(await open_site(), "/compare")).page
    read = page.locator("#answers .read summary")
    await expect(read).to_have_text([re.compile(r"^1 HMGET of \d+ fields$"), "1 GET", "1 GET", "5 SQL queries in 1 statement"])
    for place in range(4):
        await read.nth(place).click()
    told = [await page.locator("#answers .read ol").nth(place).locator("li").all_inner_texts() for place in range(4)]
    assert any(line.startswith(f"HMGET {seeded.key('1')} ") for line in told[0])
    assert told[1:3] == [["GET user:cache-aside:{id:1}"], ["GET user:cache-invalidate:{id:1}"]]
    assert [line.count("SELECT count(*) FROM") for line in told[3]] == [4]
    await page.get_by_label("user id").fill("2")
    await expect(read.nth(1)).to_have_text("1 GET + 1 GET + 5 SQL queries in 1 statement")


async def test_a_slow_gateway_is_told_in_place_of_an_answer(open_site: OpenSite, open_page: OpenPage) -> None:
    watched = await open_page(await open_site(allow_mode_header=False), "about:blank")
    await watched.page.route("**/graphql", lambda route: route.fulfill(status=502, body="Bad gateway"))
    await watched.page.goto(watched.origin + "/compare")
    await expect(watched.page.locator("#answers .trouble")).to_have_text("HTTP 502: the answer is not JSON.")
    watched.forgive("Failed to load resource")


async def test_a_phone_scrolls_one_way_only_and_shows_every_card(open_site: OpenSite, open_page: OpenPage) -> None:
    watched = await open_page(await open_site(), "/compare", 390, 844)
    await expect(cells(watched.page, "username")).to_have_text(["code_1"] * 4)
    await watched.page.get_by_role("radio", name="20", exact=True).check()
    await expect(watched.page.locator("#percentiles polyline")).to_have_count(4)
    assert not await watched.scrolls_sideways()
    boxes = [await head.bounding_box() for head in await watched.page.locator("#answers thead th").all()]
    assert min(box["width"] for box in boxes if box) > 150


async def test_the_page_is_worked_by_the_keyboard(open_site: OpenSite, open_page: OpenPage) -> None:
    page = (await open_page(await open_site(), "/compare")).page
    await page.get_by_label("user id").focus()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="random")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_label("user id")).not_to_have_value("1")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.locator("#answers .read").first).to_have_attribute("open", "")


@pytest.mark.parametrize(("said", "right"), [("1121", "1"), ("1122", "2"), ("2211", "1"), ("1123", "1"), ("1234", None), ("1", "1")])
async def test_what_is_marked_is_judged_by_most_and_of_two_by_sql(
    open_site: OpenSite, open_page: OpenPage, said: str, right: str | None
) -> None:
    page = (await open_page(await open_site(), "/compare")).page
    modes = ["view", "cache-aside", "cache-invalidate", "sql"]
    fresh = [{"mode": mode, "row": {"field": value}} for mode, value in zip(modes, said, strict=False)]
    assert await page.evaluate("(fresh) => agreed(fresh, 'field') ?? null", fresh) == right
