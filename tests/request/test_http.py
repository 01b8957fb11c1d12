"""GraphQL over HTTP: what is accepted, what is refused and how, what caches are told; over loaders in memory."""

import asyncio
import gzip
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import brotli
import httpx
import pytest
import zstandard

from app.accept import encoding, media_type
from app.settings import SettingsError
from schema.loader import Read, Rows, SourceUnavailable
from tests.request.arranged import ADA, ADAS, OWN, MemoryLoader
from tests.request.conftest import Open

RESPONSE = "application/graphql-response+json"
MANY = {"query": "query ($ids: [ID!]!) { users(ids: $ids) { id username name joinedAt } }", "variables": {"ids": ["1", "2", "3"] * 20}}

# over a socket, HTTPX reads no answer before it has sent all
IN_PROCESS = pytest.mark.parametrize("answered_by", ["plan", "executor"], indirect=True)


def code(answer: httpx.Response) -> str:
    return str(answer.json()["errors"][0]["extensions"]["code"])


@dataclass(slots=True)
class SlowLoader:
    """Answers when it is told to."""

    told: asyncio.Event = field(default_factory=asyncio.Event)
    inner: MemoryLoader = field(default_factory=MemoryLoader)

    async def load(self, reads: Sequence[Read]) -> Rows:
        await self.told.wait()
        return await self.inner.load(reads)

    async def ready(self) -> None:
        await self.inner.ready()


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("application/json", "application/json"),
        (RESPONSE, RESPONSE),
        ("application/json, application/graphql-response+json", RESPONSE),
        ("application/graphql-response+json;q=0.5, application/json", "application/json"),
        ("application/graphql-response+json, application/json;q=0.9", RESPONSE),
        ("text/html, */*;q=0.1", "application/json"),
        ("application/graphql-response+json;q=0, */*", "application/json"),
        ("text/html", None),
        ("application/json;q=0", None),
        ("application/json;q=high", None),
        ("a" * 5000, None),
    ],
)
def test_the_type_of_an_answer(accept: str, media: str | None) -> None:
    assert media_type(accept) == media


@pytest.mark.parametrize(
    ("accepted", "name"),
    [
        ("gzip, br, zstd", "zstd"),
        ("gzip, deflate, br", "br"),
        ("gzip;q=1, br;q=0.5", "gzip"),
        ("identity", None),
        ("br;q=0", None),
        ("", None),
    ],
)
def test_the_coding_of_an_answer(accepted: str, name: str | None) -> None:
    assert encoding(accepted, ("zstd", "br", "gzip")) == name


@pytest.mark.parametrize(
    ("query", "plain", "response", "draft"),
    [
        (ADA, 200, 200, 200),
        ("{ user(", 200, 400, 400),
        ("{ nothing }", 200, 400, 422),
        ("query ($i: ID!) { user(id: $i) { id } }", 200, 400, 422),
        ("query A { __typename } query B { __typename }", 200, 400, 422),
        ('{ user(id: "007") { id } }', 200, 200, 294),
    ],
)
async def test_the_status_by_the_type(open_over: Open, query: str, plain: int, response: int, draft: int) -> None:
    usual, drafted = await open_over(MemoryLoader()), await open_over(MemoryLoader(), draft_status_codes=True)
    answers = [
        await client.post("/graphql", json={"query": query}, headers={"accept": accept})
        for client, accept in ((usual, "application/json"), (usual, RESPONSE), (drafted, RESPONSE), (drafted, "application/json"))
    ]
    assert [answer.status_code for answer in answers] == [plain, response, draft, plain]
    types = ("application/json", f"{RESPONSE}; charset=utf-8")
    assert [answer.headers["content-type"] for answer in answers] == [*types, *reversed(types)]
    assert len({answer.content for answer in answers}) == 1
    assert ("data" in answers[0].json()) == (response == 200)


async def test_only_graphqls_types_are_answered(open_over: Open) -> None:
    client = await open_over(MemoryLoader())
    refused = await client.post("/graphql", json={"query": ADA}, headers={"accept": "text/csv"})
    assert (refused.status_code, code(refused)) == (406, "BAD_REQUEST")


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"])
async def test_only_json_in_utf_8_is_a_body(open_over: Open, content_type: str | None) -> None:
    client = await open_over(MemoryLoader())
    body = json.dumps({"query": ADA}).encode()
    refused = await client.post("/graphql", content=body, headers={"content-type": content_type} if content_type else {})
    assert (refused.status_code, code(refused)) == (415, "BAD_REQUEST")
    accepted = await client.post("/graphql", content=body, headers={"content-type": 'application/JSON; charset="UTF-8"'})
    assert accepted.json() == ADAS


