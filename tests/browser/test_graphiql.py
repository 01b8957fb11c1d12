"""GraphiQL as a person uses it: in Chromium, over a real gateway, with the network closed."""

import json
import re
import time

import pytest
from playwright.async_api import Locator, Page, Request, expect
from redis.asyncio import Redis

from demo.servers.process import NotReadyError, until
from tests.browser.arranged import Watched
from tests.browser.conftest import OpenPage, OpenSite
from tests.request.arranged import View

RESULT = ".result-window .CodeMirror-code"
SECONDS = re.compile(r"^\d+\.\d s$")
TABS = ["OneUser", "ManyUsers", "UserByUsername"]


async def run(watched: Watched) -> Request:
    """Run the query of the open tab; its request, once it is answered."""
    async with watched.page.expect_request_finished(lambda request: request in watched.queries()) as sent:
        await watched.page.get_by_role("button", name="Execute query").click()
    return await sent.value


def tab_buttons(page: Page) -> Locator:
    return page.locator(".graphiql-tab-button")


async def _tabs_kept(page: Page) -> None:
    if await page.evaluate("localStorage.getItem('graphiql:tabState')") is None:
        raise NotReadyError("the tabs are not stored")


async def mode_sent(request: Request) -> str | None:
    return (await request.all_headers()).get("viewgate-mode")


async def test_a_query_is_run_and_its_answer_shown(open_site: OpenSite, open_page: OpenPage) -> None:
    watched = await open_page(await open_site(), "/graphql")
    await run(watched)
    await expect(watched.page.locator(RESULT)).to_contain_text('"username": "code_1"')
    await expect(watched.page.locator(RESULT)).to_contain_text('"followerCount": 5')


async def test_the_switch_sends_the_header_and_the_bar_says_who_answered(open_site: OpenSite, open_page: OpenPage, seeded: View) -> None:
    now = int(time.time() * 1000)
    await seeded.redis.hset(seeded.keys.progress, mapping={"users:0": now, "tweets:0": now})
    watched = await open_page(await open_site(), "/graphql")
    page = watched.page
    await expect(page.locator("#answer")).to_be_hidden()
    for mode in ("sql", "cache-aside", "view"):
        await page.get_by_role("radio", name=mode).check()
        assert await mode_sent(await run(watched)) == mode
        await expect(page.locator("#mode")).to_have_text(mode)
        await expect(page.locator("#age")).to_have_text(SECONDS)
        await expect(page.locator("#took")).to_contain_text(" ms")
        if mode == "view":
            await expect(page.locator("#generation")).to_have_text("g1")
        else:
            await expect(page.locator("#generation")).to_be_hidden()
    shown = await page.locator("#age").inner_text()
    await expect(page.locator("#age")).not_to_have_text(shown)


async def test_the_plan_is_in_the_answer_where_it_is_asked_for_and_the_browser_remembers(open_site: OpenSite, open_page: OpenPage) -> None:
    watched = await open_page(await open_site(), "/graphql")
    page = watched.page
    assert "viewgate-extensions" not in await (await run(watched)).all_headers()
    await expect(page.locator(RESULT)).not_to_contain_text('"plan"')
    await page.get_by_role("checkbox", name="plan").check()
    assert (await (await run(watched)).all_headers())["viewgate-extensions"] == "plan"
    await expect(page.locator(RESULT)).to_contain_text('"plan": {')
    await page.reload()
    await expect(page.get_by_role("checkbox", name="plan")).to_be_checked()


async def test_the_bar_says_why_another_mode_has_answered(open_site: OpenSite, open_page: OpenPage, redis: Redis) -> None:
    site = await open_site(fallback="sql")
    await redis.flushall()
    watched = await open_page(site, "/graphql")
    assert await mode_sent(await run(watched)) == "view"
    await expect(watched.page.locator("#mode")).to_have_text("sql (NOT_READY)")


async def test_a_reload_keeps_the_mode_and_the_tabs(open_site: OpenSite, open_page: OpenPage) -> None:
    watched = await open_page(await open_site(), "/graphql")
    page = watched.page
    await page.get_by_role("radio", name="cache-aside").check()
    await run(watched)
    await until(lambda: _tabs_kept(page), seconds=10)
    await page.reload()
    await expect(page.get_by_role("radio", name="cache-aside")).to_be_checked()
    await expect(tab_buttons(page)).to_have_text(TABS)
    assert await mode_sent(await run(watched)) == "cache-aside"


async def test_the_switch_wins_over_the_headers_editor_and_leaves_its_other_headers(open_site: OpenSite, open_page: OpenPage) -> None:
    watched = await open_page(await open_site(), "/graphql")
    page = watched.page
    await page.get_by_role("button", name="Headers").click()
    await page.locator('[aria-label="Headers"] textarea, .graphiql-editor-tool textarea').last.focus()
    await page.keyboard.insert_text(json.dumps({"Viewgate-Mode": "view", "x-mine": "kept"}))
    await page.get_by_role("radio", name="sql").check()
    sent = await (await run(watched)).all_headers()
    assert (sent["viewgate-mode"], sent["x-mine"]) == ("sql", "kept")
    await expect(page.locator("#mode")).to_have_text("sql")


