"""Redis as a failover leaves it: the keys of one shard, or of all, as they were earlier."""

from dataclasses import dataclass

from redis.asyncio import Redis

from schema.layout import Layout


@dataclass(frozen=True, slots=True)
class Snapshot:
    """pattern: what was dumped. values: DUMP of each key."""

    pattern: str
    values: dict[bytes, bytes]


# at one moment, as what a replica has: a call that is in the air comes before it or after it
_DUMP = """
local found = {}
for _, name in ipairs(redis.call('KEYS', ARGV[1])) do
  found[#found + 1] = name
  found[#found + 1] = redis.call('DUMP', name)
end
return found
"""
_RESTORE = """
for _, name in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', name) end
for i = 2, #ARGV, 2 do redis.call('RESTORE', ARGV[i], 0, ARGV[i + 1]) end
"""


async def dump(redis: Redis, keys: Layout, shard: int | None = None) -> Snapshot:
    """Everything there is, or all of one shard."""
    pattern = "*" if shard is None else f"*{tag(keys, shard)}*"
    found: list[bytes] = await redis.eval(_DUMP, 0, pattern)
    return Snapshot(pattern, dict(zip(found[::2], found[1::2], strict=True)))


async def restore(redis: Redis, snapshot: Snapshot) -> None:
    """As if nothing had been written since."""
    await redis.eval(_RESTORE, 0, snapshot.pattern, *(part for pair in snapshot.values.items() for part in pair))


async def lose(redis: Redis, keys: Layout, shard: int) -> None:
    """A shard that is gone: header, rows, claimants."""
    await restore(redis, Snapshot(f"*{tag(keys, shard)}*", {}))


def tag(keys: Layout, shard: int) -> str:
    return keys.headers[shard].rpartition(":")[2]
