"""The servers that the bench of reads asks, each in a process and on a core of its own, and what they are told of the layout."""

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from app.settings import key_of
from bench.closed_loop import NotAnswered, answer, body
from bench.command import running
from bench.memory import live_generation
from demo.servers.process import NotReadyError, free_port, until
from schema import graphql, layout
from schema.definition import read_definition
from schema.user import UserView

DEFINITION = read_definition(UserView)
FIELDS = "id username name description tweetCount followingCount followerCount likeCount"
OURS, SERVER_CORE = "viewgate", 0


def layout_told(address: str) -> dict[str, Any]:
    """What a peer must know of the layout."""
    record = live_generation()
    keys = layout.Layout(DEFINITION.name, record.name, record.shards)
    start, _, end = keys.rows_prefix(0, record.build).partition(layout.tags(record.shards)[0])
    fields = {f.camel: {"name": f.camel, "code": record.codes[f.name], "prefix": record.prefixes.get(f.name)} for f in DEFINITION.fields}
    row = {"id": "1", "username": "u" * 12, "name": "n" * 14, "description": "d" * 60, **dict.fromkeys(FIELDS.split()[4:], 12345)}
    return {
        "redis": address,
        "start": start,
        "tags": layout.tags(record.shards),
        "end": end,
        "marker": record.codes[DEFINITION.columns[0].name],
        "fields": fields,
        "sdl": graphql.sdl(DEFINITION),
        "answer": json.dumps({"data": {"user": row}}),
    }


@asynccontextmanager
async def server(name: str, argv: tuple[str, ...], config: Path, address: str, folder: Path) -> AsyncIterator[int]:
    """Running on its core; the port."""
    port = free_port()
    arguments = ("--port", str(port)) if name == OURS else (str(port), str(config))
    told = {key_of("redis_url"): address, key_of("pages"): "false", "NODE_ENV": "production"}
    pinned = (shutil.which("taskset") or "taskset", "-c", str(SERVER_CORE), *argv, *arguments)
    async with running(pinned, told, folder / f"{name}.log"):
        await until(lambda: _listens(port), 30)
        yield port


async def _listens(port: int) -> None:
    try:
        await answer(port, body("{ __typename }", {}))
    except (OSError, NotAnswered) as error:
        raise NotReadyError(str(error)) from error
