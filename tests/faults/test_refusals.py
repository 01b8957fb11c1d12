"""A Redis that refuses: for what it finds, half-way, or for a while."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from demo.servers import redis as redis_server
from demo.servers.account import scratch
from demo.servers.process import NotReadyError, free_port, until
from projectors.apply import EvictionAllowed, ShardFailed, check_eviction
from schema.loader import ViewNotReady
from schema.user import Users
from tests.conftest import CACHE
from tests.faults.arranged import World, follow, user
from tests.faults.snapshots import dump

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
async def address() -> AsyncIterator[str]:
    """A Redis of its own, for these tests change how it behaves."""
    with scratch() as folder:
        async with redis_server.start(Path(folder), CACHE, say=print) as server:
            yield server.address


@pytest.fixture
async def redis(address: str) -> AsyncIterator[Redis]:
    client = Redis.from_url(address)
    await client.flushall()
    yield client
    await client.aclose()


async def told(redis: Redis, *command: str) -> None:
    await redis.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py left it untyped


def neighbours(world: World, count: int = 3) -> list[int]:
    """Users of one shard."""
    return [number for number in range(1, 200) if world.shard_of(number) == 0][:count]


@pytest.mark.parametrize("spoil", ["type", "number", "huge"])
async def test_a_count_that_cannot_be_added_to_leaves_all_as_it_was(world: World, redis: Redis, spoil: str) -> None:
    one, other, _ = neighbours(world)
    owner = await world.owner(limit=50)
    world.put(user(one, "one"))
    world.put(follow(1, one, 99))
    await owner.level()
    key = world.keys.rows_prefix(0, "0") + str(other)
    if spoil == "type":
        await redis.set(key, "x")
    else:
        await redis.hset(key, mapping=dict.fromkeys("89abc", "x" if spoil == "number" else str(2**63 - 1)))
    before = await dump(redis, world.keys, 0)
    for number in range(2, 12):
        world.put(follow(number, one, other))
    with pytest.raises(ShardFailed, match="nothing of them was applied"):
        await owner.level()
    assert (await dump(redis, world.keys, 0)).values == before.values
    await redis.delete(key)
    heir = await world.owner()
    await heir.level()
    await world.exact()


async def test_a_profile_key_of_another_type_is_found_before_the_first_write(world: World, redis: Redis) -> None:
    one, other, _ = neighbours(world)
    key = world.keys.rows_prefix(0, "0") + str(other)
    await redis.set(key, "x")
    owner = await world.owner(limit=50)
    before = await dump(redis, world.keys, 0)
    for number in range(0, 200, 4):
        world.put(user(number + 1000, f"far{number}"))
    world.put(user(one, "one"))
    world.put(user(other, "other"))
    with pytest.raises(ShardFailed, match="holds a string, not a hash"):
        await owner.level()
    after = await dump(redis, world.keys, 0)
    assert set(before.values) <= set(after.values)
    await redis.delete(key)
    await (await world.owner()).level()
    await world.exact()


async def test_a_call_that_fails_half_way_stops_its_shard_for_good(world: World, redis: Redis) -> None:
    """By a user who may not HDEL: the first profile of the call is written, the second cannot be deleted."""
    one, other, absent = neighbours(world)
    world.partitions = 1
    world.put(user(other, "other"))
    await (await world.owner()).level()
    # the script's own writes are checked against the rights of the user who calls it
    await told(redis, "ACL", "SETUSER", "meagre", "on", ">pass", "~*", "&*", "+@all", "-hdel")
    host, port = redis.connection_pool.connection_kwargs["host"], redis.connection_pool.connection_kwargs["port"]
    meagre = Redis(host=host, port=port, username="meagre", password="pass")
    try:
        owner = await world.owner(redis=meagre, limit=50)
        # both changes in one batch: a partition of the topic of users that has them both
        world.put(user(one, "one"))
        world.delete(Users, other)
        with pytest.raises(ShardFailed) as failed:
            await owner.level()
        assert "half-way" in str(failed.value)
        assert "nothing of them was applied" not in str(failed.value)
    finally:
        await meagre.aclose()
        await told(redis, "ACL", "DELUSER", "meagre")
    assert await redis.hget(world.keys.headers[0], "state") == b"failed"
    before = await dump(redis, world.keys, 0)
    for _ in range(2):
        with pytest.raises(ShardFailed, match="failed earlier"):
            await (await world.owner()).level()
    assert (await dump(redis, world.keys, 0)).values == before.values
    world.users = {absent}
    with pytest.raises(ViewNotReady, match="failed"):
        await world.shown()


REFUSALS = {
    "OOM": (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
    "NOREPLICAS": (("CONFIG", "SET", "min-replicas-to-write", "1"), ("CONFIG", "SET", "min-replicas-to-write", "0")),
    "READONLY": (("REPLICAOF", "127.0.0.1", str(free_port())), ("REPLICAOF", "NO", "ONE")),
}


@pytest.mark.parametrize("word", REFUSALS)
async def test_a_redis_that_takes_no_writes_for_a_while_is_waited_for(world: World, redis: Redis, word: str) -> None:
    owner = await world.owner()
    for number in range(1, 30):
        world.put(user(number, f"user{number}"))
    await owner.level()
    refuse, allow = REFUSALS[word]
    stop = asyncio.Event()
    await told(redis, *refuse)
    try:
        with pytest.raises(ResponseError, match=r".*"):
            await redis.set("any", "thing")
        for number in range(1, 30):
            world.put(follow(number, number, number % 5 + 1))
        world.delete(Users, 29)
        running = asyncio.create_task(owner.projector.run(stop))
        began = owner.clock.seconds
        await until(lambda: _waited(owner.clock.seconds - began, running), 20)
    finally:
        await told(redis, *allow)
    await until(lambda: _exact(world), 20)
    stop.set()
    await running
    assert await redis.hget(world.keys.headers[0], "state") == b"live"


async def _waited(seconds: float, running: "asyncio.Task[None]") -> None:
    """Long enough for several tries, of every kind that there is."""
    if running.done():
        running.result()
    if seconds < 30:
        raise NotReadyError(f"{seconds} s")


async def _exact(world: World) -> None:
    if await world.shown() != world.counted():
        raise NotReadyError("the view differs")


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "noeviction"])
async def test_a_redis_that_may_throw_users_away_is_refused_with_what_to_set(redis: Redis, policy: str) -> None:
    await told(redis, "CONFIG", "SET", "maxmemory-policy", policy)
    try:
        if policy == "noeviction":
            await check_eviction(redis)
        else:
            with pytest.raises(EvictionAllowed, match=f"maxmemory-policy {policy}.*config set maxmemory-policy noeviction"):
                await check_eviction(redis)
    finally:
        await told(redis, "CONFIG", "SET", "maxmemory-policy", "noeviction")


async def test_a_script_that_redis_forgot_between_two_batches_is_loaded_again(world: World, redis: Redis) -> None:
    owner = await world.owner(limit=2)
    for number in range(1, 30):
        world.put(follow(number, number, number % 5 + 1))
        if number % 3 == 0:
            await redis.script_flush()
            await owner.step()
    for number in range(1, 30):
        world.put(user(number, f"user{number}"))
    await redis.script_flush()
    await owner.level()
    await world.exact()
