"""Mode cache-invalidate: a real Kafka, PostgreSQL and Redis, the process of `viewgate invalidate`, and what becomes of entries."""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from loaders.cache_aside import CacheAsideLoader
from schema import layout
from schema.fields import Row
from schema.loader import Loader, Read
from schema.user import Users
from tests.faults.arranged import NAMES, follow, user
from tests.request.cached import SlowLoader, cached, settled
from tests.road import Road, open_road

ADA, BOB = user(1, "ada", "Ada"), user(2, "bob", "Bob")
COUNTS = ("username", "following_count", "follower_count")


@pytest.fixture
async def road(apache_kafka_at: Server, redis_at: Server, postgres_at: Server) -> AsyncIterator[Road]:
    async with open_road(apache_kafka_at, redis_at, postgres_at, partitions=2) as opened:
        yield opened


def publish(road: Road, op: str, before: Row | None, after: Row | None) -> None:
    road.publisher.publish(op, before, after, 1_700_000_000_000)


def reader(road: Road, source: Loader | None = None) -> CacheAsideLoader:
    return cached(road.redis, source or road.sql, None, "cache-invalidate", road.definition, ttl=3600, stale_while_revalidate=0, lease=60)


async def started(road: Road, said: Path) -> asyncio.subprocess.Process:
    """It has taken its partitions: what was never read before is forgotten by then."""
    process = await road.start("-m", "app", "invalidate", said=said)
    await until(partial(_committed, road), 60)
    return process


async def _committed(road: Road) -> None:
    """Raises NotReadyError until an entry that was put there by hand is gone, since nobody knows what was missed before."""
    if await road.redis.exists("user:cache-invalidate:{id:0}"):
        raise NotReadyError("it has not begun")


async def plant(road: Road) -> None:
    await road.redis.set("user:cache-invalidate:{id:0}", b"by hand")


async def rows(road: Road, *ids: str) -> Sequence[Sequence[bytes] | None]:
    reading = reader(road)
    found = (await reading.load([Read("id", one, COUNTS) for one in ids])).rows
    await settled(reading)
    return found


async def shows(road: Road, wanted: dict[str, Sequence[bytes]]) -> None:
    found = await rows(road, *wanted)
    if found != list(wanted.values()):
        raise NotReadyError(f"{found}")


async def test_a_change_is_in_the_next_answer_and_strangers_stay_cached(road: Road, tmp_path: Path) -> None:
    for row in (ADA, BOB, user(3, "cleo", "Cleo")):
        publish(road, "c", None, row)
    await road.sunk()
    await plant(road)
    await started(road, tmp_path / "said")
    assert await rows(road, "1", "2", "3") == [[b'"ada"', b"0", b"0"], [b'"bob"', b"0", b"0"], [b'"cleo"', b"0", b"0"]]
    cleo = await road.redis.get(layout.cache_key("User", "cache-invalidate", "id", "3"))
    publish(road, "c", None, follow(7, 1, 2))
    await road.sunk()
    await until(partial(shows, road, {"1": [b'"ada"', b"1", b"0"], "2": [b'"bob"', b"0", b"1"]}), 30)
    assert await road.redis.get(layout.cache_key("User", "cache-invalidate", "id", "3")) == cleo


async def test_an_entry_stays_until_the_tables_have_the_change(road: Road, tmp_path: Path) -> None:
    """Deleted any sooner, the old row would be read again and kept."""
    publish(road, "c", None, ADA)
    await road.sunk()
    await plant(road)
    await started(road, tmp_path / "said")
    assert await rows(road, "1") == [[b'"ada"', b"0", b"0"]]
    publish(road, "c", None, follow(7, 1, 2))
    road.publisher.flush()
    # no sink runs: what is read again now is what was there before, however often
    for _ in range(50):
        assert await rows(road, "1") == [[b'"ada"', b"0", b"0"]]
        await asyncio.sleep(0.02)
    await road.sunk()
    await until(partial(shows, road, {"1": [b'"ada"', b"1", b"0"]}), 30)


async def test_a_refill_that_read_before_the_change_is_not_kept(road: Road, tmp_path: Path) -> None:
    publish(road, "c", None, ADA)
    await road.sunk()
    await plant(road)
    await started(road, tmp_path / "said")
    slow = SlowLoader(road.sql)
    reading = reader(road, slow)
    request = asyncio.create_task(reading.load([Read("id", "1", COUNTS)]))
    await slow.asked.wait()
    lease = layout.lease_key(layout.cache_key("User", "cache-invalidate", "id", "1"))
    publish(road, "c", None, follow(7, 1, 2))
    await road.sunk()
    await until(partial(_gone, road, lease), 30)
    slow.go.set()
    assert (await request).rows == [[b'"ada"', b"0", b"0"]]
    await settled(reading)
    assert await rows(road, "1") == [[b'"ada"', b"1", b"0"]]


async def _gone(road: Road, key: str) -> None:
    if await road.redis.exists(key):
        raise NotReadyError(f"{key} is there")


async def test_names_move_at_once(road: Road, tmp_path: Path) -> None:
    publish(road, "c", None, ADA)
    await road.sunk()
    await plant(road)
    await started(road, tmp_path / "said")
    reading = reader(road)
    by_names = [Read("username", "ada", NAMES), Read("username", "eve", NAMES)]
    assert [row is not None for row in (await reading.load(by_names)).rows] == [True, False]
    await settled(reading)
    publish(road, "u", ADA, Users(**{name: getattr(ADA, name) for name in Users.__struct_fields__} | {"username": "eve"}))
    await road.sunk()

    async def moved() -> None:
        found = (await reader(road).load(by_names)).rows
        if [row is not None for row in found] != [False, True]:
            raise NotReadyError(f"{found}")

    await until(moved, 30)


async def test_what_happened_while_nobody_invalidated_is_made_good(road: Road, tmp_path: Path) -> None:
    publish(road, "c", None, ADA)
    await road.sunk()
    await plant(road)
    process = await started(road, tmp_path / "said")
    await rows(road, "1")
    process.send_signal(signal.SIGKILL)
    await process.wait()
    publish(road, "c", None, follow(7, 1, 2))
    await road.sunk()
    assert await rows(road, "1") == [[b'"ada"', b"0", b"0"]], "nobody has told it"
    await road.start("-m", "app", "invalidate", said=tmp_path / "said")
    await until(partial(shows, road, {"1": [b'"ada"', b"1", b"0"]}), 60)


async def test_a_first_start_forgets_what_was_kept_before(road: Road, tmp_path: Path) -> None:
    publish(road, "c", None, ADA)
    await road.sunk()
    await rows(road, "1")
    publish(road, "c", None, follow(7, 1, 2))
    await road.sunk()
    assert await rows(road, "1") == [[b'"ada"', b"0", b"0"]]
    await road.start("-m", "app", "invalidate", said=tmp_path / "said")
    await until(partial(shows, road, {"1": [b'"ada"', b"1", b"0"]}), 60)


async def test_redis_and_postgres_may_be_away_meanwhile(road: Road, tmp_path: Path) -> None:
    """Neither is stopped, since others use them: the addresses lead nowhere at first."""
    process = await road.start("-m", "app", "invalidate", said=tmp_path / "said", VIEWGATE_POSTGRES_URL="postgresql://127.0.0.1:1/none")
    await until(partial(_said, tmp_path / "said", "invalidation_waits"), 60)
    assert process.returncode is None
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 20) == 0


async def _said(file: Path, word: str) -> None:
    if word not in file.read_text():  # noqa: ASYNC240  # small
        raise NotReadyError(f"it has not said {word}")
