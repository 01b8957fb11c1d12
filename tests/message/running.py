"""A projector, a gateway and an audit in the test's own process, for views that the command line does not name."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from app.headers import MODE
from app.server import gateway
from app.telemetry import ProjectorMetrics
from app.worker import work
from loaders import view
from loaders.sql import keys
from projectors import projector
from projectors.audit import Audit, Mismatch, ids_in_view
from projectors.clock import SystemClock
from projectors.generations import Generations
from schema.definition import Definition
from schema.layout import Layout
from schema.loader import Mode
from tests.road import Road

MODES: tuple[Mode, ...] = ("view", "cache-aside", "cache-invalidate", "sql")
SHORT_SECONDS = 0.05


@asynccontextmanager
async def projecting(road: Road) -> AsyncIterator[asyncio.Task[None]]:
    """A projector of the road's definition. What stopped it before its time is raised at the end."""
    stop = asyncio.Event()
    settings = road.settings.model_copy(update={"checkpoint_seconds": SHORT_SECONDS})
    running = asyncio.create_task(work(settings, road.definition, ProjectorMetrics(), stop))
    try:
        yield running
    finally:
        stop.set()
        await running


async def asked(road: Road, query: str, **variables: Any) -> dict[Mode, httpx.Response]:
    """The gateway's answer in each mode."""
    settings = road.settings.model_copy(update={"allow_mode_header": True})
    async with (
        gateway(settings, road.definition) as app,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client,
    ):
        body = {"query": query, "variables": variables}
        return {mode: await client.post("/graphql", json=body, headers={MODE: mode}) for mode in MODES}


async def audited(road: Road) -> list[Mismatch]:
    """What the audit finds; while a projector runs."""
    record = await Generations(road.redis, road.definition).read("g1")
    assert record is not None
    audit = Audit(road.definition, road.view, road.sql, SystemClock(), lambda rows: None)
    in_view = ids_in_view(road.redis, road.definition.name, record)
    with pytest.MonkeyPatch.context() as patch:
        # a difference is looked at 20 times, and each time the projector must have reported once more
        patch.setattr(view, "WATCH_SECONDS", SHORT_SECONDS)
        patch.setattr(projector, "REPORT_SECONDS", SHORT_SECONDS)
        return (await audit.run(keys(road.pool, road.definition), in_view)).mismatches


async def spoil(road: Road, row_id: str, field: str, fragment: bytes) -> None:
    """Change one field of one row behind the projector's back."""
    record = await Generations(road.redis, road.definition).read("g1")
    assert record is not None
    keys_ = Layout(road.definition.name, record.name, record.shards)
    added = await road.redis.hset(keys_.rows_prefix(keys_.shard(row_id), record.build) + row_id, record.codes[field], fragment)
    assert added == 0, "there was no such field to change"


def every_field(definition: Definition) -> str:
    """A selection of all fields."""
    return " ".join(["id", *(f.camel for f in definition.fields)])
