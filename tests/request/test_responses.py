"""What a client sees over HTTP: status, headers, codes; over loaders in memory."""

import asyncio
import logging

import pytest

from schema import limits
from schema.compile import Plans
from schema.loader import FieldMissing, Overloaded, SourceUnavailable, ViewNotReady
from tests.request.arranged import ADA, ADAS, OWN, MemoryLoader
from tests.request.conftest import Open


async def test_post_and_get_answer_alike(open_over: Open) -> None:
    client = await open_over(MemoryLoader())
    posted = await client.post("/graphql", json={"query": "query ($i: ID!) { user(id: $i) { username } }", "variables": {"i": "1"}})
    got = await client.get(
        "/graphql", params={"query": "query ($i: ID!) { user(id: $i) { username } }", "variables": '{"i": "1"}'}, headers=OWN
    )
    assert posted.content == got.content == b'{"data":{"user":{"username":"ada"}}}'
    assert (posted.status_code, posted.headers["content-type"]) == (200, "application/json")


async def test_an_answer_says_its_mode_generation_and_moment(open_over: Open) -> None:
    answer = await (await open_over(MemoryLoader())).post("/graphql", json={"query": ADA})
    found = {name: value for name, value in answer.headers.items() if name.startswith("viewgate-")}
    assert found == {"viewgate-mode": "view", "viewgate-generation": "g1", "viewgate-as-of": "2023-11-14T22:13:20.123Z"}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ('{"query": "{ user(id: \\"1\\") { username "}', 200, "GRAPHQL_PARSE_FAILED"),
        ('{"query": "{ user(id: \\"1\\") { nickname } }"}', 200, "GRAPHQL_VALIDATION_FAILED"),
        ('{"query": "{ user(id: 1.5) { id } }"}', 200, "GRAPHQL_VALIDATION_FAILED"),
        ('{"query": "query ($i: ID!) { user(id: $i) { id } }", "variables": {"i": true}}', 200, "BAD_USER_INPUT"),
        ('{"query": "query ($i: ID!) { user(id: $i) { id } }", "variables": null}', 200, "BAD_USER_INPUT"),
        ('{"query": "{ user(id: \\"007\\") { id } }"}', 200, "INVALID_ID"),
        ('{"query": "{ a }', 400, "BAD_REQUEST"),
        ("{}", 400, "BAD_REQUEST"),
        ("null", 400, "BAD_REQUEST"),
        ('"text"', 400, "BAD_REQUEST"),
        ("[1]", 400, "BAD_REQUEST"),
        ('[{"query": "{ __typename }"}]', 400, "BAD_BATCH"),
        ('{"query": "{ user(id: \\"1\\") { id } }", "operationName": "Other"}', 200, "OPERATION_RESOLUTION_FAILURE"),
        ('{"query": "query A { __typename } query B { __typename }"}', 200, "OPERATION_RESOLUTION_FAILURE"),
        ('{"query": "fragment A on Query { __typename }"}', 200, "GRAPHQL_VALIDATION_FAILED"),
        ('{"query": "{ __typename }", "variables": 5}', 400, "BAD_REQUEST"),
        ('{"query": "mutation { a }"}', 200, "GRAPHQL_VALIDATION_FAILED"),
    ],
)
async def test_a_wrong_request_gets_a_code_and_the_mode(open_over: Open, body: str, status: int, code: str) -> None:
    client = await open_over(MemoryLoader())
    answer = await client.post("/graphql", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (status, code)
    assert answer.headers["viewgate-mode"] == "view"


async def test_other_methods_and_bodies_are_refused(open_over: Open) -> None:
    client = await open_over(MemoryLoader())
    answers = [await client.put("/graphql", json={"query": ADA}), await client.post("/graphql", data={"query": ADA})]
    assert [(answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) for answer in answers] == [
        (405, "BAD_REQUEST"),
        (415, "BAD_REQUEST"),
    ]


async def test_a_document_with_too_many_tokens_is_refused(open_over: Open) -> None:
    answer = await (await open_over(MemoryLoader())).post("/graphql", json={"query": "{" + "a " * limits.MOST_TOKENS + "}"})
    assert answer.json()["errors"][0]["extensions"]["code"] == "TOO_MANY_TOKENS"


async def test_where_it_is_allowed_the_header_chooses_the_mode(open_over: Open) -> None:
    client = await open_over(MemoryLoader(), MemoryLoader(mode="cache-aside"), MemoryLoader(mode="sql"), allow_mode_header=True)
    for mode in ("view", "cache-aside", "sql"):
        answer = await client.post("/graphql", json={"query": ADA}, headers={"viewgate-mode": mode})
        assert (answer.headers["viewgate-mode"], answer.json()) == (mode, ADAS)
    refused = await client.post("/graphql", json={"query": ADA}, headers={"viewgate-mode": "magic"})
    assert (refused.status_code, refused.json()["errors"][0]["extensions"]) == (400, {"code": "BAD_MODE"})
    assert refused.headers["viewgate-mode"] == "view"


async def test_more_than_may_be_answered_at_once_is_a_503_that_says_when_to_come_again(open_over: Open) -> None:
    client = await open_over(MemoryLoader(error=Overloaded("As many as may.")))
    answer = await client.post("/graphql", json={"query": ADA})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["errors"][0]["extensions"] == {"code": "OVERLOADED"}
    assert answer.json()["data"] == {"user": None}


async def test_elsewhere_the_header_is_refused_even_if_it_changes_nothing(open_over: Open) -> None:
    answer = await (await open_over(MemoryLoader())).post("/graphql", json={"query": ADA}, headers={"viewgate-mode": "view"})
    assert (answer.status_code, answer.json()["errors"][0]["extensions"]) == (400, {"code": "BAD_MODE"})
    assert "VIEWGATE_ALLOW_MODE_HEADER" in answer.json()["errors"][0]["message"]


async def test_an_error_of_the_loader_is_told_with_the_mode_that_was_asked(open_over: Open) -> None:
    client = await open_over(MemoryLoader(), MemoryLoader(), MemoryLoader(error=SourceUnavailable("PostgreSQL is away.")), mode="sql")
    answer = await client.post("/graphql", json={"query": ADA})
    assert answer.headers["viewgate-mode"] == "sql"
    assert answer.json() == {
        "data": {"user": None},
        "errors": [
            {
                "message": "PostgreSQL is away.",
                "path": ["user"],
                "locations": [{"line": 1, "column": 3}],
                "extensions": {"code": "UNAVAILABLE"},
            }
        ],
    }


async def test_what_nobody_foresaw_is_masked_and_logged_under_the_id_that_is_told(
    open_over: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    client = await open_over(MemoryLoader(error=KeyError("secret of ours")))
    answer = await client.post("/graphql", json={"query": ADA})
    error = answer.json()["errors"][0]
    assert error["extensions"] == {"code": "INTERNAL"}
    number = error["message"].removeprefix("Internal error; look for ").removesuffix(" in the log.")
    assert len(number) == 8
    assert "secret" not in answer.text
    assert answer.headers["viewgate-mode"] == "view"
    logged = "".join(capsys.readouterr())
    assert number in logged
    assert "secret of ours" in logged


async def test_a_crash_outside_the_query_is_masked_too(
    open_over: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def crash(*args: object) -> None:
        raise ZeroDivisionError("secret of ours")

    caplog.set_level(logging.CRITICAL)
    client = await open_over(MemoryLoader())
    monkeypatch.setattr(Plans, "known", crash)
    answer = await client.post("/graphql", json={"query": ADA})
    assert (answer.status_code, answer.json()["errors"][0]["extensions"]) == (500, {"code": "INTERNAL"})
    assert "secret" not in answer.text


async def test_the_gateway_is_alive_before_it_is_ready(open_over: Open) -> None:
    client = await open_over(MemoryLoader(error=ViewNotReady("No generation is live.")))
    alive, ready = await client.get("/livez"), await client.get("/readyz")
    assert (alive.status_code, ready.status_code, ready.text) == (200, 503, "NOT_READY: No generation is live.\n")
    assert (await (await open_over(MemoryLoader())).get("/readyz")).status_code == 200


async def test_requests_are_counted_by_mode_and_outcome(open_over: Open) -> None:
    loader = MemoryLoader()
    client = await open_over(loader)
    await asyncio.gather(*[client.post("/graphql", json={"query": ADA}) for _ in range(3)])
    loader.error = FieldMissing("lost")
    await client.post("/graphql", json={"query": ADA})
    metrics = (await client.get("/metrics")).text
    assert 'viewgate_requests_total{mode="view",outcome="ok"} 3.0' in metrics
    assert 'viewgate_requests_total{mode="view",outcome="FIELD_MISSING"} 1.0' in metrics
    assert 'viewgate_request_seconds_count{mode="view"} 4.0' in metrics