async def test_where_no_mode_may_be_chosen_the_switch_is_off_and_no_header_is_sent(open_site: OpenSite, open_page: OpenPage) -> None:
    watched = await open_page(await open_site(allow_mode_header=False, mode="sql"), "/graphql")
    page = watched.page
    await expect(page.get_by_role("radio", disabled=True)).to_have_count(4)
    await expect(page.get_by_role("radio", name="sql")).to_be_checked()
    assert "VIEWGATE_ALLOW_MODE_HEADER" in (await page.locator("fieldset").get_attribute("title") or "")
    assert await mode_sent(await run(watched)) is None
    await expect(page.locator("#mode")).to_have_text("sql")


async def test_the_switch_is_worked_by_the_keyboard(open_site: OpenSite, open_page: OpenPage) -> None:
    watched = await open_page(await open_site(), "/graphql")
    page = watched.page
    await page.get_by_role("link", name="viewgate").focus()
    await page.keyboard.press("Tab")
    await page.keyboard.press("ArrowRight")
    await expect(page.get_by_role("radio", name="cache-aside")).to_be_focused()
    await page.locator(".graphiql-query-editor textarea").focus()
    async with page.expect_request(lambda request: request in watched.queries()) as sent:
        await page.keyboard.press("Control+Enter")
    assert await mode_sent(await sent.value) == "cache-aside"
    await expect(page.locator("#mode")).to_have_text("cache-aside")


@pytest.mark.parametrize("name", TABS)
async def test_every_tab_answers_without_errors(open_site: OpenSite, open_page: OpenPage, name: str) -> None:
    watched = await open_page(await open_site(), "/graphql")
    await expect(tab_buttons(watched.page)).to_have_text(TABS)
    await watched.page.get_by_role("tab", name=name).click()
    response = await (await run(watched)).response()
    assert response
    answer = await response.json()
    assert "errors" not in answer
    assert "code_1" in json.dumps(answer)
    await expect(watched.page.locator(RESULT)).to_contain_text("code_1")


async def test_the_docs_describe_a_field_and_an_argument(open_site: OpenSite, open_page: OpenPage) -> None:
    page = (await open_page(await open_site(), "/graphql")).page
    await page.get_by_role("button", name="Show Documentation Explorer").click()
    docs = page.locator(".graphiql-doc-explorer")
    await docs.get_by_role("link", name="Query").click()
    await docs.get_by_role("link", name="User", exact=True).first.click()
    await expect(docs).to_contain_text("Users that follow this user.")
    await docs.get_by_role("link", name="DateTime").click()
    await expect(docs).to_contain_text("A moment in UTC")


async def test_the_bar_follows_the_system_and_then_graphiqls_own_theme(open_site: OpenSite, open_page: OpenPage) -> None:
    watched = await open_page(await open_site(), "/graphql", color_scheme="light")
    page = watched.page
    bar, graphiql = page.locator(".bar"), page.locator(".graphiql-container")
    await expect(bar).to_have_css("background-color", "rgb(243, 245, 247)")
    await expect(graphiql).to_have_css("background-color", "rgb(255, 255, 255)")
    await page.emulate_media(color_scheme="dark")
    await expect(bar).to_have_css("background-color", "rgb(30, 35, 43)")
    await expect(graphiql).not_to_have_css("background-color", "rgb(255, 255, 255)")
    for theme, colour in (("Light", "rgb(243, 245, 247)"), ("Dark", "rgb(30, 35, 43)")):
        await page.get_by_role("button", name="Open settings dialog").click()
        await page.get_by_role("button", name=theme).click()
        await page.keyboard.press("Escape")
        await expect(bar).to_have_css("background-color", colour)
    await page.emulate_media(color_scheme="light")
    await expect(bar).to_have_css("background-color", "rgb(30, 35, 43)")
    # GraphiQL's own dialog lacks a description
    watched.forgive("Missing `Description` or `aria-describedby={undefined}` for {DialogContent}")


async def test_a_narrow_screen_stacks_what_a_wide_one_has_side_by_side(open_site: OpenSite, open_page: OpenPage) -> None:
    watched = await open_page(await open_site(), "/graphql", 390, 844)
    await run(watched)
    await expect(watched.page.locator("#answer")).to_be_visible()
    assert not await watched.scrolls_sideways()
    query, answer = [await watched.page.locator(part).bounding_box() for part in (".graphiql-query-editor", ".graphiql-response")]
    assert query
    assert answer
    assert min(query["width"], answer["width"]) > 320
    assert answer["y"] >= query["y"] + query["height"]
    assert answer["y"] + answer["height"] <= 844


async def test_no_picture_that_an_answer_names_is_asked_for(open_site: OpenSite, open_page: OpenPage) -> None:
    # so wide that the address stands on one line: GraphiQL looks at what is at the middle of it
    watched = await open_page(await open_site(), "about:blank", 2000, 800)
    page = watched.page
    await page.clock.install()
    await page.goto(watched.origin + "/graphql")
    await run(watched)
    await page.locator(".result-window .cm-string", has_text="400x400.jpg").first.hover()
    await page.clock.run_for(2_000)
    await expect(page.locator(".result-window img, .CodeMirror-info")).to_have_count(0)
    await page.locator(".graphiql-query-editor .cm-property").first.hover()
    await page.clock.run_for(2_000)
    await expect(page.locator(".CodeMirror-info")).to_be_visible()


async def test_the_way_to_the_front_page_and_the_docs(open_site: OpenSite, open_page: OpenPage) -> None:
    site = await open_site()
    page = (await open_page(site, "/graphql")).page
    await page.get_by_role("link", name="docs").click()
    await expect(page).to_have_url(site.url + "/docs/")
    await page.get_by_role("banner").get_by_role("link", name="viewgate").click()
    await expect(page).to_have_url(site.url + "/")
