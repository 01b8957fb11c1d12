"""All audits of GraphQL over HTTP (npm's graphql-http), run by Node.js against a gateway as it comes."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import Serve
from tests.clients.running import run
from tests.request.arranged import MemoryLoader

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]
# a program that asks by GET sends it: docs/http.md
OWN = "apollo-require-preflight=1"


async def audited(audits: Path, url: str, *header: str) -> list[dict[str, Any]]:
    ran = await run("node", "audit.mjs", url, *header, folder=audits)
    assert ran.code == 0, ran.said
    found: list[dict[str, Any]] = json.loads(ran.out)
    return found


async def test_every_audit_passes(audits: Path, serve_over: Serve) -> None:
    found = await audited(audits, await serve_over(MemoryLoader()), OWN)
    assert [one for one in found if one["status"] != "ok"] == []
    assert len(found) == 61


async def test_without_the_header_only_those_by_get_fail(audits: Path, serve_over: Serve) -> None:
    found = await audited(audits, await serve_over(MemoryLoader()))
    assert {one["id"] for one in found if one["status"] != "ok"} == {"5A70", "D6D5", "6A70"}
    assert Counter(one["status"] for one in await audited(audits, await serve_over(MemoryLoader(), csrf=False))) == {"ok": 61}


async def test_what_the_draft_of_2026_changes(audits: Path, serve_over: Serve) -> None:
    found = await audited(audits, await serve_over(MemoryLoader(), draft_status_codes=True), OWN)
    # each of them wants 400 where the draft has 422
    assert {one["id"] for one in found if one["status"] != "ok"} == {"423L", "86EE"}
