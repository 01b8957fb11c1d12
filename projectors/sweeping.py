"""What a generation leaves in Redis: counted by a sample, or unlinked page by page. Knows keys only by their pattern."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from redis.asyncio import Redis

from projectors.apply import reached
from schema.layout import Layout

PAGE = 1000
PAGES, WEIGHED = 50, 100
# between two pages, so that unlinking millions of hashes is felt by nobody
PAUSE_SECONDS = 0.01


class Size(NamedTuple):
    """rows: hashes of the view. bytes: that they take, without claimants. exact: all keys were looked at, not a sample."""

    rows: int
    bytes: int
    exact: bool


async def size(redis: Redis, keys: Layout) -> Size:
    """From up to PAGES pages of the whole Redis, and the memory of up to WEIGHED rows. Raises StoreUnavailable."""
    seen = rows = 0
    some: list[str] = []
    cursor, exact = 0, False
    for _ in range(PAGES):
        cursor, page = await reached(redis.scan(cursor, count=PAGE))
        seen += len(page)
        found = [name for name in map(_text, page) if _is_row(keys, name)]
        rows += len(found)
        some += found[: WEIGHED - len(some)]
        if exact := cursor == 0:
            break
    weights = [weight for name in some if (weight := await reached(redis.memory_usage(name))) is not None]
    total = rows if exact or not seen else rows * await reached(redis.dbsize()) // seen
    return Size(total, total * sum(weights) // len(weights) if weights else 0, exact)


async def sweep(redis: Redis, pattern: str, goes: Callable[[str], bool], advanced: Callable[[int], None]) -> int:
    """Unlink every key that matches and for which `goes` is true; how many. Raises StoreUnavailable."""
    swept = 0
    async for page in pages(redis, pattern):
        names = [name for name in page if goes(name)]
        if names:
            swept += await reached(redis.unlink(*names))
            advanced(len(names))
        await asyncio.sleep(PAUSE_SECONDS)
    return swept


async def sweep_strays(redis: Redis, view: str) -> int:
    """Unlink rows and claimants of builds that no header names, of all generations; how many. Raises StoreUnavailable.

    Only where each header is written before the first key of its build: headers are looked at after the keys.
    """
    swept, generations = 0, f"{view.lower()}:*.*:{{*}}*"
    async for page in pages(redis, generations):
        headers = {name: _header(name) for name in page}
        wanted = sorted({header for header in headers.values() if header})
        pipeline = redis.pipeline(transaction=False)
        for header in wanted:
            pipeline.hget(header, "build")
        builds = dict(zip(wanted, await reached(pipeline.execute()), strict=True))
        strays = [name for name, header in headers.items() if header and (builds[header] or b"").decode() != _build(name)]
        swept += await reached(redis.unlink(*strays)) if strays else 0
        await asyncio.sleep(PAUSE_SECONDS)
    return swept


def _header(name: str) -> str | None:
    """The key of the header of the shard that a row or claimants belong to; None for a shard's own sets."""
    head, _, rest = name.partition("}")
    generation, _, tag = head.rpartition(":")
    return f"{generation.partition('.')[0]}:{tag}}}" if rest and tag.startswith("{") else None


def _build(name: str) -> str:
    return name.partition(".")[2].partition(":")[0]


async def pages(redis: Redis, pattern: str) -> AsyncIterator[list[str]]:
    """All keys that match, some of them more than once. Raises StoreUnavailable."""
    cursor: Any = 0
    while True:
        cursor, page = await reached(redis.scan(cursor, pattern, PAGE))
        yield [_text(name) for name in page]
        if cursor == 0:
            return


def _is_row(keys: Layout, name: str) -> bool:
    return name.startswith(keys.rows_start()) and keys.row_id(name) is not None


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name
