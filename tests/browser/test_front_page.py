"""The front page and the docs in Chromium: what they lead to, on any width, and that none is found where pages are off."""

import pytest
from playwright.async_api import expect

from tests.browser.conftest import OpenPage, OpenSite


async def test_the_front_page_leads_to_the_others(open_site: OpenSite, open_page: OpenPage) -> None:
    site = await open_site()
    page = (await open_page(site, "/")).page
    await page.get_by_role("main").get_by_role("link", name="Compare").click()
    await expect(page).to_have_url(site.url + "/compare")
    await page.get_by_role("link", name="viewgate").click()
    await page.get_by_role("main").get_by_role("link", name="GraphiQL").click()
    await expect(page).to_have_url(site.url + "/graphql")


@pytest.mark.parametrize("path", ["/", "/docs/", "/docs/settings", "/docs/readme"])
async def test_a_narrow_screen_scrolls_one_way_only(open_site: OpenSite, open_page: OpenPage, path: str) -> None:
    watched = await open_page(await open_site(), path, 390, 844)
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


@pytest.mark.parametrize("path", ["/", "/compare", "/graphql", "/docs/"])
async def test_without_pages_a_browser_finds_none(open_site: OpenSite, open_page: OpenPage, path: str) -> None:
    watched = await open_page(await open_site(pages=False), "about:blank")
    response = await watched.page.goto(watched.origin + path)
    assert response
    assert (response.status, response.headers["content-type"]) == (400 if path == "/graphql" else 404, "application/json")
    watched.forgive("Failed to load resource")
