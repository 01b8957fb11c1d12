"""The types that are generated from schema.graphql: the examples fit them, and what does not fit the schema is refused by name."""

from pathlib import Path

import pytest

from tests.clients.running import run

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

USER = 'import type { UserQuery } from "./generated/graphql";\ndeclare const user: NonNullable<UserQuery["user"]>;\n'


async def test_the_examples_fit_the_types_that_are_generated(package: Path) -> None:
    ran = await run("npm", "run", "typecheck", folder=package)
    assert ran.code == 0, ran.said


async def test_types_are_made_for_each_library_and_scalar(package: Path) -> None:
    made = (package / "src" / "generated" / "graphql.ts").read_text()
    assert "id: string, username: string, name: string | null, joinedAt: string, followerCount: number } | null }" in made
    relays = (package / "src" / "__generated__" / "relayUserQuery.graphql.ts").read_text()
    assert "readonly joinedAt: string;" in relays


async def test_a_query_for_a_field_that_does_not_exist_is_refused_by_codegen(changed: Path) -> None:
    (changed / "queries" / "User.graphql").write_text('query User { user(id: "1") { id nickname } }')
    ran = await run("npm", "run", "codegen", folder=changed)
    assert ran.code != 0
    assert 'Cannot query field "nickname" on type "User"' in ran.said


async def test_a_query_of_relay_for_a_field_that_does_not_exist_is_refused(changed: Path) -> None:
    _replace(changed / "src" / "relay.ts", "followerCount", "nickname")
    ran = await run("npm", "run", "codegen", folder=changed)
    assert ran.code != 0
    assert "The type `User` has no field `nickname`" in ran.said


async def test_relay_cannot_refetch_a_user_by_a_fragment_since_there_is_no_node(changed: Path) -> None:
    """docs/clients.md says so."""
    _replace(changed / "src" / "react" / "RelayUser.tsx", "on User {", 'on User @refetchable(queryName: "RelayUserAgainQuery") {')
    ran = await run("npm", "run", "codegen", folder=changed)
    assert ran.code != 0
    assert "@refetchable" in ran.said
    assert "Node" in ran.said


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("user.nickname;", "Property 'nickname' does not exist"),
        ("user.name.length;", "'user.name' is possibly 'null'"),
        ("user.joinedAt satisfies Date;", "Type 'string' does not satisfy the expected type 'Date'"),
        ("user.followerCount satisfies string;", "Type 'number' does not satisfy the expected type 'string'"),
    ],
)
async def test_code_that_does_not_fit_the_schema_fails_the_type_check(package: Path, changed: Path, line: str, error: str) -> None:
    (changed / "src" / "generated").symlink_to(package / "src" / "generated")
    (changed / "src" / "wrong.ts").write_text(f"{USER}{line}\n")
    (changed / "tsconfig.json").write_text((changed / "tsconfig.json").read_text().replace('["src"]', '["src/wrong.ts"]'))
    ran = await run("npm", "run", "typecheck", folder=changed)
    assert ran.code != 0
    assert [error in text for text in ran.said.splitlines() if "error TS" in text] == [True], ran.said


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
