"""What a browser gets, seen without one: who is given a page, its headers, the examples, the docs and the vendored files."""

import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import pytest
from graphql import get_introspection_query, parse, validate
from starlette.datastructures import Headers

from app.accept import accepts_gzip, prefers_html
from app.pages.examples import Example, every_field, examples
from app.pages.files import HERE, POLICY
from demo import seed
from schema import graphql
from schema.definition import Definition, read_definition
from tests.message.shop import CustomerView
from tests.request.arranged import DEFINITION, MemoryLoader, user
from tests.request.conftest import Open

CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
BROWSER = {"accept": CHROME}
SHOP = read_definition(CustomerView)
SEEDED = {str(number): user(number, seed.user(number).username) for number in range(1, 6)}


class Page(HTMLParser):
    """A page's links and pictures, its scripts, and what is written in its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.scripts: list[dict[str, str | None]] = []
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes |= {name for name, _ in attrs}
        self.addresses += [value for name, value in attrs if name in ("href", "src") and value]
        self.scripts += [dict(attrs)] if tag == "script" else []


@pytest.mark.parametrize("accept", [CHROME, "text/html", "application/json;q=0.5, text/html", "TEXT/HTML ; q=1"])
def test_a_browser_prefers_html(accept: str) -> None:
    assert prefers_html(Headers({"accept": accept}))


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "text/*",
        "application/json",
        "application/json, text/html",
        "text/html;q=0.5, application/graphql-response+json",
        "text/html;q=0",
        "text/html;q=much",
    ],
)
def test_a_program_does_not(accept: str) -> None:
    assert not prefers_html(Headers({"accept": accept}))


@pytest.mark.parametrize(
    ("accept", "accepted"), [("gzip, br", True), ("br;q=1, gzip;q=0.1", True), ("gzip;q=0", False), ("br", False), ("", False)]
)
def test_gzip_is_sent_where_it_is_named(accept: str, accepted: bool) -> None:
    assert accepts_gzip(Headers({"accept-encoding": accept})) is accepted


async def test_a_browser_without_a_query_gets_graphiql_and_everyone_else_an_answer(open_over: Open) -> None:
    client = await open_over(MemoryLoader())
    page = await client.get("/graphql", headers=BROWSER)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["vary"] == "accept, accept-encoding"
    assert "<title>GraphiQL" in page.text
    query = {"query": '{ user(id: "1") { username } }'}
    asked = [
        await client.get("/graphql", params=query, headers=BROWSER | {"sec-fetch-site": "none"}),
        await client.post("/graphql", json=query, headers=BROWSER),
    ]
    assert [answer.json() for answer in asked] == [{"data": {"user": {"username": "ada"}}}] * 2
    program = await client.get("/graphql", headers={"accept": "*/*", "apollo-require-preflight": "1"})
    assert (program.status_code, program.json()["errors"][0]["extensions"]) == (400, {"code": "BAD_REQUEST"})


async def test_a_page_is_no_graphql_request(open_over: Open) -> None:
    client = await open_over(MemoryLoader())
    await client.get("/graphql", headers=BROWSER)
    assert "viewgate_requests_total{" not in (await client.get("/metrics")).text


@pytest.mark.parametrize("path", ["/", "/compare", "/graphql", "/docs/", "/docs/settings"])
async def test_every_page_and_what_it_loads_has_the_headers_and_no_inline_script(open_over: Open, path: str) -> None:
    client = await open_over(MemoryLoader())
    answer = await client.get(path, headers=BROWSER)
    page = Page(answer.text)
    assets = [await client.get(address) for address in page.addresses if address.startswith("/assets/")]
    assert len(assets) >= 3
    for found in [answer, *assets]:
        assert found.status_code == 200
        assert found.headers["content-security-policy"] == POLICY
        assert (found.headers["x-content-type-options"], found.headers["referrer-policy"]) == ("nosniff", "no-referrer")
        assert found.headers["cache-control"] == ("no-cache" if found is answer else "public, max-age=31536000, immutable")
    assert [script for script in page.scripts if not script.get("src") and script.get("type") != "application/json"] == []
    assert [name for name in page.attributes if name.startswith("on")] == []


def test_the_policy_allows_no_script_but_the_servers_own() -> None:
    rules = dict(rule.split(" ", 1) for rule in POLICY.split("; "))
    assert (rules["default-src"], rules["script-src"], rules["connect-src"]) == ("'none'", "'self'", "'self'")
    assert {name for name, value in rules.items() if value == "'none'"} == {"default-src", "frame-ancestors", "base-uri", "form-action"}


async def test_an_asset_is_compressed_for_whoever_accepts_it_and_the_same_for_the_others(open_over: Open) -> None:
    client = await open_over(MemoryLoader())
    page = Page((await client.get("/graphql", headers=BROWSER)).text)
    address = next(address for address in page.addresses if re.fullmatch(r"/assets/graphiql\.min\.[0-9a-f]{8}\.js", address))
    zipped, plain = [await client.get(address, headers={"accept-encoding": accepted}) for accepted in ("gzip", "identity")]
    assert (zipped.headers["content-encoding"], "content-encoding" in plain.headers) == ("gzip", False)
    assert zipped.content == plain.content == gzip.decompress((HERE / "vendored" / "graphiql.min.js.gz").read_bytes())
    assert int(zipped.headers["content-length"]) * 3 < len(plain.content)
    assert {answer.headers["vary"] for answer in (zipped, plain)} == {"accept-encoding"}
    assert plain.headers["content-type"] == "text/javascript; charset=utf-8"


@pytest.mark.parametrize("path", ["/", "/docs/", "/docs/settings", "/compare", "/assets/compare.js", "/nothing"])
async def test_without_pages_there_is_nothing_but_a_sentence(open_over: Open, path: str) -> None:
    answer = await (await open_over(MemoryLoader(), pages=False)).get(path, headers=BROWSER)
    assert (answer.status_code, answer.json()["errors"][0]["extensions"]) == (404, {"code": "NOT_FOUND"})
    assert "/graphql" in answer.json()["errors"][0]["message"]


async def test_without_pages_a_browser_is_answered_as_a_program_is(open_over: Open) -> None:
    client = await open_over(MemoryLoader(), pages=False)
    browser, program = await client.get("/graphql", headers=BROWSER), await client.get("/graphql")
    assert (browser.status_code, browser.content) == (program.status_code, program.content) == (400, program.content)


@pytest.mark.parametrize("path", ["/assets/compare.js", "/assets/compare.00000000.js", "/assets/..%2Froutes.py", "/docs/nothing"])
async def test_only_known_names_are_served(open_over: Open, path: str) -> None:
    assert (await (await open_over(MemoryLoader())).get(path)).status_code == 404


@pytest.mark.parametrize("path", ["/docs/..%2FREADME.md", "/docs/..%2f..%2fetc%2fpasswd", "/docs/%2Fetc%2Fpasswd", "/docs/settings.md"])
async def test_no_path_leads_out_of_the_docs(open_over: Open, path: str) -> None:
    assert (await (await open_over(MemoryLoader())).get(path)).status_code == 404


@pytest.mark.parametrize(("path", "most_bytes"), [("/", 10_000), ("/compare", 60_000)])
async def test_our_own_pages_are_small(open_over: Open, path: str, most_bytes: int) -> None:
    client = await open_over(MemoryLoader(), allow_mode_header=True)
    answer = await client.get(path)
    own = [await client.get(address) for address in Page(answer.text).addresses if address.startswith("/assets/")]
    assert most_bytes / 4 < sum(len(found.content) for found in [answer, *own]) < most_bytes


async def test_only_compare_may_ask_the_service_that_writes_and_no_other(open_over: Open) -> None:
    client = await open_over(MemoryLoader(), writes_url="http://127.0.0.1:8001")
    policies = {
        path: (await client.get(path, headers=BROWSER)).headers["content-security-policy"] for path in ("/", "/compare", "/graphql")
    }
    assert policies["/compare"] == POLICY.replace("connect-src 'self'", "connect-src 'self' http://127.0.0.1:8001")
    assert policies["/"] == policies["/graphql"] == POLICY


@pytest.mark.parametrize("definition", [DEFINITION, SHOP], ids=lambda definition: definition.name)
def test_the_examples_of_any_view_fit_its_schema(definition: Definition) -> None:
    schema = graphql.build(definition)._schema
    made = examples(definition)
    assert len(made) == 2 + len(definition.lookups)
    for query in [*(example.query for example in made), every_field(definition)]:
        assert [error.message for error in validate(schema, parse(query))] == []


def test_an_unknown_views_lookup_says_that_a_value_is_to_be_written() -> None:
    found = examples(SHOP)[-1]
    assert found.variables == {"value": ""}
    assert "Write one into the variables" in found.query


@pytest.mark.parametrize("example", examples(DEFINITION), ids=lambda example: example.query.split("query ")[1].split("(")[0])
async def test_every_example_finds_something_in_the_seed(open_over: Open, example: Example) -> None:
    client = await open_over(MemoryLoader(rows=SEEDED))
    answer = (await client.post("/graphql", json={"query": example.query, "variables": example.variables})).json()
    assert "errors" not in answer
    assert all(answer["data"].values())
    assert None not in [row for rows in answer["data"].values() for row in (rows if isinstance(rows, list) else [rows])]


async def test_what_a_script_is_told_can_not_end_its_element(open_over: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt = [Example("</script><script>alert(1)</script>", {"<!--": "&"})]
    monkeypatch.setattr("app.pages.routes.examples", lambda _: spoilt)
    text = (await (await open_over(MemoryLoader())).get("/graphql", headers=BROWSER)).text
    told = text.split('<script id="told" type="application/json">')[1].split("</script>")[0]
    assert json.loads(told)["examples"] == [{"query": spoilt[0].query, "variables": spoilt[0].variables}]
    assert "<" not in told


async def test_introspection_passes_the_limit_and_everything_has_a_description(open_over: Open) -> None:
    query = get_introspection_query(schema_description=True, input_value_deprecation=True, directive_is_repeatable=True)
    answer = (await (await open_over(MemoryLoader())).post("/graphql", json={"query": query})).json()
    assert "errors" not in answer
    types = [found for found in answer["data"]["__schema"]["types"] if not found["name"].startswith("__")]
    assert {"Query", "User", "DateTime", "Int", "String", "ID"} <= {found["name"] for found in types}
    fields = [field for found in types for field in found["fields"] or ()]
    arguments = [argument for field in fields for argument in field["args"]]
    assert (len(fields), len(arguments)) == (len(DEFINITION.fields) + 4, 3)
    assert [thing["name"] for thing in [*types, *fields, *arguments] if not thing["description"]] == []


async def test_every_link_and_picture_of_the_docs_leads_somewhere(open_over: Open) -> None:
    client = await open_over(MemoryLoader())
    seen: dict[str, int] = {}
    coming = ["/docs/"]
    while coming:
        path = coming.pop()
        if path in seen:
            continue
        answer = await client.get(path, headers=BROWSER)
        seen[path] = answer.status_code
        if path.startswith("/docs/") and "text/html" in answer.headers["content-type"]:
            found = [urljoin(path, address).partition("#")[0] for address in Page(answer.text).addresses]
            coming += [address for address in found if not re.match(r"https?:", address)]
    pages = (HERE.parents[1] / "docs").glob("*.md")
    assert {"/docs/readme", *(f"/docs/{path.stem}" for path in pages)} <= seen.keys()
    assert {path: status for path, status in seen.items() if status != 200} == {}


DOCUMENT = """\
# The page

