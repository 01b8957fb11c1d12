"""A second Redis kept from the view topic alone: random histories of faults on both sides, each healed and compared hash by hash."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from aiokafka.errors import KafkaError
from msgspec import json, structs
from redis.asyncio import Redis

from demo.servers.server import Server
from loaders.view import ViewLoader
from projectors import populate
from projectors.apply import RedisStore, StoreUnavailable
from projectors.building import WholeBuild
from projectors.generations import GenerationRefused, Generations
from projectors.owed import Owed
from projectors.reading import SourceChanged
from projectors.sweeping import sweep_strays
from projectors.view_topic import HEADER, Sent, Stamp, Wire, read
from schema import layout
from schema.definition import read_definition
from schema.generation import Generation
from schema.layout import Layout
from schema.loader import ViewNotReady
from schema.user import Users
from tests.faults.arranged import CHECKPOINT_SECONDS, DEFINITION, Owner, Tables, World, user
from tests.faults.copying import FAULTS, TOPIC, WINDOW_MS, Copying, Populating, Publishing, failing
from tests.faults.snapshots import Snapshot, dump, lose, restore
from tests.faults.stores import Crashed, Pause, go_on
from tests.message.shop import CustomerView

HISTORIES = 12
LENGTH = 40
OFTEN = ("produce", "produce", "step", "step", "publish", "publish", "populate", "populate")
RARE = ("fail_publishing", "fail_populating", "zombie", "twice", "fail_over", "fail_over_second", "snapshot", "compact", "empty", "restart")


def other(server: Server, number: int) -> Redis:
    """Another database of the server."""
    return Redis.from_url(f"{server.address.rpartition('/')[0]}/{number}")


@pytest.fixture
async def second(redis: Redis, redis_at: Server) -> AsyncIterator[Redis]:
    client = other(redis_at, 1)
    yield client
    await client.aclose()


@pytest.fixture
async def third(redis: Redis, redis_at: Server) -> AsyncIterator[Redis]:
    client = other(redis_at, 2)
    yield client
    await client.aclose()


class History:
    """A projector, two processes that publish, two that populate, and what happens to all of them and to both Redises."""

    def __init__(self, copying: Copying, owner: Owner, seed: int) -> None:
        self._rng, self._copying, self._owner = random.Random(seed), copying, owner
        self._tables = Tables(copying.world, self._rng)
        self._publishing: list[Publishing] = []
        self._populating: list[Populating] = []
        self._snapshots: list[Snapshot] = []
        self._second: list[Snapshot] = []
        self.told: list[str] = []

    async def run(self) -> None:
        self._publishing = [await self._copying.publishing() for _ in range(2)]
        self._populating = [self._populated() for _ in range(2)]
        for _ in range(LENGTH):
            operation = self._rng.choice(OFTEN * 2 + RARE)
            self.told.append(operation)
            await getattr(self, f"_{operation}")()

    async def heal(self) -> None:
        """Everybody goes on, then a compacted log is read from its beginning, and goes on being read."""
        await self._owner.level()
        await self._copying.world.exact()
        for populating in self._populating:
            # where two get into each other's way, what is told each second is what they go on by
            await self._copying.publish()
            await self._rounds(populating)
        await self._copying.equal()

    def _populated(self) -> Populating:
        return self._copying.populating(limit=self._rng.choice((1, 2, 5, 20)))

    async def _produce(self) -> None:
        for _ in range(self._rng.randint(1, 6)):
            self._tables.change()

    async def _step(self) -> None:
        self._owner.clock.seconds += self._rng.choice((0, CHECKPOINT_SECONDS))
        await self._owner.projector.run(_Rounds(2))

    async def _publish(self) -> None:
        await self._try_publishing(self._rng.randrange(2))

    async def _populate(self) -> None:
        for _ in range(self._rng.randint(1, 12)):
            await self._rounds(self._rng.choice(self._populating), 1)

    async def _try_publishing(self, place: int) -> None:
        """One that is shut out, or has lost its way, opens the topic anew."""
        publishing = self._publishing[place]
        publishing.clock.seconds += self._rng.choice((0, 1))
        try:
            await publishing.publisher.round()
        except StoreUnavailable:
            pass
        except (Crashed, KafkaError):
            self._publishing[place] = await self._copying.publishing()

    async def _rounds(self, populating: Populating, rounds: int = 2000) -> None:
        """As `Populate.run` goes on, until nothing comes; but one that crashed is another one."""
        for _ in range(rounds):
            try:
                await populating.populate.step()
            except StoreUnavailable:
                populating.populate._readings.clear()
            except Crashed:
                self._populating[self._populating.index(populating)] = self._populated()
                return
            if populating.log.quiet >= 3:
                return

    async def _fail_publishing(self) -> None:
        place = self._rng.randrange(2)
        publishing = self._publishing[place]
        pause = failing(self._rng.choice(FAULTS), self._rng.randint(1, 12))
        publishing.redis.pause = publishing.topic.pause = pause
        await self._try_publishing(place)
        publishing.redis.pause = publishing.topic.pause = go_on

    async def _fail_populating(self) -> None:
        populating = self._rng.choice(self._populating)
        populating.redis.pause = failing(self._rng.choice(FAULTS[:3]), self._rng.randint(1, 8))
        await self._rounds(populating, 4)
        populating.redis.pause = go_on

    async def _zombie(self) -> None:
        """One that publishes stands still in the middle, and goes on when others have published, and the view has changed."""

        async def meanwhile() -> None:
            await self._produce()
            await self._step()
            await self._try_publishing(1 - place)

        place = self._rng.randrange(2)
        publishing = self._publishing[place]
        if self._rng.random() < 0.7:
            # it is the other that was shut out, as long as this one is not
            self._publishing[place] = publishing = await self._copying.publishing()
        publishing.redis.pause = publishing.topic.pause = self._once(meanwhile)
        await self._try_publishing(place)
        publishing.redis.pause = publishing.topic.pause = go_on

    async def _twice(self) -> None:
        """Two populate the same Redis, one in the middle of the other."""

        async def meanwhile() -> None:
            await self._rounds(populating[1], 4)

        populating = self._rng.sample(self._populating, 2)
        populating[0].redis.pause = self._once(meanwhile)
        await self._rounds(populating[0], 4)
        populating[0].redis.pause = go_on

    def _once(self, meanwhile: Callable[[], Awaitable[None]]) -> Pause:
        left = self._rng.randint(1, 14)

        async def pause(_: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                await meanwhile()

        return pause

    async def _snapshot(self) -> None:
        world = self._copying.world
        shard = self._rng.choice((None, *range(world.shards)))
        self._snapshots.append(await dump(world.redis, world.keys, shard))
        self._second.append(await dump(self._copying.second, world.keys, shard))

    async def _fail_over(self) -> None:
        if self._snapshots:
            await restore(self._copying.world.redis, self._rng.choice(self._snapshots))

    async def _fail_over_second(self) -> None:
        if self._second:
            await restore(self._copying.second, self._rng.choice(self._second))

    async def _compact(self) -> None:
        # what is older than the populated copies are; tombstones are kept for longer than any of them is away
        self._copying.log.compact()

    async def _empty(self) -> None:
        await self._copying.second.flushdb()

    async def _restart(self) -> None:
        self._populating[self._rng.randrange(2)] = self._populated()


class _Rounds(asyncio.Event):
    def __init__(self, rounds: int) -> None:
        super().__init__()
        self._left = rounds

    def is_set(self) -> bool:
        self._left -= 1
        return self._left < 0


async def copied(redis: Redis, second: Redis, **how: Any) -> tuple[Copying, Owner]:
    """A live view without anything in it, published by nobody yet."""
    world = World(redis, **how)
    await world.open()
    return Copying(world, second), await world.owner()


@pytest.mark.parametrize("first", range(0, 2 * HISTORIES, HISTORIES))
async def test_after_any_history_the_second_view_is_the_first_once_healed(redis: Redis, second: Redis, third: Redis, first: int) -> None:
    for seed in range(first, first + HISTORIES):
        await redis.flushall()
        copying, owner = await copied(redis, second, partitions=1)
        history = History(copying, owner, seed)
        try:
            await history.run()
            await history.heal()
            assert {place: versions for place, versions in copying.log.versions().items() if versions != sorted(versions)} == {}
            copying.log.compact(tombstones=True)
            await copying.populating(third, limit=7).level()
            await copying.equal(third)
        except BaseException as error:
            error.add_note(f"seed {seed}: {' '.join(history.told)}")
            raise
        await sweep_strays(second, "user")
        assert len(await copying.swept()) <= copying.world.shards


async def settled(copying: Copying) -> Populating:
    """Everything published, and one that goes on populating."""
    await copying.publish()
    populating = copying.populating()
    await populating.level()
    await copying.equal()
    return populating


async def test_rows_of_a_log_that_is_not_read_to_its_end_never_come_with_watermarks(redis: Redis, second: Redis) -> None:
    copying, owner = await copied(redis, second)
    world, keys = copying.world, copying.world.keys
    world.put(user(1, "ada"))
    await owner.level()
    await copying.publish()
    world.put(user(1, "lady"))
    await owner.level()
    await copying.publish()
    # the first row of user 1 is gone, and what says that the shard has it is not
    shard = world.shard_of(1)
    place = copying.log.partitions[shard % copying.partitions]
    rows = [record for record in copying.log.records[place] if record.key == b'{"id":"1"}']
    copying.log.records[place].remove(rows[0])
    populating = copying.populating(limit=1)
    for _ in range(rows[1].offset):
        await populating.populate.step()
        header: dict[bytes, bytes] = await second.hgetall(keys.headers[shard])  # type: ignore[assignment]  # this client answers bytes
        assert [field for field in header if field.startswith(b"users:")] == []
    await populating.level()
    await copying.equal()


async def test_readers_see_nothing_before_the_whole_is_there_and_then_all(redis: Redis, second: Redis) -> None:
    copying, owner = await copied(redis, second)
    for key in range(40):
        copying.world.put(user(key, f"name{key}"))
    await owner.level()
    await copying.publish()
    populating, generations = copying.populating(limit=1), Generations(second, DEFINITION)
    while await generations.live() is None:
        await populating.populate.step()
        assert populating.log.quiet < 5
    assert await copying.world.shown(ViewLoader(second, DEFINITION)) == copying.world.counted()


async def test_no_generation_is_shown_while_one_partition_has_not_told_that_it_is_whole(redis: Redis, second: Redis) -> None:
    copying, owner = await copied(redis, second)
    copying.world.put(user(1, "ada"))
    await owner.level()
    await copying.publish()
    last = copying.log.partitions[-1]
    copying.log.records[last] = [record for record in copying.log.records[last] if read(record).stamp.shard >= 0]
    populating = copying.populating()
    await populating.level()
    assert await Generations(second, DEFINITION).live() is None
    await copying.publish()
    await populating.level()
    await copying.equal()


async def test_a_shard_that_the_second_lost_is_not_ready_until_it_is_whole_again(redis: Redis, second: Redis) -> None:
    copying, owner = await copied(redis, second)
    world = copying.world
    for key in range(12):
        world.put(user(key, f"name{key}"))
    await owner.level()
    await settled(copying)
    lost = world.shard_of(1)
    await lose(second, world.keys, lost)
    copying.log.compact()
    populating, waited = copying.populating(limit=1), 0
    reader = ViewLoader(second, DEFINITION)
    while populating.log.quiet < 3:
        await populating.populate.step()
        try:
            assert await world.shown(reader) == world.counted()
        except ViewNotReady:
            waited += 1
    assert waited > 3
    await copying.equal()


async def test_an_older_version_that_comes_late_changes_nothing(redis: Redis, second: Redis) -> None:
    copying, owner = await copied(redis, second)
    world = copying.world
    world.put(user(1, "ada"))
    await owner.level()
    await copying.publish()
    place = copying.log.partitions[world.shard_of(1) % copying.partitions]
    old = next(record for record in copying.log.records[place] if record.key == b'{"id":"1"}')
    world.put(user(1, "lady"))
    await owner.level()
    populating = await settled(copying)
    copying.log.write([Sent(place.number, old.key or b"", old.value, old.headers)])
    await populating.level()
    await copying.equal()


async def test_a_generation_that_is_promoted_takes_the_place_of_the_one_before(
    redis: Redis, second: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(populate, "OLDER_US", 0)
    copying, owner = await copied(redis, second)
    world = copying.world
    world.put(user(1, "ada"))
    world.put(user(3, "eve"))
    await owner.level()
    populating = await settled(copying)
    generations = Generations(redis, DEFINITION)
    bounds = {partition: (0, end) for partition, end in world.topics.ends.items()}
    start = dict.fromkeys(world.topics.partitions, 0)
    opened = await generations.add(store_of(redis), bounds, world.topics.ids, start, shards=world.shards)
    assert opened is not None
    await Owed(redis, DEFINITION, await copying.live()).end()
    store = store_of(redis)(opened)
    record = await generations.opened(opened, store)
    building = world._owner(WholeBuild(generations, store, record), store, 7, 0)
    await building.level()
    assert await generations.promote(record, store, await store.headers())
    world.put(user(2, "bob"))
    await building.level()
    # a row that the second generation never had: compaction keeps what the first one said of it
    ghost = Wire(await copying.live(), copying.partitions).hash(0, "s", 1, "user:g2.0:{x}:77", {b"0": b"ghost"})
    copying.log.write([ghost._replace(headers=[(HEADER, json.encode(structs.replace(OLD, definition=DEFINITION.fingerprint)))])])
    await copying.publish()
    await populating.level()
    await copying.equal()
    await sweep_strays(second, "user")
    assert {name.split(".")[0] for name in await copying.swept()} == {"g2"}
    copying.log.compact()
    await lose(second, Layout("User", "g2", world.shards), 0)
    again = copying.populating(limit=1)
    await again.level()
    assert {one.name for one in await Generations(second, DEFINITION).all()} == {"g1", "g2"}
    await copying.publish()
    await again.level()
    await copying.equal()
    await second.flushdb()
    await copying.publish()
    await again.level()
    await copying.equal()


async def test_a_topic_made_anew_is_filled_again_and_the_second_follows_without_ghosts(redis: Redis, second: Redis) -> None:
    copying, owner = await copied(redis, second)
    for key in range(6):
        copying.world.put(user(key, f"name{key}"))
    await owner.level()
    await settled(copying)
    copying.log.delete()
    copying.log.ids[TOPIC] = "second"
    copying.world.delete(Users, 3)
    await owner.level()
    await settled(copying)


async def test_one_that_was_away_for_longer_than_tombstones_are_kept_keeps_no_ghosts(redis: Redis, second: Redis) -> None:
    copying, owner = await copied(redis, second)
    for key in range(6):
        copying.world.put(user(key, f"name{key}"))
    await owner.level()
    await settled(copying)
    copying.world.delete(Users, 3)
    await owner.level()
    await copying.publish()
    copying.log.compact(tombstones=True)
    populating = copying.populating(limit=2)
    populating.clock.seconds = time.time() + 2 * WINDOW_MS / 1000
    while populating.log.quiet < 3:
        await populating.populate.step()
        # what is being told anew is no stray, nor is what tells of it
        assert await sweep_strays(second, "user") == 0
        for name in copying.world.keys.headers:
            header: dict[bytes, bytes] = await second.hgetall(name)  # type: ignore[assignment]  # this client answers bytes
            assert layout.OWED not in header or not any(field.startswith(b"users:") for field in header)
    await copying.equal()


async def test_a_redis_that_a_projector_keeps_is_not_populated(redis: Redis, second: Redis) -> None:
    copying, owner = await copied(redis, second)
    copying.world.put(user(1, "ada"))
    await owner.level()
    await copying.publish()
    with pytest.raises(GenerationRefused, match=r"g1 in this Redis is kept by `viewgate project`: VIEWGATE_REDIS_URL must name another"):
        await copying.populating(redis).level()
    await copying.world.exact()


async def test_a_projector_does_not_keep_a_redis_that_is_populated(redis: Redis, second: Redis) -> None:
    copying, owner = await copied(redis, second)
    await owner.level()
    await settled(copying)
    with pytest.raises(GenerationRefused, match="g1 in this Redis is filled from a view topic"):
        Generations(second, DEFINITION).check(await copying.live(second))


async def test_another_definition_and_other_partitions_are_told_with_what_to_do(redis: Redis, second: Redis) -> None:
    copying, owner = await copied(redis, second)
    await owner.level()
    await copying.publish()
    other_definition = replace(copying.world, definition=read_definition(CustomerView))
    populating = replace(copying, world=other_definition)
    populating.log = copying.log
    with pytest.raises(GenerationRefused, match=r"generation g1 of another definition of Customer .*: run the version of viewgate"):
        await populating.populating().level()
    more = replace(copying, partitions=2)
    more.log.records |= {p: copying.log.records[p] for p in more.log.partitions}
    more.log.ends |= {p: copying.log.ends[p] for p in more.log.partitions}
    with pytest.raises(SourceChanged, match="partitions were added to topic"):
        await more.populating().level()


OLD = Stamp("g1", "s", 0, 4, "", 1)


def store_of(redis: Redis) -> Callable[[Generation], RedisStore]:
    return lambda record: RedisStore.of(redis, DEFINITION, record)
