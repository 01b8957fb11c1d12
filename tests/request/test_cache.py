"""The modes with a cache: how often the source is asked, by whom, and what is answered meanwhile."""

import asyncio
import random
from functools import partial

import pytest
from redis.asyncio import BlockingConnectionPool, Redis

from app import server
from app.clients import open_clients
from app.settings import Settings
from app.telemetry import GatewayMetrics
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from loaders import cache_policy
from loaders.cache import Entry, now_ms
from loaders.cache_aside import CacheAsideLoader
from loaders.cache_policy import Policy
from schema import layout
from schema.loader import Read, Rows, SourceUnavailable
from tests.request.arranged import DEFINITION, USERS, MemoryLoader
from tests.request.cached import ADA, ADAS, Counts, SlowLoader, age, cached, entry, keep, key, settled

pytestmark = pytest.mark.servers

NOBODY = Read("id", "99", ("username",))
RENAMED = MemoryLoader({"1": USERS[0] | {"username": "eve"}})


async def gone(redis: Redis, name: str) -> None:
    if await redis.exists(name):
        raise NotReadyError(f"{name} is there")


async def test_five_hundred_requests_that_miss_the_same_row_ask_the_source_once(redis: Redis, redis_at: Server) -> None:
    source = MemoryLoader()
    slow, tally = SlowLoader(source), Counts()
    reading = cached(redis, slow, tally)
    requests = [asyncio.create_task(reading.load([ADA])) for _ in range(500)]
    await slow.asked.wait()
    slow.go.set()
    assert [answer.rows for answer in await asyncio.gather(*requests)] == [[ADAS]] * 500
    await settled(reading)
    assert (await reading.load([ADA])).rows == [ADAS]
    assert (len(source.loads), tally.of, tally.refills) == (1, {"hit": 1, "shared": 499, "miss": 1}, 1)


async def test_five_hundred_requests_of_ten_processes_ask_the_source_once(redis: Redis) -> None:
    source, tally = MemoryLoader(), Counts()
    slow = SlowLoader(source)
    processes = [cached(redis, slow, tally, lease=60) for _ in range(10)]
    requests = [asyncio.create_task(reading.load([ADA])) for reading in processes for _ in range(50)]
    await slow.asked.wait()
    slow.go.set()
    assert [answer.rows for answer in await asyncio.gather(*requests)] == [[ADAS]] * 500
    await settled(*processes)
    assert len(source.loads) == 1
    assert tally.of["miss"] == 1
    assert tally.of["waited"] + tally.of["hit"] == 9


async def test_all_that_a_request_lacks_is_one_load_of_the_source(redis: Redis) -> None:
    source = MemoryLoader()
    reads = [Read("id", stored["id"], ("username",)) for stored in USERS]
    await keep(redis, reads[0], source=source)
    await cached(redis, source).load(reads)
    assert [[read.value for read in load] for load in source.loads] == [["1"], [stored["id"] for stored in USERS[1:]]]


async def test_who_died_while_refilling_is_waited_for_no_longer_than_the_lease(redis: Redis) -> None:
    dead = SlowLoader(MemoryLoader())
    asking = asyncio.create_task(cached(redis, dead, lease=0.3).load([ADA]))
    await dead.asked.wait()
    source = MemoryLoader()
    living = cached(redis, source)
    assert (await living.load([ADA])).rows == [ADAS]
    assert len(source.loads) == 1
    asking.cancel()


async def test_where_another_process_is_slow_what_is_stale_is_answered(redis: Redis) -> None:
    await keep(redis, ADA)
    await age(redis, "id", "1", 100)
    slow = SlowLoader(RENAMED)
    other = asyncio.create_task(cached(redis, slow, lease=30).load([ADA]))
    await slow.asked.wait()
    source, tally = MemoryLoader(), Counts()
    assert (await cached(redis, source, tally).load([ADA])).rows == [ADAS]
    assert source.loads == []
    slow.go.set()
    assert (await other).rows == [[b'"eve"', b"3"]]