async def test_other_methods_are_told_which_there_are(open_over: Open) -> None:
    client = await open_over(MemoryLoader())
    refused = [await client.request(method, "/graphql", json={"query": ADA}) for method in ("PUT", "DELETE", "PATCH")]
    asked = await client.options("/graphql")
    assert [(answer.status_code, answer.headers["allow"]) for answer in [*refused, asked]] == [
        *[(405, "GET, HEAD, OPTIONS, POST")] * 3,
        (204, "GET, HEAD, OPTIONS, POST"),
    ]


async def test_head_is_get_without_the_body(open_over: Open) -> None:
    client = await open_over(MemoryLoader())
    got, head = [await client.request(method, "/graphql", params={"query": ADA}, headers=OWN) for method in ("GET", "HEAD")]
    assert (head.status_code, head.content, got.json()) == (200, b"", ADAS)
    assert dict(head.headers) == dict(got.headers)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),
        ({"content-type": "text/plain"}, 400),
        ({"apollo-require-preflight": ""}, 400),
        ({"sec-fetch-site": "cross-site"}, 400),
        ({"sec-fetch-site": "same-site"}, 400),
        ({"accept": RESPONSE}, 400),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"x-apollo-operation-name": "Ada"}, 200),
        ({"graphql-require-preflight": "1"}, 200),
        ({"viewgate-extensions": "false"}, 200),
        ({"content-type": "application/json"}, 200),
        (OWN, 200),
    ],
)
async def test_a_get_that_another_sites_page_could_have_sent_is_refused(open_over: Open, headers: dict[str, str], status: int) -> None:
    loader = MemoryLoader()
    client = await open_over(loader)
    answer = await client.get("/graphql", params={"query": ADA}, headers=headers)
    assert answer.status_code == status
    assert (answer.json() == ADAS, len(loader.loads)) == ((True, 1) if status == 200 else (False, 0))
    assert status == 200 or code(answer) == "CSRF"
    assert (await (await open_over(MemoryLoader(), csrf=False)).get("/graphql", params={"query": ADA}, headers=headers)).json() == ADAS


@IN_PROCESS
async def test_what_is_too_large_is_refused_before_it_is_read(open_over: Open) -> None:
    client = await open_over(MemoryLoader(), limit_body_bytes=100)
    read = 0

    async def endless() -> Any:
        nonlocal read
        while True:
            read += 1
            yield b" " * 30

    told = await client.post("/graphql", content=b" " * 101, headers={"content-type": "application/json"})
    untold = await client.post("/graphql", content=endless(), headers={"content-type": "application/json"})
    url = await client.get("/graphql", params={"query": "{ __typename }" + " " * 100}, headers=OWN)
    assert [(answer.status_code, code(answer)) for answer in (told, untold, url)] == [(413, "TOO_LARGE")] * 2 + [(414, "TOO_LARGE")]
    assert read <= 5
    assert (await client.post("/graphql", json={"query": "{ __typename }"})).json() == {"data": {"__typename": "Query"}}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"query": "{ __typename }", "variables": {"a": ' + b"[" * 5000 + b"]" * 5000 + b"}}", "recursion"),
        (b"[" * 5000 + b"]" * 5000, "array"),
        (b'{"query": "\xff"}', "utf-8"),
        (b'{"query": "{ __typename }"', "truncated"),
        (b'{"query": "{ __typename }"} {}', "trailing"),
        (b'{"query": NaN}', "malformed"),
        (b"", "truncated"),
    ],
)
async def test_json_that_is_none_is_refused(open_over: Open, body: bytes, said: str) -> None:
    client = await open_over(MemoryLoader())
    refused = await client.post("/graphql", content=body, headers={"content-type": "application/json"})
    assert refused.status_code == 400
    assert said in refused.json()["errors"][0]["message"]


async def test_of_a_key_that_comes_twice_the_last_counts_for_everybody(open_over: Open) -> None:
    client = await open_over(MemoryLoader(), only_trusted_documents=True)
    body = b'{"query": "{ __typename }", "documentId": "x", "query": "{ __schema { types { name } } }", "query": null}'
    refused = await client.post("/graphql", content=body, headers={"content-type": "application/json"})
    assert code(refused) == "UNTRUSTED_DOCUMENT"
    last = b'{"query": "{ a }", "query": "{ __typename }"}'
    answer = await (await open_over(MemoryLoader())).post("/graphql", content=last, headers={"content-type": "application/json"})
    assert answer.json() == {"data": {"__typename": "Query"}}


