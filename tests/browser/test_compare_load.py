"""The load of /compare: that it is drawn, counted and bounded, that a slow mode holds up no other, and that it ends."""

import re

from playwright.async_api import Locator, Page, expect

from demo.servers.process import NotReadyError, until
from tests.browser.arranged import held
from tests.browser.conftest import OpenPage, OpenSite
from tests.browser.test_compare_page import MODES, hide

DUE, ANSWERED, FAILED, DROPPED, P50 = range(5)


def number(page: Page, mode: str, column: int) -> Locator:
    row = page.locator("#counts tbody tr").filter(has=page.get_by_role("rowheader", name=mode, exact=True))
    return row.locator("td").nth(column)


async def reached(page: Page, mode: str, column: int, least: int) -> None:
    async def there() -> None:
        found = (await number(page, mode, column).inner_text()).replace(",", "")
        if not found or int(found) < least:
            raise NotReadyError(f"{mode} has {found}")

    await until(there, 30)


async def put(page: Page, rate: str) -> None:
    await page.get_by_role("radio", name=rate, exact=True).check()


async def test_load_is_counted_and_drawn_for_each_mode_until_it_is_switched_off(open_site: OpenSite, open_page: OpenPage) -> None:
    watched = await open_page(await open_site(), "/compare")
    page = watched.page
    await expect(page.locator("#charts")).to_be_hidden()
    await put(page, "50")
    for mode in MODES:
        await reached(page, mode, ANSWERED, 100)
        await expect(number(page, mode, FAILED)).to_have_text("0")
        await expect(number(page, mode, P50)).to_have_text(re.compile(r"^\d[\d,]*\.\d ms$"))
    await expect(page.locator("#percentiles polyline")).to_have_count(4)
    await expect(page.locator("#seconds polyline")).to_have_count(8)
    await expect(page.locator("#loaded")).to_have_text(re.compile(r"^200 requests/s in all; stops in 4:\d\d\.$"))
    sent = [request for request in watched.queries() if "viewgate-extensions" not in request.headers]
    assert {request.headers["viewgate-mode"] for request in sent} == set(MODES)
    await put(page, "off")
    before = await number(page, "view", DUE).inner_text()
    await expect(page.locator("#loaded")).to_have_text("")
    async with page.expect_request(lambda request: "viewgate-extensions" in request.headers):
        pass
    await expect(number(page, "view", DUE)).to_have_text(before)


async def test_a_mode_that_does_not_answer_drops_its_own_requests_and_no_others(open_site: OpenSite, open_page: OpenPage) -> None:
    watched = await open_page(await open_site(), "about:blank")
    page = watched.page
    released = await held(page, "sql")
    await page.goto(watched.origin + "/compare")
    await put(page, "20")
    await reached(page, "sql", DROPPED, 5)
    await reached(page, "view", ANSWERED, 40)
    await expect(number(page, "view", DROPPED)).to_have_text("0")
    await expect(number(page, "sql", ANSWERED)).to_have_text("0")
    assert len([request for request in watched.queries() if request.headers["viewgate-mode"] == "sql"]) <= 4
    released.set()


async def test_what_is_answered_with_an_error_is_counted_as_failed(open_site: OpenSite, open_page: OpenPage) -> None:
    page = (await open_page(await open_site(), "/compare")).page
    await page.get_by_label("user id").fill("007")
    await put(page, "20")
    await reached(page, "sql", FAILED, 5)
    await expect(number(page, "sql", ANSWERED)).to_have_text("0")


async def test_random_users_are_asked_for_where_that_is_chosen(open_site: OpenSite, open_page: OpenPage) -> None:
    watched = await open_page(await open_site(), "/compare")
    await watched.page.get_by_role("radio", name="random ones").check()
    await put(watched.page, "20")
    await reached(watched.page, "view", ANSWERED, 20)
    sent = [request for request in watched.queries() if "viewgate-extensions" not in request.headers]
    assert len({(request.post_data_json or {})["variables"]["id"] for request in sent}) > 10


async def test_it_stops_when_the_page_is_hidden(open_site: OpenSite, open_page: OpenPage) -> None:
    page = (await open_page(await open_site(), "/compare")).page
    await put(page, "20")
    await reached(page, "view", ANSWERED, 5)
    await hide(page, True)
    await expect(page.locator("#loaded")).to_have_text("Stopped, as the page was hidden.")
    await expect(page.get_by_role("radio", name="off")).to_be_checked()


async def test_it_stops_by_itself_after_five_minutes(open_site: OpenSite, open_page: OpenPage) -> None:
    watched = await open_page(await open_site(), "about:blank")
    page = watched.page
    await page.clock.install()
    await page.goto(watched.origin + "/compare")
    await put(page, "20")
    await page.clock.fast_forward("05:01")
    await expect(page.locator("#loaded")).to_have_text("Stopped after five minutes.")
    await expect(page.get_by_role("radio", name="off")).to_be_checked()
