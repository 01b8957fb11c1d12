"""An at-least-once connector on a real Redis: it sends stretches again while projectors die; and what must stop a projector."""

import random
from dataclasses import replace

import msgspec
import pytest
from redis.asyncio import Redis

from projectors.reading import SourceChanged
from schema.definition import read_definition
from schema.fields import Row
from schema.positions import Partition
from schema.user import Follows, Likes, Tweets, Users, UserView
from tests.faults.arranged import World, follow, user
from tests.faults.test_histories import FAULTS, OFTEN, History
from tests.simulation.connector import Connector

HISTORIES, LENGTH = 24, 26


class Captured(World):
    """Its rows reach the topics through an at-least-once connector."""

    def __post_init__(self) -> None:
        World.__post_init__(self)
        self.connector, self.rng = Connector(self.topics), random.Random(3)

    def _publish(self, op: str, key: int, before: Row | None, after: Row | None, gap: int) -> Partition:
        return self.connector.send(op, before, after, self.rng)

    def append(self, sequence: str, row: Row, ts_ms: int) -> None:
        """A change as no connector in order sends it."""
        value = {"op": "c", "after": row, "ts_ms": ts_ms, "source": {"sequence": sequence, "ts_ms": ts_ms}}
        self.topics.append(type(row).source.topic, b"0", msgspec.json.encode(value))


@pytest.fixture(autouse=True)
def paired(monkeypatch: pytest.MonkeyPatch) -> None:
    """All sources of the view are of position `debezium`."""
    for row in (Users, Tweets, Follows, Likes):
        monkeypatch.setattr(row, "source", replace(row.source, position="debezium"))


async def captured(redis: Redis) -> Captured:
    await redis.flushall()
    world = Captured(redis, partitions=1, definition=read_definition(UserView))
    await world.open()
    return world


class SentAgain(History):
    """The histories of test_histories.py, in which the connector is killed too."""

    def __init__(self, world: Captured, seed: int) -> None:
        super().__init__(world, seed)
        self._connector = world.connector

    async def run(self) -> None:
        self._owners = [await self._owner(), await self._owner()]
        for _ in range(LENGTH):
            operation = self._rng.choice((*OFTEN, *FAULTS, "again", "again", "again"))
            self.told.append(operation)
            await getattr(self, f"_{operation}")()

    async def _again(self) -> None:
        self._connector.send_again(self._rng.randint(1, 12))


@pytest.mark.parametrize("first", range(0, HISTORIES, HISTORIES // 2))
async def test_any_history_in_which_stretches_come_again_is_exact_once_healed(redis: Redis, first: int) -> None:
    dropped = 0
    for seed in range(first, first + HISTORIES // 2):
        history = SentAgain(await captured(redis), seed)
        try:
            await history.run()
            dropped += (await history.heal())[0]
        except BaseException as error:
            error.add_note(f"seed {seed}: {' '.join(history.told)}")
            raise
    # a run without them has not looked where the errors would be
    assert dropped > 50


async def test_what_came_again_is_dropped_and_told_to_the_observer(redis: Redis) -> None:
    world = await captured(redis)
    for key in range(5):
        world.put(follow(key, 1, 2))
    world.put(user(1, "one"))
    world.put(user(2, "two"))
    owner = await world.owner()
    await owner.level()
    sent = sum(map(len, world.topics.records.values()))
    world.connector.send_again(100)
    again = sum(map(len, world.topics.records.values())) - sent
    await owner.level()
    await world.exact()
    assert owner.tally.dropped == again > 0


async def test_a_database_that_went_back_to_an_older_lsn_stops_the_projector_with_the_command(redis: Redis) -> None:
    world = await captured(redis)
    world.append('["900","950"]', follow(1, 1, 2), 1000)
    owner = await world.owner()
    await owner.level()
    world.append('["700","800"]', follow(2, 1, 2), 2000)
    with pytest.raises(SourceChanged, match=r"follows:0: .*restored, or failed over, to an older LSN\. Run `viewgate rebuild`"):
        await owner.level()
    # and a projector that is started then finds it too
    with pytest.raises(SourceChanged, match="to an older LSN"):
        await (await world.owner()).level()


async def test_a_connector_that_lost_its_offsets_stops_the_projector_with_the_command(redis: Redis) -> None:
    world = await captured(redis)
    world.append('["900","950"]', follow(1, 1, 2), 1000)
    owner = await world.owner()
    await owner.level()
    world.append('[null,"800"]', follow(2, 1, 2), 2000)
    with pytest.raises(SourceChanged, match=r"it has lost its offsets\. Run `viewgate rebuild`"):
        await owner.level()


async def test_retention_that_has_passed_a_quiet_topic_stops_nobody_until_its_last_changes_are_sent_again(redis: Redis) -> None:
    world = await captured(redis)
    world.put(user(1, "one"))
    world.put(user(2, "two"))
    world.put(follow(1, 1, 2))
    await (await world.owner()).level()
    world.topics.delete_all()
    world.connector.move(world.rng)
    world.put(follow(2, 1, 2))
    owner = await world.owner()
    await owner.level()
    await world.exact()
    world.topics.delete_all()
    owner = await world.owner()
    world.connector.send_again(1)
    with pytest.raises(SourceChanged, match=r"follows:0: .* and which of them retention has deleted\. Run `viewgate rebuild`"):
        await owner.level()
