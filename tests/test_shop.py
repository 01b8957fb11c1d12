"""The shop, a view of one's own, run as its page says: in the demo, under live changes, and while its definition is being changed."""

import asyncio
import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from demo.servers.process import NotReadyError, free_port, until
from examples.shop.scenario import SHOP
from tests.commands.running import run
from tests.demos import GOES_ON, HOUSE, alike, need_real_servers, once, place, processes, running, says, told, viewgate

SHOP_NAME = "examples.shop.scenario:SHOP"
SEEDED_CUSTOMERS, SEEDED_ORDERS = 4_000, 40_000
CANCELLED = (
    '    cancelled_count: Annotated[int, Count(Orders, by="customer_id", where={"state": "cancelled"}, description="Orders given up.")]\n'
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with place() as made:
        yield made


@pytest.mark.servers
async def test_the_shop_is_answered_alike_in_every_mode_and_audited_under_live_changes(folder: Path) -> None:
    async with running(folder, "--embedded", "--scenario", SHOP_NAME) as (process, log):
        await until(lambda: says(log, GOES_ON), 120)
        assert re.search(r'"email": "customer1@shop.example".*"orderCount": [1-9].*"paidCents": [1-9]', alike(log.read_text()))
        environment = await told(folder, "demo-shop")
        await until(lambda: _changed(environment["VIEWGATE_POSTGRES_URL"]), 60)
        code, output = await viewgate(folder, environment, "audit")
        assert code == 0, output
        found = re.search(r"^(\d+) \w+ checked, (\d+) fields compared, 0 mismatches$", output, re.MULTILINE)
        assert found, output
        assert int(found[1]) >= SEEDED_CUSTOMERS
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    assert processes(folder) == []


async def _changed(postgres: str) -> None:
    """Raises NotReadyError until live changes of every kind are in PostgreSQL."""
    connection = await asyncpg.connect(postgres)
    try:
        kinds = {
            state: await connection.fetchval("SELECT count(*) FROM orders WHERE state = $1 AND order_id > $2", state, SEEDED_ORDERS)
            for state in ("placed", "paid", "cancelled")
        }
        kinds["joined"] = await connection.fetchval("SELECT count(*) FROM customers WHERE customer_id > $1", SEEDED_CUSTOMERS)
        kinds["moved"] = await connection.fetchval("SELECT count(*) FROM customers WHERE email LIKE 'moved%'")
    finally:
        await connection.close()
    if not all(kinds.values()):
        raise NotReadyError(str(kinds))


@pytest.mark.servers
async def test_a_view_that_is_being_written_is_served_anew_at_every_good_save(folder: Path) -> None:
    own = _copied(folder)
    port = free_port()
    async with running(folder, "--embedded", "--reload", "--scenario", "own.scenario:SHOP", "--port", str(port)) as (process, log):
        await until(lambda: says(log, GOES_ON), 120)
        text = (own / "view.py").read_text()
        (own / "view.py").write_text(text + "    cancelled_count: Annotated[\n")
        await until(lambda: says(log, "gateway has ended, and starts again when you save the next change: VIEWGATE_VIEW: own.view"), 60)
        assert process.returncode is None
        (own / "view.py").write_text(text + CANCELLED)
        await until(lambda: _built_anew(port), 90)
        environment = await told(folder, "demo-shop")
        code, output = await viewgate(folder, environment, "audit")
        assert (code, "0 mismatches" in output) == (0, True), output
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    assert processes(folder) == []


async def _built_anew(port: int) -> None:
    """Raises NotReadyError until the view, and not its fallback, answers the field that was added."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        try:
            answer = await client.post(
                f"http://127.0.0.1:{port}/graphql", json={"query": '{ customer(id: "1") { orderCount cancelledCount } }'}
            )
        except httpx.HTTPError as error:
            raise NotReadyError(repr(error)) from error
    if answer.headers.get("viewgate-mode") != "view" or "errors" in answer.json():
        raise NotReadyError(f"{answer.headers} {answer.text}")
    customer = answer.json()["data"]["customer"]
    assert customer["orderCount"] > customer["cancelledCount"] > 100


@pytest.mark.servers
async def test_what_was_stored_is_seeded_again_only_when_the_definition_has_changed(folder: Path) -> None:
    await need_real_servers()
    own = _copied(folder)
    small = (own / "scenario.py").read_text().replace("full=_seed(40_000)", "full=_seed(300)")
    (own / "scenario.py").write_text(small)
    assert "Publishing 3,300 changes" in await once(folder, "--scenario", "own.scenario:SHOP")
    assert "Publishing" not in await once(folder, "--scenario", "own.scenario:SHOP")
    with (own / "view.py").open("a") as view:
        view.write(CANCELLED)
    assert "Publishing 3,300 changes" in await once(folder, "--scenario", "own.scenario:SHOP")


def _copied(folder: Path) -> Path:
    """The shop as the modules `own.…` of this folder."""
    own = folder / "own"
    own.mkdir()
    for module in ("view.py", "scenario.py", "traffic.py"):
        shutil.copy(HOUSE / "examples" / "shop" / module, own / module)
        (own / module).write_text((own / module).read_text().replace("examples.shop", "own"))
    return own


async def test_the_schema_of_the_shop_is_printed_where_the_setting_names_its_view() -> None:
    code, output, _ = await run("schema", VIEWGATE_VIEW=SHOP.view)
    assert code == 0
    fields = ("customer(", "customers(", "customerByEmail(", "orderCount: Int!", "paidCents: BigInt!", "city: String\n")
    assert [field for field in fields if field not in output] == []


def test_the_seed_of_the_shop_is_as_long_as_it_says_and_the_same_every_time() -> None:
    first, second = list(SHOP.small.records()), list(SHOP.small.records())
    assert first == second
    assert len(first) == SHOP.small.rows == SEEDED_CUSTOMERS + SEEDED_ORDERS
    states = {json.loads(value)["after"]["state"] for topic, _, value in first if topic == "orders"}
    assert states == {"placed", "paid", "cancelled"}


def test_what_the_mock_broker_is_given_leaves_room_for_live_changes() -> None:
    """It keeps 5 MiB of each of 4 partitions."""
    for topic in ("customers", "orders"):
        assert sum(len(key) + len(value) + 40 for name, key, value in SHOP.small.records() if name == topic) < 2 * 5 * 2**20