async def test_what_was_read_before_a_write_is_not_kept_after_it(redis: Redis) -> None:
    """As `viewgate invalidate` deletes."""
    slow = SlowLoader(MemoryLoader())
    reading = cached(redis, slow)
    request = asyncio.create_task(reading.load([ADA]))
    await slow.asked.wait()
    await redis.unlink(key("id", "1"), layout.lease_key(key("id", "1")))
    later = SlowLoader(RENAMED)
    after = cached(redis, later)
    second = asyncio.create_task(after.load([ADA]))
    await later.asked.wait()
    slow.go.set()
    assert (await request).rows == [ADAS]
    await settled(reading)
    assert not await redis.exists(key("id", "1"))
    assert await redis.exists(layout.lease_key(key("id", "1"))), "the lease of who reads now is none of the first one's"
    later.go.set()
    assert (await second).rows == [[b'"eve"', b"3"]]
    await settled(after)
    assert (await cached(redis, MemoryLoader()).load([ADA])).rows == [[b'"eve"', b"3"]]


async def test_a_row_that_is_about_to_be_stale_is_asked_for_once_by_nobody_who_waits(redis: Redis) -> None:
    await keep(redis, ADA)
    await age(redis, "id", "1", 1, took_ms=1)
    slow, tally = SlowLoader(RENAMED), Counts()
    eager = [cached(redis, slow, tally, early=1e12, lease=60) for _ in range(3)]
    loads = len(RENAMED.loads)
    for reading in eager * 3:
        assert (await reading.load([ADA])).rows == [ADAS]
    slow.go.set()
    await settled(*eager)
    assert (await cached(redis, MemoryLoader()).load([ADA])).rows == [[b'"eve"', b"3"]]
    assert (len(RENAMED.loads) - loads, tally.of["hit"]) == (1, 9)


async def test_who_would_refresh_what_has_changed_meanwhile_lets_it_be(redis: Redis) -> None:
    await keep(redis, ADA)
    seen = await entry(redis, "id", "1")
    source = MemoryLoader()
    for change in (redis.delete(key("id", "1")), keep(redis, ADA)):
        await change
        await cached(redis, source)._refresh({("id", "1"): seen})
        assert not await redis.exists(layout.lease_key(key("id", "1")))
    assert source.loads == []


def test_the_longer_a_row_takes_and_the_nearer_its_end_the_likelier_it_is_asked_for_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_policy, "random", random.Random(7))

    def share(policy: Policy, took_ms: float, left_ms: int) -> float:
        kept = Entry("", 0, 100_000 + left_ms, took_ms, [])
        return sum(policy.is_due(kept, 100_000) for _ in range(4_000)) / 4_000

    # 1 - exp would be its distribution: exp(-left / took)
    assert share(Policy(), 100, 50) == pytest.approx(0.607, abs=0.03)
    assert share(Policy(), 100, 200) == pytest.approx(0.135, abs=0.03)
    assert share(Policy(early=2.0), 100, 200) == pytest.approx(0.368, abs=0.03)
    assert share(Policy(), 1, 200) == 0
    assert share(Policy(early=0.0), 1e9, 1) == 0
    assert share(Policy(early=0.0), 0, 0) == 1


async def test_that_a_row_is_unknown_is_kept_for_a_shorter_time(redis: Redis) -> None:
    source = MemoryLoader()
    reading = cached(redis, source, unknown=5, stale_while_revalidate=0)
    for _ in range(3):
        assert (await reading.load([NOBODY, Read("username", "nobody", ("id",))])).rows == [None, None]
        await settled(reading)
    assert len(source.loads) == 2, "once by its id, once by its name"
    assert 4_000 < (await entry(redis, "id", "99")).fresh_until_ms - now_ms() <= 5_500
    await age(redis, "id", "99", 6)
    source.rows = {"99": USERS[0] | {"id": "99"}}
    assert (await reading.load([NOBODY])).rows == [[b'"ada"']]