async def test_parameters_of_a_get_that_cannot_be_read(open_over: Open) -> None:
    client = await open_over(MemoryLoader())
    for query in (
        "query=%FF",
        "query={__typename}&variables=[1]",
        "query={__typename}&extensions=no",
        "variables={}",
        "&".join("abcdefghijklmnopqrstuvw"),
    ):
        refused = await client.get(f"/graphql?{query}", headers=OWN)
        assert (refused.status_code, code(refused)) == (400, "BAD_REQUEST"), query
    empty = await client.get("/graphql", params={"query": ADA, "variables": "", "operationName": "", "extensions": "null"}, headers=OWN)
    assert empty.json() == ADAS


@IN_PROCESS
async def test_a_request_has_its_time(open_over: Open) -> None:
    slow = SlowLoader()
    client = await open_over(slow, request_timeout_seconds=0.2)

    async def never() -> Any:
        yield b'{"query":'
        await asyncio.Event().wait()

    late = await client.post("/graphql", json={"query": ADA})
    got = await client.get("/graphql", params={"query": ADA}, headers=OWN)
    assert (got.status_code, code(got)) == (503, "TIMEOUT")
    unsent = await client.post("/graphql", content=never(), headers={"content-type": "application/json"})
    assert [(answer.status_code, code(answer)) for answer in (late, unsent)] == [(503, "TIMEOUT"), (408, "TIMEOUT")]
    slow.told.set()
    assert (await client.post("/graphql", json={"query": ADA})).json() == ADAS
    assert 'viewgate_requests_total{mode="view",outcome="TIMEOUT"} 3.0' in (await client.get("/metrics")).text


async def test_pages_of_the_sites_that_are_named_may_ask(open_over: Open) -> None:
    client = await open_over(MemoryLoader(), cors_origins="https://a.example, https://b.example")
    asking = {
        "origin": "https://b.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,viewgate-after",
    }
    asked = await client.options("/graphql", headers=asking)
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, "https://b.example")
    answer = await client.post("/graphql", json={"query": ADA}, headers={"origin": "https://b.example"})
    assert answer.headers["access-control-allow-origin"] == "https://b.example"
    assert "viewgate-as-of" in answer.headers["access-control-expose-headers"]
    other = await client.options("/graphql", headers=asking | {"origin": "https://c.example"})
    assert (other.status_code, "access-control-allow-origin" in other.headers) == (400, False)
    closed = await (await open_over(MemoryLoader())).options("/graphql", headers=asking)
    assert "access-control-allow-origin" not in closed.headers


