"""`viewgate seed` and `viewgate traffic` against a real Kafka, and the road behind it."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from app.reference import ROOT
from demo.seed import sized
from demo.servers import kafka
from demo.servers.account import scratch
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from demo.sink import end_offsets
from demo.traffic import MIX, Traffic
from schema.fields import Row
from tests.commands.running import run, start
from tests.conftest import CACHE
from tests.road import Road, open_road, variables


@pytest.fixture
async def road(kafka_at: Server, redis_at: Server, postgres_at: Server) -> AsyncIterator[Road]:
    async with open_road(kafka_at, redis_at, postgres_at) as opened:
        yield opened


async def held(road: Road) -> int:
    return sum((await end_offsets(road.settings.kafka_bootstrap, road.definition.topics)).values())


@dataclass(slots=True)
class Published:
    """A Publisher that publishes nothing."""

    changes: list[tuple[str, Row | None, Row | None]] = field(default_factory=list)

    def publish(self, op: str, before: Row | None, after: Row | None, ts_ms: int) -> None:
        self.changes.append((op, before, after))


async def some(road: Road, records: int) -> None:
    if (found := await held(road)) < records:
        raise NotReadyError(f"{found} records")


async def test_what_is_seeded_and_what_traffic_adds_comes_into_the_view_as_into_sql(road: Road) -> None:
    await road.project()
    size = sized(40)
    assert size.rows == 40 * 25
    code, out, _ = await run("seed", "--users", "40", **variables(road.settings))
    assert code == 0
    assert out.startswith("1,000 changes published to ")
    mix = ",".join(f"{name}=1" for name in MIX)
    code, out, _ = await run("traffic", "--users", "40", "--rate", "300", "--seconds", "2", "--mix", mix, **variables(road.settings))
    assert (code, out) == (0, "600 changes published.\n")
    assert await held(road) == 1600
    await road.sunk()
    assert await road.agree() >= 40


async def test_topics_that_hold_records_are_not_seeded_again(road: Road) -> None:
    await run("seed", "--users", "1", **variables(road.settings))
    before = await held(road)
    code, out, err = await run("seed", "--users", "1", **variables(road.settings))
    assert (code, out) == (1, "")
    assert "hold 24 records already" in err
    assert "VIEWGATE_TOPIC_PREFIX" in err
    code, out, _ = await run("seed", "--if-empty", **variables(road.settings))
    assert code == 0
    assert "nothing published" in out
    assert await held(road) == before


async def test_if_empty_seeds_topics_that_are_empty(road: Road) -> None:
    code, out, _ = await run("seed", "--if-empty", "--users", "2", **variables(road.settings))
    assert (code, out[:2], await held(road)) == (0, "50", 50)


async def test_what_kafka_has_not_acknowledged_at_the_end_of_traffic_is_told(redis_at: Server, postgres_at: Server) -> None:
    # of its own: a broker that was frozen is let in again only after a moment, which the next test would not wait for
    with scratch() as folder:
        async with kafka.start(folder, CACHE, say=print) as server, open_road(server, redis_at, postgres_at) as road:
            if server.process is None:
                pytest.skip("needs a Kafka of its own, to freeze it")
            child = await start("traffic", "--users", "10", "--rate", "200", **variables(road.settings))
            await until(lambda: some(road, 20), 30)
            server.process.pause()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(child.wait(), 1)
            child.send_signal(signal.SIGINT)
            out, err = await asyncio.wait_for(child.communicate(), 30)
    assert (child.returncode, out) == (1, b"")
    assert re.match(rb"Not everything arrived: .*\d+ records not acknowledged.*viewgate doctor", err)


def test_every_change_of_traffic_tells_its_row_as_it_was() -> None:
    published = Published()
    traffic = Traffic(published, 10, dict.fromkeys(MIX, 1))
    for _ in range(500):
        traffic.act()
    assert {op for op, _, _ in published.changes} == {"c", "u", "d"}
    assert traffic.published == len(published.changes) == 500
    rows: dict[tuple[type[Row], int], Row] = {}
    for _, before, after in published.changes:
        row = after or before
        assert row
        key = type(row), getattr(row, type(row).source.key)
        assert rows.pop(key, None) == before
        if after:
            rows[key] = after


async def test_traffic_ends_at_ctrl_c_and_says_how_much_there_was(road: Road) -> None:
    child = await start("traffic", "--users", "10", "--rate", "200", **variables(road.settings))
    await until(lambda: some(road, 20), 30)
    child.send_signal(signal.SIGINT)
    out, _ = await asyncio.wait_for(child.communicate(), 30)
    published = re.fullmatch(r"([\d,]+) changes published\.\n", out.decode())
    assert child.returncode == 0
    assert published
    assert int(published[1].replace(",", "")) == await held(road)


@pytest.mark.parametrize("command", ["seed", "traffic"])
async def test_a_kafka_that_is_away_is_told_with_what_to_do(command: str) -> None:
    code, out, err = await run(command, VIEWGATE_KAFKA_BOOTSTRAP="127.0.0.1:1")
    assert (code, out) == (1, "")
    assert re.match(r"Kafka at 127\.0\.0\.1:1 cannot be reached .* viewgate doctor\.\n$", err)


@pytest.mark.parametrize("command", ["seed", "traffic"])
async def test_another_view_than_one_of_users_is_refused(command: str) -> None:
    code, _, err = await run(command, VIEWGATE_VIEW="tests.message.shop:CustomerView", PYTHONPATH=str(ROOT))
    assert code == 1
    assert err.startswith("Only users can be seeded, and VIEWGATE_VIEW is tests.message.shop:CustomerView")


@pytest.mark.parametrize("mix", ["fly=1", "follow", "follow=x", "follow=0"])
async def test_a_mix_that_cannot_be_is_exit_code_2_and_says_what_can(mix: str) -> None:
    code, _, err = await run("traffic", "--mix", mix)
    assert code == 2
    assert "--mix" in err
