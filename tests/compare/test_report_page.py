"""The report in a real Chromium: it asks for nothing, complains of nothing, is read on a phone, and computes costs as Python does."""

import http.server
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import msgspec
import pytest
from playwright.async_api import Browser, Locator, Page, expect

from bench.compare import hits, report
from bench.compare.costs import BreakEven, Prices, Use, break_even_kept, break_even_ratio, break_even_skew, cost
from bench.compare.models import models
from bench.compare.results import Results
from schema.loader import Mode
from tests.browser.arranged import Watched
from tests.compare.recorded import recorded

OTHERS: list[Mode] = ["cache-aside", "cache-invalidate", "sql"]
FIRST = (Prices(), Use(reads_per_second=1_000, reads_per_write=20))
DEAR_MEMORY = (Prices(gb_month=9_000.0), Use(reads_per_second=50, reads_per_write=20))
DEAR_DATABASE = (Prices(gateway_vcpu_hour=0.031, postgres_vcpu_hour=0.9, view_month=25), Use(reads_per_second=7_000, reads_per_write=3))
DEAR_VIEW = (Prices(view_month=8.0), Use(reads_per_second=1_000, reads_per_write=20))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def whole() -> Results:
    """A recorded run in which all of the costs were measured."""
    told = recorded()
    efforts = [msgspec.structs.replace(one, postgres_cpu=one.postgres_cpu or 0.5) for one in told.efforts]
    return msgspec.structs.replace(told, efforts=efforts)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("page")
    report.write(whole(), folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
async def open_report(chromium: Browser, address: str) -> AsyncIterator[Any]:
    """A page of the report in a profile of its own. At the end none may have asked for anything else, or complained."""
    async with AsyncExitStack() as opened:
        watched: list[Watched] = []

        async def open_one(width: int = 1280, height: int = 900, **given: Any) -> Watched:
            context = await opened.enter_async_context(await chromium.new_context(viewport={"width": width, "height": height}, **given))
            watched.append(await Watched.opened(context, address))
            await watched[-1].page.goto(f"{address}/index.html")
            return watched[-1]

        yield open_one
        for one in watched:
            assert {request.url.partition(":")[0] for request in one.asked} <= {"http", "data"}
            assert [request.url for request in one.asked if request.url.startswith("http")] == [f"{address}/index.html"]
            assert (one.foreign, one.complaints) == ([], [])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
async def test_it_is_read_on_any_screen_in_light_and_dark(open_report: Any, width: int, scheme: str) -> None:
    watched: Watched = await open_report(width, color_scheme=scheme)
    page = watched.page
    paper = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 28)"}[scheme]
    await expect(page.locator("body")).to_have_css("background-color", paper)
    for details in await page.locator("details").all():
        await details.evaluate("(details) => details.open = true")
    assert not await watched.scrolls_sideways()
    sources = await page.locator("img").evaluate_all("(images) => images.map((image) => [image.naturalWidth, image.currentSrc.length])")
    assert len(sources) == 18
    assert all(natural > 600 and length > 1_000 for natural, length in sources)
    await expect(page.locator("#decisions li")).to_have_count(3)


async def test_the_dark_page_has_the_dark_pictures(open_report: Any) -> None:
    shown = set()
    for scheme in ("light", "dark"):
        page = (await open_report(color_scheme=scheme)).page
        shown.add(await page.locator("#picture-memory img").evaluate("(image) => image.currentSrc"))
    assert len(shown) == 2


async def test_an_anchor_of_the_verdict_opens_the_table_that_it_rests_on(open_report: Any) -> None:
    page = (await open_report()).page
    await expect(page.locator("#table-latency")).to_be_hidden()
    await page.locator("#verdict").get_by_role("link", name="latency").first.click()
    await expect(page.locator("#table-latency")).to_be_visible()
    for link in await page.locator("nav a").all():
        target = await link.get_attribute("href")
        await expect(page.locator(target)).to_have_count(1)


async def test_the_page_has_no_script_of_anybody_else(open_report: Any) -> None:
    watched: Watched = await open_report()
    await watched.page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), { textContent: 'document.title = 1' }))"
    )
    await expect(watched.page).not_to_have_title("1")
    assert watched.forgive("script-src") >= 1


