"""The servers that the bench of reads asks, each in a process and on a core of its own, and what they are told of the layout."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from app.settings import key_of
from bench.closed_loop import NotAnswered, answer
from bench.memory import live_generation
from demo.servers.process import NotReadyError, free_port, until
from schema import graphql, layout
from schema.definition import read_definition
from schema.user import UserView

DEFINITION = read_definition(UserView)
FIELDS = "id username name description tweetCount followingCount followerCount likeCount"
OURS, SERVER_CORE = "viewgate", 0


def body(query: str, variables: Mapping[str, object]) -> bytes:
    return msgspec.json.encode({"query": query, "variables": variables})


def layout_told(address: str) -> dict[str, Any]:
    """What a peer must know of the layout."""
    record = live_generation()
    keys = layout.Layout(DEFINITION.name, record.name, record.shards)
    start, _, end = keys.rows_prefix(0, record.build).partition(layout.tags(record.shards)[0])
    fields = {f.camel: {"name": f.camel, "code": record.codes[f.name], "prefix": record.prefixes.get(f.name)} for f in DEFINITION.fields}
    body = {"id": "1", "username": "u" * 12, "name": "n" * 14, "description": "d" * 60, **dict.fromkeys(FIELDS.split()[4:], 12345)}
    return {
        "redis": address,
        "start": start,
        "tags": layout.tags(record.shards),
        "end": end,
        "marker": record.codes[DEFINITION.columns[0].name],
        "fields": fields,
        "sdl": graphql.sdl(DEFINITION),
        "answer": json.dumps({"data": {"user": body}}),
    }


@asynccontextmanager
async def server(name: str, argv: tuple[str, ...], config: Path, address: str, folder: Path) -> AsyncIterator[int]:
    """Running on its core; the port."""
    port = free_port()
    arguments = ("--port", str(port)) if name == OURS else (str(port), str(config))
    others = {key: value for key, value in os.environ.items() if not key.startswith("VIEWGATE_")}
    told = {key_of("redis_url"): address, key_of("pages"): "false", "NODE_ENV": "production"}
    with (folder / f"{name}.log").open("ab") as log:
        pinned = (shutil.which("taskset") or "taskset", "-c", str(SERVER_CORE), *argv, *arguments)
        process = await asyncio.create_subprocess_exec(*pinned, env=others | told, stdout=log, stderr=log)
    try:
        await until(lambda: _listens(port), 30)
        yield port
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 10)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _listens(port: int) -> None:
    try:
        await answer(port, body("{ __typename }", {}))
    except (OSError, NotAnswered) as error:
        raise NotReadyError(str(error)) from error