async def test_what_is_just_stale_is_answered_at_once_and_asked_for_by_one(redis: Redis) -> None:
    await keep(redis, ADA, ttl=20)
    await age(redis, "id", "1", 24)
    slow, tally = SlowLoader(RENAMED), Counts()
    processes = [cached(redis, slow, tally, lease=60) for _ in range(3)]
    loads = len(RENAMED.loads)
    for reading in processes * 3:
        assert (await reading.load([ADA])).rows == [ADAS]
    assert tally.of == {"stale": 9}
    slow.go.set()
    await settled(*processes)
    assert len(RENAMED.loads) == loads + 1
    assert (await processes[0].load([ADA])).rows == [[b'"eve"', b"3"]]


async def test_what_is_long_stale_is_answered_only_where_the_source_fails(redis: Redis) -> None:
    source, tally = MemoryLoader(error=SourceUnavailable("away")), Counts()
    await keep(redis, ADA, ttl=60, stale_if_error=300)
    await age(redis, "id", "1", 200)
    reading = cached(redis, source, tally)
    answer = await reading.load([ADA])
    assert answer.rows == [ADAS]
    assert now_ms() - answer.as_of_ms >= 200_000
    assert (tally.of["miss"], tally.of["stale"]) == (1, 1)
    await settled(reading)
    assert not await redis.exists(layout.lease_key(key("id", "1"))), "another may try at once"
    source.error = None
    assert (await cached(redis, RENAMED).load([ADA])).rows == [[b'"eve"', b"3"]]
    await age(redis, "id", "1", 500)
    source.error = SourceUnavailable("away")
    with pytest.raises(SourceUnavailable):
        await reading.load([ADA])


async def test_an_entry_goes_by_itself_when_nothing_may_be_answered_with_it(redis: Redis) -> None:
    await keep(redis, ADA, ttl=0.05, stale_if_error=0, stale_while_revalidate=0.1)
    await until(partial(gone, redis, key("id", "1")), 10)
    assert not await redis.exists(key("id", "1"))


async def test_a_request_that_is_cancelled_does_not_cancel_those_that_wait_with_it(redis: Redis) -> None:
    slow = SlowLoader(MemoryLoader())
    reading = cached(redis, slow)
    first, second = asyncio.create_task(reading.load([ADA])), asyncio.create_task(reading.load([ADA]))
    await slow.asked.wait()
    first.cancel()
    slow.go.set()
    assert (await second).rows == [ADAS]
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_row_that_is_kept_does_not_wait_for_one_that_is_not(redis: Redis) -> None:
    await keep(redis, ADA)
    slow = SlowLoader(MemoryLoader())
    reading = cached(redis, slow)
    both = asyncio.create_task(reading.load([ADA, Read("id", "2", ("username",))]))
    await slow.asked.wait()
    assert (await reading.load([ADA])).rows == [ADAS]
    assert not both.done()
    slow.go.set()
    assert (await both).rows == [ADAS, [b'"bob"']]


async def test_what_is_kept_is_found_by_id_by_name_and_field_by_field(redis: Redis) -> None:
    source = MemoryLoader()
    by_name = Read("username", "ada", ("id", "like_count"))
    reading = cached(redis, source)
    assert (await reading.load([by_name])).rows == [[b'"1"', b"1"]]
    await settled(reading)
    assert (await reading.load([by_name, ADA, Read("id", "1", ())])).rows == [[b'"1"', b"1"], ADAS, []]
    assert len(source.loads) == 2, "its id, and by that its row"


async def test_a_name_that_has_moved_on_is_looked_up_again(redis: Redis) -> None:
    await keep(redis, Read("username", "ada", ()))
    await redis.delete(key("id", "1"))
    renamed = MemoryLoader({"1": USERS[0] | {"username": "eve"}, "9": USERS[0] | {"id": "9"}})
    reading = cached(redis, renamed)
    await reading.load([Read("id", "1", ())])
    await settled(reading)
    assert (await reading.load([Read("username", "ada", ("id",))])).rows == [[b'"9"']]