async def test_costs_are_python_s_before_anything_is_changed(open_report: Any) -> None:
    await same_as_python((await open_report()).page, *FIRST)


@pytest.mark.parametrize(("prices", "use"), [FIRST, DEAR_MEMORY, DEAR_DATABASE, DEAR_VIEW])
async def test_costs_of_other_prices_are_python_s(open_report: Any, prices: Prices, use: Use) -> None:
    page = (await open_report()).page
    await enter(page, prices, use)
    await same_as_python(page, prices, use)


async def test_intervals_go_with_the_first_prices_and_come_back_with_them(open_report: Any) -> None:
    page = (await open_report()).page
    interval, total = row(page, "break-evens", "view and cache-aside").nth(1), row(page, "costs", "view").first
    before = await interval.inner_text()
    assert " to " in before
    await enter(page, *DEAR_DATABASE)
    await expect(interval).to_have_text("of the first prices only")
    await expect(total.locator("small")).to_have_count(0)
    await page.get_by_role("button", name="back to the first prices").click()
    await expect(interval).to_have_text(before)
    await expect(total.locator("small")).to_have_count(1)
    await same_as_python(page, *FIRST)


async def test_what_is_no_price_changes_nothing(open_report: Any) -> None:
    page = (await open_report()).page
    for field, text in (("gb_month", ""), ("reads_per_write", "0"), ("postgres_vcpu_hour", "-1")):
        await page.locator(f"input[name={field}]").fill(text)
        await same_as_python(page, *FIRST)
        await page.get_by_role("button", name="back to the first prices").click()


def row(page: Page, table: str, name: str) -> Locator:
    return page.locator(f'#table-{table} tr[data-row="{name}"] td')


async def enter(page: Page, prices: Prices, use: Use) -> None:
    for name, value in (msgspec.structs.asdict(prices) | msgspec.structs.asdict(use)).items():
        await page.locator(f"input[name={name}]").fill(f"{value}")


async def values(cells: Locator) -> list[float | str]:
    """The whole number of each cell, or its words."""
    found: list[list[str | None]] = await cells.evaluate_all("(cells) => cells.map((cell) => [cell.dataset.value ?? null, cell.innerText])")
    return [float(value) if value is not None else str(text) for value, text in found]


async def same_as_python(page: Page, prices: Prices, use: Use) -> None:
    told = whole()
    made = models(told)
    for mode, model in made.items():
        found = cost(model, prices, use)
        assert found
        parts = [found.total, found.reads, found.writes, found.memory, found.beside]
        assert await values(row(page, "costs", mode)) == pytest.approx([100 * part for part in parts])
    for other in OTHERS:
        ratio, _, skew, kept = await values(row(page, "break-evens", f"view and {other}"))
        view, points = made["view"], hits.plain(hits.by_skew(told, other, cold=False))
        assert same(ratio, break_even_ratio(view, made[other], prices, use))
        if other != "sql":
            assert same(skew, break_even_skew(view, made[other], made["sql"], points, prices, use))
            assert same(kept, break_even_kept(view, made[other], prices, use))


def same(shown: float | str, even: BreakEven | None) -> bool:
    assert even
    return shown == (f"{even.below} is always cheaper" if even.at is None else pytest.approx(even.at))


def test_the_prices_try_what_there_is_to_try() -> None:
    """Else the comparisons above would be of nothing but "always cheaper"."""
    made = models(whole())
    view, aside, points = made["view"], made["cache-aside"], hits.plain(hits.by_skew(whole(), "cache-aside", cold=False))
    skews = [break_even_skew(view, aside, made["sql"], points, *given) for given in (FIRST, DEAR_MEMORY, DEAR_DATABASE, DEAR_VIEW)]
    kept = [break_even_kept(view, aside, *given) for given in (FIRST, DEAR_MEMORY, DEAR_DATABASE, DEAR_VIEW)]
    ratios = [break_even_ratio(view, aside, *given) for given in (FIRST, DEAR_MEMORY, DEAR_DATABASE, DEAR_VIEW)]
    for evens in (skews, kept, ratios):
        assert {even is not None and even.at is None for even in evens} == {True, False}