<b>raw</b>

| a | b |
| --- | --- |
| 1 | 2 |

## A part: `x`

[here](docs/page.md#a-part-x) [gone](LICENSE) [out](https://example.com/) ![lost](x.png)
"""
PARTS = (
    "<title>The page",
    "&lt;b&gt;raw",
    "<td>2</td>",
    '<h2 id="a-part-x">',
    '<a href="/docs/page#a-part-x">here</a>',
    "<span>gone</span>",
    '<a href="https://example.com/">out</a> lost',
)


async def test_a_document_is_html_whose_links_are_served(open_over: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(DOCUMENT)
    monkeypatch.setattr("app.pages.documents._found", lambda: [tmp_path / "page.md"])
    text = (await (await open_over(MemoryLoader())).get("/docs/page")).text
    assert [part for part in PARTS if part not in text] == []
    assert "<b>" not in text


async def test_where_no_docs_were_installed_no_page_links_to_them(open_over: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.pages.documents._found", list)
    client = await open_over(MemoryLoader())
    assert (await client.get("/docs/")).status_code == 404
    for path in ("/", "/graphql"):
        assert "/docs/" not in Page((await client.get(path, headers=BROWSER)).text).addresses


def test_the_vendored_files_are_those_that_were_checked_in() -> None:
    folder = HERE / "vendored"
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    there = {path.name: path.read_bytes() for path in folder.glob("*.LICENSE")}
    there |= {path.stem: gzip.decompress(path.read_bytes()) for path in folder.glob("*.gz")}
    assert {name: hashlib.sha256(content).hexdigest() for name, content in there.items()} == listed
    assert len(there) == 7
    # no time and no name of a file, so that packing them again changes nothing
    assert {path.read_bytes()[3:8] for path in folder.glob("*.gz")} == {b"\0" * 5}


def test_every_vendored_package_comes_with_its_licence() -> None:
    script = (HERE.parents[1] / "tools" / "vendor-graphiql").read_text()
    packages = re.findall(r"^unpack (\S+) (\S+) [0-9a-f]{128}$", script, re.MULTILINE)
    assert packages == [("graphiql", "4.1.2"), ("react", "18.3.1"), ("react-dom", "18.3.1")]
    for name, _ in packages:
        assert "MIT License" in (HERE / "vendored" / f"{name}.LICENSE").read_text()
