"""The GraphQL servers of Python that the bench of reads measures against, and what uvicorn alone can do: `python -m … which port config`.

Each over the view's own hashes, as its documentation has it; they run in the bench's environment.
"""

import asyncio
import json
import os
import sys
import zlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import strawberry
import uvicorn
import uvloop
from ariadne import QueryType, make_executable_schema
from ariadne.asgi import GraphQL as AriadneApp
from redis.asyncio import Redis
from strawberry.asgi import GraphQL as StrawberryApp
from strawberry.extensions import ParserCache, ValidationCache

# of Redis: each row is read by a command of its own, as a resolver does it
MOST = 1_000
CONFIG = "BENCH_CONFIG"
UVICORN = ("--http", "httptools", "--loop", "uvloop", "--lifespan", "on", "--no-access-log", "--log-level", "warning")
GRANIAN = ("--interface", "asgi", "--loop", "uvloop", "--no-ws", "--log-level", "warning")


class Rows:
    """The view's hashes, read as anybody would by redis-py."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config, self._redis = config, Redis.from_url(config["redis"], max_connections=MOST)

    async def row(self, row_id: str, asked: Iterable[str]) -> dict[str, Any] | None:
        """By names in GraphQL; of those asked for."""
        config = self._config
        tag = config["tags"][zlib.crc32(row_id.encode()) % len(config["tags"])]
        fields = [config["fields"][name] for name in asked if name in config["fields"]]
        codes = [config["marker"], *(field["code"] for field in fields)]
        stored: Any = await self._redis.hmget(f"{config['start']}{tag}{config['end']}{row_id}", codes)
        if stored[0] is None:
            return None
        shown = {field["name"]: _shown(field["prefix"], value.decode()) for field, value in zip(fields, stored[1:], strict=True)}
        return {"id": row_id, **shown}


def _shown(prefix: str | None, stored: str) -> Any:
    if prefix is None:
        return json.loads(stored)
    if stored.startswith("~"):
        return json.loads(stored[1:]) if stored[1:] else None
    return json.loads(f'{prefix}{stored}"')


@strawberry.type
class User:
    """What the queries of the bench ask for."""

    id: strawberry.ID
    username: str
    name: str | None
    description: str | None
    tweet_count: int
    following_count: int
    follower_count: int
    like_count: int


def with_strawberry(rows: Rows, *extensions: Any) -> Any:
    async def made(row_id: str, info: strawberry.Info) -> User | None:
        chosen: Any = info.selected_fields[0].selections
        row: Any = await rows.row(row_id, [one.name for one in chosen])
        return None if row is None else User(**{_snake(name): row.get(name) for name in NAMES})

    async def user(info: strawberry.Info, id: strawberry.ID) -> User | None:
        return await made(id, info)

    async def users(info: strawberry.Info, ids: list[strawberry.ID]) -> list[User | None]:
        return list(await asyncio.gather(*[made(row_id, info) for row_id in ids]))

    query = strawberry.type(type("Query", (), {"user": strawberry.field(user), "users": strawberry.field(users)}))
    return StrawberryApp(strawberry.Schema(query, extensions=[partial(given) for given in extensions]))


NAMES = ("id", "username", "name", "description", "tweetCount", "followingCount", "followerCount", "likeCount")


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def with_ariadne(rows: Rows, sdl: str) -> Any:
    def asked(info: Any) -> list[str]:
        return [node.name.value for node in info.field_nodes[0].selection_set.selections]

    async def user(_: Any, info: Any, id: str) -> Any:
        return await rows.row(id, asked(info))

    async def users(_: Any, info: Any, ids: list[str]) -> Any:
        return await asyncio.gather(*[rows.row(row_id, asked(info)) for row_id in ids])

    query = QueryType()
    query.set_field("user", user)
    query.set_field("users", users)
    return AriadneApp(make_executable_schema(sdl, query))


def constant(body: bytes) -> Any:
    """An ASGI app that reads a request and answers with these bytes."""
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})

    return app


def by_name(which: str, port: str, path: str) -> NoReturn:
    """Becomes a server that is told the name of its app, of read_asgi.py: `uvicorn-asgi`, `granian-asgi`, `granian-bare`."""
    server, _, app = which.partition("-")
    options = {"uvicorn": UVICORN, "granian": GRANIAN}[server]
    os.environ[CONFIG] = path
    os.execv(sys.executable, (sys.executable, "-m", server, *options, "--port", port, f"bench.peers.read_asgi:{app}"))  # noqa: S606


def main(which: str, port: str, path: str) -> None:
    if "-" in which and which.split("-", maxsplit=1)[0] in {"uvicorn", "granian"}:
        by_name(which, port, path)
    config = json.loads(Path(path).read_text())

    async def serve() -> None:
        rows = Rows(config)
        apps = {
            "uvicorn": lambda: constant(config["answer"].encode()),
            "strawberry": lambda: with_strawberry(rows),
            "strawberry-caches": lambda: with_strawberry(rows, ParserCache, ValidationCache),
            "ariadne": lambda: with_ariadne(rows, config["sdl"]),
        }
        serving = uvicorn.Config(apps[which](), port=int(port), http="httptools", lifespan="off", log_config=None, access_log=False)
        await uvicorn.Server(serving).serve()

    uvloop.run(serve())


if __name__ == "__main__":
    main(*sys.argv[1:])
