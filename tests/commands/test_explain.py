"""`viewgate explain`: what a query reads, without a server."""

import json

from tests.commands.running import run

AWAY = {"VIEWGATE_REDIS_URL": "redis://127.0.0.1:1", "VIEWGATE_POSTGRES_URL": "postgresql://127.0.0.1:1/x"}


async def test_it_tells_the_rows_and_fields_that_are_read_and_asks_no_server() -> None:
    document = 'query ($ids: [ID!]!) { users(ids: $ids) { name id } userByUsername(username: "ada") { __typename } }'
    code, out, err = await run("explain", document, "-v", 'ids=["1", 2, "1"]', **AWAY)
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[1:3] == [["2", "id", "id,", "name"], ["1", "username", "none:", "only", "whether", "there", "is", "one"]]
    assert lines[3] == ["3", "of", "at", "most", "1,000", "rows."]
    code, out, _ = await run("explain", document, "-v", 'ids=["1"]', "--json", **AWAY)
    assert json.loads(out)["plan"]["rows"] == 2


async def test_what_no_plan_answers_is_told() -> None:
    for document in ("{ __schema { queryType { name } } }", '{ user(id: "007") { id } }', "query ($id: ID!) { user(id: $id) { id } }"):
        code, out, _ = await run("explain", document)
        assert code == 0
        assert out.startswith("No plan answers it, so Strawberry's executor does")
        assert json.loads((await run("explain", document, "--json"))[1]) == {"plan": None}


async def test_a_wrong_query_or_operation_is_exit_code_1_with_what_to_do() -> None:
    code, out, err = await run("explain", '{ user(id: "1") { nosuch } }')
    assert (code, out) == (1, "")
    assert "The query is wrong: Cannot query field 'nosuch' on type 'User'." in err
    code, _, err = await run("explain", "query A { __typename }", "--operation", "B")
    assert (code, err) == (1, "Name one of the document's own operations with --operation.\n")
