"""Change data capture, exactly once: eight services write at once, and the worker is killed in the midst of it."""

import asyncio

import asyncpg

from demo.servers.process import NotReadyError, until
from tests.cdc.captured import SINCE, Captured
from tests.cdc.writers import USERS, WRITERS, Writer

KILLS = 3


async def test_every_field_equals_sql_after_eight_writers_and_kills_of_the_worker(road: Captured) -> None:
    users = [(number, f"user{number}", SINCE) for number in range(USERS)]
    await road.pool.copy_records_to_table("users", records=users, columns=["user_id", "username", "joined_at"])
    await road.capture()
    await road.project()
    async with asyncpg.create_pool(road.settings.postgres_url, min_size=WRITERS, max_size=WRITERS) as pool:
        writers, stop = [Writer(pool, number) for number in range(WRITERS)], asyncio.Event()
        running = [asyncio.create_task(writer.run(stop)) for writer in writers]
        for kill in range(1, KILLS + 1):
            await until(lambda: _done(writers, kill * 2_000), 60)  # noqa: B023  # it is awaited here
            await road.connect.kill()
            await road.connect.restart()
        stop.set()
        await asyncio.gather(*running)
    await road.captured()
    assert await road.agree() == USERS


async def _done(writers: list[Writer], transactions: int) -> None:
    if (done := sum(writer.transactions for writer in writers)) < transactions:
        raise NotReadyError(f"{done} transactions")
