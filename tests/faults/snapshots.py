"""Redis as a failover leaves it: the keys of one shard, or of all, as they were earlier."""

from dataclasses import dataclass

from redis.asyncio import Redis

from schema.layout import Layout


@dataclass(frozen=True, slots=True)
class Snapshot:
    """pattern: what was dumped. values: DUMP of each key."""

    pattern: str
    values: dict[bytes, bytes]


async def dump(redis: Redis, keys: Layout, shard: int | None = None) -> Snapshot:
    """Everything there is, or all of one shard."""
    pattern = "*" if shard is None else f"*{tag(keys, shard)}*"
    names: list[bytes] = await redis.keys(pattern)  # type: ignore[assignment]  # this client answers bytes
    pipeline = redis.pipeline(transaction=False)
    for name in names:
        pipeline.dump(name)
    return Snapshot(pattern, dict(zip(names, await pipeline.execute(), strict=True)))


async def restore(redis: Redis, snapshot: Snapshot) -> None:
    """As if nothing had been written since."""
    pipeline = redis.pipeline(transaction=True)
    for name in await redis.keys(snapshot.pattern):
        pipeline.delete(name)
    for name, value in snapshot.values.items():
        pipeline.restore(name, 0, value)
    await pipeline.execute()


async def lose(redis: Redis, keys: Layout, shard: int) -> None:
    """A shard that is gone: header, rows, claimants."""
    await restore(redis, Snapshot(f"*{tag(keys, shard)}*", {}))


def tag(keys: Layout, shard: int) -> str:
    return keys.headers[shard].rpartition(":")[2]
