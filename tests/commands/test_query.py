"""`viewgate query`: one query, answered without a gateway."""

import json
import re

import pytest

from demo.servers.server import Server
from tests.commands.running import run
from tests.request.arranged import View

ADA = '{ user(id: "1") { username tweetCount } }'
ADAS = {"data": {"user": {"username": "ada", "tweetCount": 3}}}


@pytest.fixture
def servers(redis_at: Server, users_at: str, view: View) -> dict[str, str]:
    return {"VIEWGATE_REDIS_URL": redis_at.address, "VIEWGATE_POSTGRES_URL": users_at}


@pytest.mark.parametrize("mode", ["view", "cache-aside", "cache-invalidate", "sql"])
async def test_every_mode_answers_alike_and_says_which_it_was(servers: dict[str, str], mode: str) -> None:
    code, out, err = await run("query", ADA, "--mode", mode, **servers)
    assert (code, json.loads(out)) == (0, ADAS)
    assert re.fullmatch(rf"mode {mode}( · generation g1)? · as of [0-9.]+ s ago · [0-9.]+ ms\n", err)
    assert ("generation" in err) == (mode == "view")


async def test_json_is_the_response_on_one_line_and_nothing_else(servers: dict[str, str]) -> None:
    assert await run("query", ADA, "--json", **servers) == (0, json.dumps(ADAS, separators=(",", ":")) + "\n", "")


async def test_variables_are_json_or_else_texts(servers: dict[str, str]) -> None:
    document = "query ($ids: [ID!]!, $name: String!) { users(ids: $ids) { id } userByUsername(username: $name) { id } }"
    code, out, _ = await run("query", document, "-v", 'ids=["1", "2"]', "-v", "name=ada", "--json", **servers)
    assert (code, json.loads(out)) == (0, {"data": {"users": [{"id": "1"}, {"id": "2"}], "userByUsername": {"id": "1"}}})


async def test_the_query_may_come_from_standard_input_and_name_its_operation(servers: dict[str, str]) -> None:
    document = f"query A {ADA} query B {{ __typename }}"
    code, out, _ = await run("query", "-", "--operation", "B", "--json", given=document, **servers)
    assert (code, json.loads(out)) == (0, {"data": {"__typename": "Query"}})


async def test_an_operation_that_is_not_there_is_told() -> None:
    code, out, err = await run("query", "query A { __typename }", "--operation", "B")
    assert (code, out) == (1, "")
    assert err == "The document has no operation B: name one of its own with --operation.\n"


async def test_a_wrong_query_is_exit_code_1_with_the_errors_in_the_response() -> None:
    code, out, _ = await run("query", "{ user(id: 1) { nickname } }", "--json")
    assert (code, json.loads(out)["errors"][0]["extensions"]["code"]) == (1, "GRAPHQL_VALIDATION_FAILED")


async def test_a_server_that_is_away_is_told_with_what_to_do() -> None:
    code, out, err = await run("query", ADA, VIEWGATE_REDIS_URL="redis://127.0.0.1:1")
    assert (code, json.loads(out)["errors"][0]["extensions"]["code"]) == (1, "UNAVAILABLE")
    assert "`viewgate doctor` says what is wrong" in err


@pytest.mark.parametrize("document", ["", " \n", "-"])
async def test_an_empty_query_is_exit_code_2(document: str) -> None:
    code, out, err = await run("query", document)
    assert (code, out) == (2, "")
    assert "there is no query in it" in err


async def test_an_address_of_postgresql_that_cannot_be_used_is_unavailable() -> None:
    code, out, err = await run("query", ADA, "--mode", "sql", VIEWGATE_POSTGRES_URL="postgresql://reader@127.0.0.1:1/x?sslmode=bogus")
    assert (code, json.loads(out)["errors"][0]["extensions"]["code"]) == (1, "UNAVAILABLE")
    assert "`viewgate doctor` says what is wrong" in err


async def test_a_malformed_variable_is_exit_code_2() -> None:
    code, _, err = await run("query", ADA, "-v", "id")
    assert code == 2
    assert "write --variable name=value" in err