async def test_a_row_that_is_older_than_its_new_name_is_read_again(redis: Redis) -> None:
    await keep(redis, ADA)
    reading = cached(redis, RENAMED)
    assert (await reading.load([Read("username", "eve", ("id",))])).rows == [[b'"1"']]
    assert (await reading.load([Read("username", "ada", ("id",))])).rows == [None]


async def test_rows_that_were_read_together_do_not_go_together(redis: Redis) -> None:
    await keep(redis, *[Read("id", stored["id"], ()) for stored in USERS], ttl=100)
    entries = [await entry(redis, "id", stored["id"]) for stored in USERS]
    kept = [one.fresh_until_ms - one.read_ms for one in entries]
    assert all(90_000 <= milliseconds <= 110_000 for milliseconds in kept)
    assert len(set(kept)) == len(USERS)


async def test_what_another_definition_kept_is_read_anew(redis: Redis) -> None:
    await redis.set(key("id", "1"), b"\x95\xa1x\x01\xcf\x00\x00\x01\xff\xff\xff\xff\xff\x01\x91\xc4\x01?")
    await redis.set(key("id", "2"), b"no message")
    assert (await cached(redis, MemoryLoader()).load([ADA, Read("id", "2", ("username",))])).rows == [ADAS, [b'"bob"']]


async def test_an_error_of_the_source_reaches_everybody_and_is_not_kept(redis: Redis) -> None:
    source = MemoryLoader(error=SourceUnavailable("away"))
    reading = cached(redis, source)
    failed = await asyncio.gather(*[reading.load([ADA]) for _ in range(5)], return_exceptions=True)
    assert [type(error) for error in failed] == [SourceUnavailable] * 5
    source.error = None
    assert (await reading.load([ADA])).rows == [ADAS]


async def test_without_redis_every_row_comes_from_the_source_and_is_counted() -> None:
    source, tally = MemoryLoader(), Counts()
    async with Redis.from_pool(BlockingConnectionPool(host="127.0.0.1", port=1, timeout=1)) as nobody:
        reading = cached(nobody, source, tally)
        for _ in range(2):
            assert (await reading.load([ADA])).rows == [ADAS]
            await settled(reading)
    assert (len(source.loads), tally.of) == (2, {"miss": 2, "error": 2})


async def test_a_hit_needs_no_task_and_anything_else_does(redis: Redis, redis_at: Server) -> None:
    await keep(redis, ADA, Read("id", "2", ()), NOBODY)
    async with open_clients(Settings(redis_url=redis_at.address)) as clients:
        reading = server.loaders(Settings(cache_early=0), DEFINITION, clients, GatewayMetrics())["cache-aside"]
        assert isinstance(reading, CacheAsideLoader)

        async def begun(*reads: Read) -> Rows | str | None:
            found: asyncio.Future[Rows | None] = asyncio.get_running_loop().create_future()
            return await asyncio.wait_for(found, 10) if reading.begin(reads, found.set_result) else "refused"

        assert await begun(ADA) == "refused", "nobody is connected yet"
        await clients.cache_send([("PING",)])
        assert await begun(ADA, Read("id", "2", ("username",))) == await reading.load([ADA, Read("id", "2", ("username",))])
        assert await begun(NOBODY) is None
        assert await begun(ADA, Read("id", "3", ())) is None
        assert await begun(Read("username", "ada", ())) == "refused"
        await age(redis, "id", "1", 100)
        assert await begun(ADA) is None


async def test_the_two_modes_share_no_entry(redis: Redis) -> None:
    await keep(redis, ADA)
    source = MemoryLoader()
    await cached(redis, source, mode="cache-invalidate").load([ADA])
    assert len(source.loads) == 1
