"""The write side of /compare: what it takes, whom it refuses, and that both ways of publishing have what it acknowledged."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import httpx
import msgspec
import pytest
from aiokafka import AIOKafkaConsumer

from demo.follows import WRITES_PER_SECOND, IntoTables, IntoTopics, Out, application, opened
from demo.servers.server import Server
from projectors.records.envelope import decoder
from schema.fields import Row
from schema.user import Follows
from tests.request.arranged import write_tables
from tests.road import Road, make_database, open_road

GATEWAY = "http://127.0.0.1:8000"
PAIR = {"follower": 7, "followee": 1}
Change = tuple[str, Row | None, Row | None]


@dataclass(slots=True)
class Noted:
    """Takes every change, and notes it. error: raised instead. token: of what it took."""

    changes: list[Change] = field(default_factory=list)
    error: Exception | None = None
    token: str | None = "follows:0:41"

    async def write(self, op: str, before: Row | None, after: Row | None, ts_ms: int) -> str | None:
        if self.error:
            raise self.error
        self.changes.append((op, before, after))
        return self.token


def client_of(out: Out, clock: Callable[[], float] = time.monotonic) -> httpx.AsyncClient:
    app = application(out, 40, [GATEWAY, "http://localhost:8000"], clock)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://writes", headers={"origin": GATEWAY})


@pytest.fixture
def noted() -> Noted:
    return Noted()


@pytest.fixture
async def client(noted: Noted) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(noted) as opened_client:
        yield opened_client


async def undo(client: httpx.AsyncClient, pair: dict[str, int]) -> httpx.Response:
    return await client.request("DELETE", "/follows", json=pair)


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["errors"][0]["extensions"]["code"]


async def test_a_follow_is_acknowledged_with_its_moment_and_its_token_and_taken_back_as_it_was(
    client: httpx.AsyncClient, noted: Noted
) -> None:
    before_ms = time.time_ns() // 1_000_000
    answer = (await client.post("/follows", json=PAIR)).json()
    assert (answer["token"], answer["acknowledgedMs"] >= before_ms) == ("follows:0:41", True)
    assert (await undo(client, PAIR)).json()["followId"] == answer["followId"]
    (_, _, made), (op, taken, nothing) = noted.changes
    assert isinstance(made, Follows)
    assert (made.follow_id, made.follower_id, made.followee_id) == (answer["followId"], 7, 1)
    assert (op, taken, nothing) == ("d", made, None)
    assert refusal(await undo(client, PAIR)) == (404, "NOT_FOUND")


async def test_no_two_follows_share_an_id(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*[client.post("/follows", json={"follower": number, "followee": 1}) for number in range(2, 12)])
    assert len({answer.json()["followId"] for answer in answers}) == 10


async def test_who_follows_already_is_told_so_and_nothing_is_written(client: httpx.AsyncClient, noted: Noted) -> None:
    await client.post("/follows", json=PAIR)
    assert refusal(await client.post("/follows", json=PAIR)) == (409, "CONFLICT")
    assert len(noted.changes) == 1


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "Input data was truncated"),
        ("[]", "Expected `object`"),
        ('{"follower": "7", "followee": 1}', "$.follower"),
        ('{"follower": 7}', "followee"),
        ('{"follower": 7, "followee": 1, "why": 1}', "why"),
        ('{"follower": 0, "followee": 1}', "follower 0 is none of the users 1 to 40."),
        ('{"follower": 7, "followee": 41}', "followee 41 is none of the users 1 to 40."),
        ('{"follower": 7, "followee": 7}', "User 7 cannot follow itself."),
    ],
)
async def test_what_is_no_follow_is_refused_with_what_is_wrong_and_written_nowhere(
    client: httpx.AsyncClient, noted: Noted, content: str, named: str
) -> None:
    answer = await client.post("/follows", content=content, headers={"content-type": "application/json"})
    assert refusal(answer) == (400, "BAD_REQUEST")
    assert named in answer.json()["errors"][0]["message"]
    assert noted.changes == []


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:8001", "null", "https://127.0.0.1:8000"])
async def test_a_page_of_another_origin_writes_nothing(client: httpx.AsyncClient, noted: Noted, origin: str) -> None:
    answer = await client.post("/follows", json=PAIR, headers={"origin": origin})
    assert refusal(answer) == (403, "CSRF")
    asked_before = {"origin": origin, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    preflight = await client.options("/follows", headers=asked_before)
    assert (preflight.status_code, "access-control-allow-origin" in preflight.headers) == (400, False)
    assert noted.changes == []


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_what_a_browser_sends_without_asking_first_is_refused(client: httpx.AsyncClient, noted: Noted, content_type: str) -> None:
    answer = await client.post("/follows", content='{"follower": 7, "followee": 1}', headers={"content-type": content_type})
    assert refusal(answer) == (415, "BAD_REQUEST")
    assert noted.changes == []


async def test_the_gateways_own_page_may_ask_and_read(client: httpx.AsyncClient) -> None:
    asked_before = {"access-control-request-method": "DELETE", "access-control-request-headers": "content-type"}
    preflight = await client.options("/follows", headers=asked_before)
    answer = await client.post("/follows", json=PAIR)
    assert (preflight.status_code, answer.status_code) == (200, 200)
    assert {found.headers["access-control-allow-origin"] for found in (preflight, answer)} == {GATEWAY}


async def test_a_large_body_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/follows", json=PAIR | {"why": "x" * 2000})
    assert refusal(answer) == (413, "TOO_LARGE")


async def test_who_writes_too_often_is_told_when_to_try_again(noted: Noted) -> None:
    now = 0.0
    async with client_of(noted, lambda: now) as client:
        statuses = [(await client.post("/follows", json={"follower": 41, "followee": 1})).status_code for _ in range(100)]
        burst = statuses.count(400)
        assert (statuses[burst:], burst < 60) == ([429] * (100 - burst), True)
        now = 2.0
        again = [(await client.post("/follows", json={"follower": 41, "followee": 1})).status_code for _ in range(100)]
        assert 0 < again.count(400) <= 2 * WRITES_PER_SECOND + 1


async def test_what_was_not_acknowledged_may_be_tried_again(client: httpx.AsyncClient, noted: Noted) -> None:
    noted.error = OSError("Kafka has not taken it: away")
    assert refusal(await client.post("/follows", json=PAIR)) == (503, "UNAVAILABLE")
    noted.error = None
    assert (await client.post("/follows", json=PAIR)).status_code == 200
    noted.error = OSError("Kafka has not taken it: away")
    assert refusal(await undo(client, PAIR)) == (503, "UNAVAILABLE")
    noted.error = None
    assert (await undo(client, PAIR)).status_code == 200


@pytest.fixture
async def road(kafka_at: Server, redis_at: Server, postgres_at: Server) -> AsyncIterator[Road]:
    async with open_road(kafka_at, redis_at, postgres_at) as opened_road:
        yield opened_road


async def test_single_write_publishes_where_the_token_says(road: Road) -> None:
    async with opened(road.settings, sql=False) as out, client_of(out) as client:
        assert isinstance(out, IntoTopics)
        answer = (await client.post("/follows", json=PAIR)).json()
        await undo(client, PAIR)
    topic, partition, offset = answer["token"].rsplit(":", 2)
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=road.settings.kafka_bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        records = [await asyncio.wait_for(consumer.getone(), 20) for _ in range(2)]
    finally:
        await consumer.stop()
    assert (records[0].partition, records[0].offset) == (int(partition), int(offset))
    came, went = [decoder(Follows)(record.value) for record in records]
    assert came.after is not None
    assert went.before is not None
    assert (came.before, came.after.follow_id, went.after) == (None, answer["followId"], None)
    assert msgspec.structs.astuple(went.before) == msgspec.structs.astuple(came.after)


async def test_behind_change_data_capture_the_row_is_in_the_table_when_it_is_acknowledged(postgres_at: Server, road: Road) -> None:
    url = await make_database(postgres_at, "follows")
    connection = await asyncpg.connect(url)
    await write_tables(connection, [])
    async with opened(road.settings.model_copy(update={"postgres_url": url}), sql=True) as out, client_of(out) as client:
        assert isinstance(out, IntoTables)
        answer = (await client.post("/follows", json=PAIR)).json()
        rows = await connection.fetch("SELECT follow_id, follower_id, followee_id FROM follows")
        assert ([tuple(row) for row in rows], answer["token"]) == ([(answer["followId"], 7, 1)], None)
        await undo(client, PAIR)
        assert await connection.fetchval("SELECT count(*) FROM follows") == 0
        await connection.execute("DROP TABLE follows")
        refused = await client.post("/follows", json=PAIR)
        assert refusal(refused) == (503, "UNAVAILABLE")
        assert "PostgreSQL has not taken it" in refused.json()["errors"][0]["message"]
    await connection.close()


async def test_the_service_says_where_it_must_be_told_to_listen(road: Road, tmp_path: Path) -> None:
    said = tmp_path / "said"
    process = await road.start("-m", "demo.follows", said=said, VIEWGATE_WRITES_URL="")
    assert await asyncio.wait_for(process.wait(), 30) == 1
    assert "VIEWGATE_WRITES_URL says where to listen" in said.read_text()
