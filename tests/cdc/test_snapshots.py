"""Snapshots of a connector in the topics: the first one builds the view, a later one is never added to it, a TRUNCATE stops it."""

import asyncio

from tests.cdc.captured import SINCE, Captured

USERS = 50


async def filled(road: Captured) -> None:
    """Rows in every table: of one without rows a snapshot says nothing."""
    for number in range(USERS):
        await road.user(number)
        await road.follow(number, number, number // 7)
        await road.pool.execute("INSERT INTO tweets VALUES ($1, $2, 'x', $3)", number, number // 5, SINCE)
        await road.pool.execute("INSERT INTO likes VALUES ($1, $2, $1, $3)", number, number // 3, SINCE)


async def test_the_first_snapshot_builds_the_view_and_changes_go_on_from_it(road: Captured) -> None:
    await filled(road)
    await road.capture()
    await road.project()
    assert await road.agree() == USERS
    await road.pool.execute("DELETE FROM follows WHERE follow_id % 2 = 0")
    await road.pool.execute("UPDATE users SET name = 'N' WHERE user_id % 3 = 0")
    await road.captured()
    assert await road.agree() == USERS


async def test_a_second_snapshot_is_added_to_nothing_and_stops_the_projector(road: Captured) -> None:
    await filled(road)
    await road.capture()
    projector = await road.project()
    assert await road.agree() == USERS
    projector.terminate()
    await projector.wait()
    # its offsets are lost, its slot is there: the changes meanwhile are in the snapshot, and come after it once more
    await road.connect.forget(road.name)
    await road.pool.execute("UPDATE follows SET followee_id = 1 WHERE follow_id < 10")
    await road.capture()
    await road.stops("Run `viewgate rebuild --from snapshot`, or `--from sql`.")


async def test_a_truncate_stops_the_projector(road: Captured) -> None:
    await filled(road)
    await road.capture()
    projector = await road.project()
    assert await road.agree() == USERS
    await road.pool.execute("TRUNCATE follows")
    async with asyncio.timeout(30):
        assert await projector.wait() == 1
    await road.stops("was truncated at ")