async def test_an_answer_of_more_than_a_packet_is_compressed(open_over: Open) -> None:
    client = await open_over(MemoryLoader())
    plain = await client.post("/graphql", json=MANY, headers={"accept-encoding": "identity"})
    assert ("content-encoding" in plain.headers, len(plain.content) > 5000) == (False, True)
    unpack = {"gzip": gzip.decompress, "br": brotli.decompress, "zstd": zstandard.ZstdDecompressor().decompress}
    for name, unpacked in unpack.items():
        async with client.stream("POST", "/graphql", json=MANY, headers={"accept-encoding": name}) as answer:
            packed = b"".join([part async for part in answer.aiter_raw()])
        assert (answer.headers["content-encoding"], int(answer.headers["content-length"])) == (name, len(packed))
        assert unpacked(packed) == plain.content
        assert len(packed) < len(plain.content) / 3
    small = await client.post("/graphql", json={"query": ADA}, headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in small.headers


async def test_a_get_is_not_sent_again_to_who_has_it(open_over: Open) -> None:
    loader = MemoryLoader()
    client = await open_over(loader, cache_control="public, max-age=5")
    first = await client.get("/graphql", params={"query": ADA}, headers=OWN)
    tag = first.headers["etag"]
    assert (first.headers["cache-control"], "accept-encoding" in first.headers["vary"]) == ("public, max-age=5", True)
    for known in (tag, f'"other", {tag}', tag.removeprefix("W/"), "*"):
        again = await client.get("/graphql", params={"query": ADA}, headers=OWN | {"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert "content-length" not in again.headers
    loader.rows = {"1": dict(loader.rows["1"]) | {"username": "lovelace"}}
    changed = await client.get("/graphql", params={"query": ADA}, headers=OWN | {"if-none-match": tag})
    assert (changed.status_code, changed.json()["data"]["user"]) == (200, {"username": "lovelace"})
    loader.error = SourceUnavailable("away")
    failed = await client.get("/graphql", params={"query": ADA}, headers=OWN | {"if-none-match": "*"})
    assert (failed.status_code, failed.headers["cache-control"], "etag" in failed.headers) == (200, "no-store", False)
    assert "etag" not in (await client.post("/graphql", json={"query": ADA})).headers


def persisted(text: str, **more: object) -> dict[str, object]:
    return {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": hashlib.sha256(text.encode()).hexdigest()}}, **more}


async def test_a_document_is_sent_once_and_then_named(open_over: Open) -> None:
    client = await open_over(MemoryLoader(), persisted_queries=1)
    unknown = await client.post("/graphql", json=persisted(ADA))
    assert (unknown.status_code, code(unknown), unknown.json()["errors"][0]["message"]) == (
        200,
        "PERSISTED_QUERY_NOT_FOUND",
        "PersistedQueryNotFound",
    )
    assert (await client.post("/graphql", json=persisted(ADA, query=ADA))).json() == ADAS
    assert (await client.post("/graphql", json=persisted(ADA))).json() == ADAS
    got = await client.get("/graphql", params={"extensions": json.dumps(persisted(ADA)["extensions"])}, headers=OWN)
    assert got.json() == ADAS
    # what cannot be executed takes nobody's place
    await client.post("/graphql", json=persisted("{ nothing }", query="{ nothing }"))
    assert (await client.post("/graphql", json=persisted(ADA))).json() == ADAS
    await client.post("/graphql", json=persisted("{ __typename }", query="{ __typename }"))
    assert code(await client.post("/graphql", json=persisted(ADA))) == "PERSISTED_QUERY_NOT_FOUND"


async def test_a_document_that_is_not_its_hash_is_refused(open_over: Open) -> None:
    client = await open_over(MemoryLoader())
    forged = await client.post("/graphql", json=persisted(ADA, query="{ __typename }"))
    assert (forged.status_code, code(forged)) == (400, "BAD_REQUEST")
    for wrong in ({"persistedQuery": 5}, {"persistedQuery": {"sha256Hash": 5}}):
        assert (await client.post("/graphql", json={"query": ADA, "extensions": wrong})).status_code == 400
    off = await open_over(MemoryLoader(), persisted_queries=0)
    assert code(await off.post("/graphql", json=persisted(ADA))) == "PERSISTED_QUERY_NOT_SUPPORTED"
    assert (await off.post("/graphql", json=persisted(ADA, query=ADA))).json() == ADAS


MANIFESTS = {
    "graphql-codegen or Relay": {"ada": ADA, "wrong": "{ nothing }"},
    "Apollo": {
        "format": "apollo-persisted-query-manifest",
        "version": 1,
        "operations": [{"id": "ada", "name": "Ada", "type": "query", "body": ADA}, {"id": "wrong", "body": "{ nothing }"}],
    },
}


@pytest.mark.parametrize("manifest", MANIFESTS.values(), ids=MANIFESTS.keys())
async def test_a_trusted_document_goes_by_its_id(open_over: Open, tmp_path: Path, manifest: Mapping[str, object]) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(manifest))
    client = await open_over(MemoryLoader(), trusted_documents=str(path))
    for named in (
        {"documentId": "ada"},
        {"documentId": "sha256:ada"},
        {"doc_id": "ada"},
        {"extensions": {"persistedQuery": {"sha256Hash": "ada"}}},
    ):
        assert (await client.post("/graphql", json=named)).json() == ADAS
    assert (await client.get("/graphql", params={"documentId": "ada"}, headers=OWN)).json() == ADAS
    assert code(await client.post("/graphql", json={"documentId": "other"})) == "UNTRUSTED_DOCUMENT"
    assert (await client.post("/graphql", json={"query": "{ __typename }"})).status_code == 200


async def test_only_trusted_documents_are_answered_where_that_is_set(open_over: Open, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"ada": ADA}))
    loader = MemoryLoader()
    client = await open_over(loader, trusted_documents=str(path), only_trusted_documents=True)
    assert (await client.post("/graphql", json={"documentId": "ada"})).json() == ADAS
    # the same text, whoever sends it
    assert (await client.post("/graphql", json={"query": ADA})).json() == ADAS
    others: list[dict[str, object]] = [
        {"query": ADA + " "},
        {"query": ADA + " ", "documentId": "ada2"},
        persisted(ADA + " ", query=ADA + " "),
        persisted(ADA + " "),
        {"documentId": ""},
        {},
    ]
    for other in others:
        refused = await client.post("/graphql", json=other, headers={"accept": RESPONSE})
        assert (refused.status_code, code(refused)) == (400, "UNTRUSTED_DOCUMENT"), other
    assert len(loader.loads) == 2


async def test_plans_of_trusted_documents_are_made_before_the_gateway_is_ready(
    open_over: Open, tmp_path: Path, answered_by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({f"d{number}": f"query D{number} {ADA}" for number in range(20)} | {"wrong": "{ nothing }"}))
    client = await open_over(MemoryLoader(), trusted_documents=str(path))
    assert (await client.get("/readyz")).status_code == 200
    assert "wrong" in "".join(capsys.readouterr())
    for number in range(20):
        assert (await client.post("/graphql", json={"documentId": f"d{number}"})).json() == ADAS
    metrics = (await client.get("/metrics")).text
    assert 'viewgate_plans_total{outcome="compiled"} 0.0' in metrics
    road = "executor" if answered_by == "executor" else "plan"
    assert f'viewgate_operations_total{{road="{road}"}} 20.0' in metrics


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', '{"operations": [{"id": 1}]}', None])
async def test_a_manifest_that_is_none_stops_the_gateway(open_over: Open, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "manifest.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match="VIEWGATE_TRUSTED_DOCUMENTS"):
        await open_over(MemoryLoader(), trusted_documents=str(path))


async def test_a_batch_is_answered_in_its_order_where_it_is_allowed(open_over: Open) -> None:
    loader = MemoryLoader()
    client = await open_over(loader, limit_batch=3)
    batch = [{"query": ADA}, {"query": "{ nothing }"}, {"query": '{ user(id: "2") { username } }'}]
    answer = await client.post("/graphql", json=batch, headers={"accept": RESPONSE})
    assert answer.status_code == 200
    first, wrong, last = answer.json()
    assert (first, last) == (ADAS, {"data": {"user": {"username": "bob"}}})
    assert wrong["errors"][0]["extensions"] == {"code": "GRAPHQL_VALIDATION_FAILED"}
    assert answer.headers["viewgate-as-of"] == "2023-11-14T22:13:20.123Z"
    for refused in ([], batch + batch[:1]):
        assert code(await client.post("/graphql", json=refused)) == "BAD_BATCH"
    off = await (await open_over(MemoryLoader())).post("/graphql", json=[{"query": ADA}])
    assert (off.status_code, code(off)) == (400, "BAD_BATCH")


async def test_a_client_that_asks_for_too_much_has_to_wait(open_over: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    # and not all of asyncio's clock
    monkeypatch.setattr("app.endpoint.endpoint.time", SimpleNamespace(monotonic=lambda: now, perf_counter=time.perf_counter))
    loader = MemoryLoader()
    client = await open_over(loader, rate_limit=10)
    # 50 to begin with; a request and 60 rows are taken
    sixty = {"query": "query ($ids: [ID!]!) { users(ids: $ids) { id } }", "variables": {"ids": [str(number) for number in range(60)]}}
    assert (await client.post("/graphql", json=sixty)).status_code == 200
    refused = await client.post("/graphql", json={"query": ADA})
    loads = len(loader.loads)
    assert (refused.status_code, code(refused), refused.headers["retry-after"]) == (429, "RATE_LIMITED", "2")
    now += 1.2
    assert (await client.post("/graphql", json={"query": ADA})).status_code == 200
    assert len(loader.loads) == loads + 1


async def test_the_plan_is_told_on_request(open_over: Open, answered_by: str) -> None:
    client = await open_over(MemoryLoader())
    answer = await client.post("/graphql", json={"query": ADA}, headers={"viewgate-extensions": "plan"})
    told = answer.json()["extensions"]["viewgate"]
    plan = {"rows": 1, "reads": [{"by": "id", "rows": 1, "fields": ["username"]}]}
    assert (told["mode"], told["plan"]) == ("view", plan if answered_by != "executor" else None)
    without = await client.post("/graphql", json={"query": ADA}, headers={"viewgate-extensions": "true"})
    assert "plan" not in without.json()["extensions"]["viewgate"]
