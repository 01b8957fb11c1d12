"""What change data capture can lose: its slot, its offsets, the database's last hours. Nothing is left out without a word."""

import pytest

from demo.servers.process import ServerError
from tests.cdc.captured import Captured
from tests.cdc.test_snapshots import USERS, filled


async def test_a_slot_that_was_dropped_stops_the_connector_and_a_new_one_builds_the_view_anew(road: Captured) -> None:
    await filled(road)
    await road.capture()
    projector = await road.project()
    assert await road.agree() == USERS
    projector.terminate()
    await projector.wait()
    await road.connect.remove(road.name)
    await road.drop_slot()
    await road.pool.execute("DELETE FROM follows WHERE follow_id % 2 = 0")
    with pytest.raises(ServerError, match="no longer available on the server"):
        await road.capture()
    await road.connect.forget(road.name)
    await road.capture()
    await road.pool.execute("UPDATE follows SET followee_id = 1 WHERE follow_id < 10")
    await road.captured()
    await road.rebuilt("--from", "snapshot", said=road.said)
    assert await road.agree() == USERS
