"""A connector's rows `r`: they build a generation from its first record on, and are added to nothing else."""

import pytest
from redis.asyncio import Redis

from demo.publish import envelope
from projectors.building import WholeBuild
from projectors.reading import SourceChanged
from tests.faults.arranged import World, follow, user


def snapshot(world: World) -> None:
    """Every row once more, as a connector sends it."""
    for kind, rows in world.rows.items():
        for key, row in rows.items():
            world.topics.append(kind.source.topic, str(key).encode(), envelope("r", None, row, 1))


async def told_by_a_snapshot(redis: Redis, rows: int = 20) -> World:
    """Topics that begin with a snapshot, of rows that nothing else tells of."""
    world = World(redis)
    for number in range(rows):
        world.put(user(number, f"user{number}"))
        world.put(follow(number, number, number % 3))
    for partition in world.topics.partitions:
        world.topics.records[partition].clear()
        world.topics.ends[partition] = 0
    snapshot(world)
    return world


@pytest.mark.parametrize("steps", range(1, 8))
async def test_a_snapshot_at_the_beginning_is_counted_also_by_one_who_goes_on_in_the_middle_of_it(redis: Redis, steps: int) -> None:
    world = await told_by_a_snapshot(redis)
    await world.begin()
    await (await world.owner(limit=2)).step(steps)
    await (await world.owner(limit=3)).level()
    await world.exact()
    world.put(user(1, "renamed"))
    await (await world.owner()).level()
    await world.exact()


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
async def test_a_snapshot_after_changes_is_not_added_to_a_generation_that_is_being_built(redis: Redis, steps: int) -> None:
    world = World(redis)
    for number in range(12):
        world.put(user(number, f"user{number}"))
    snapshot(world)
    await world.begin()
    await (await world.owner(limit=2)).step(steps)
    for _ in range(2):
        with pytest.raises(SourceChanged, match="--from snapshot"):
            await (await world.owner(limit=2)).level()
    assert not await redis.exists("{user}:live")


async def test_a_batch_of_a_snapshot_asks_once_whether_its_generation_is_promoted(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    world = await told_by_a_snapshot(redis, rows=200)
    await world.begin()
    settle, asked = WholeBuild.settle, 0

    async def counted(build: WholeBuild) -> None:
        nonlocal asked
        asked += 1
        await settle(build)

    monkeypatch.setattr(WholeBuild, "settle", counted)
    await (await world.owner(limit=1000)).level()
    await world.exact()
    # it was asked for each of the 400 rows once
    assert 0 < asked < 40
