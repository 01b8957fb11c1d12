"""`viewgate experiment`, beside gateways that serve: what it switches, what it refuses, and what it shows."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from app.clients import open_redis
from app.experiment import Experiment, Shadow, Split, decode
from app.experiment_metrics import ExperimentMetrics, Run
from app.experiment_store import ExperimentStore
from app.settings import Settings
from app.telemetry import GatewayMetrics
from demo.servers import redis_cluster
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from schema import layout
from tests.commands.running import run, start
from tests.conftest import CACHE
from tests.request.arranged import ADA, ADAS, View

CLIENTS = [f"client-{number}" for number in range(200)]


@pytest.fixture
def servers(redis_at: Server, users_at: str, view: View) -> dict[str, str]:
    return {"VIEWGATE_REDIS_URL": redis_at.address, "VIEWGATE_POSTGRES_URL": users_at}


@asynccontextmanager
async def serving(**settings: str) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway in a process of its own."""
    child = await start("serve", "--port", "0", **settings)
    try:
        assert child.stderr is not None
        url = (await asyncio.wait_for(child.stderr.readline(), 60)).decode().split()[-1]
        async with httpx.AsyncClient(base_url=url.removesuffix("/graphql")) as client:
            yield client
    finally:
        if child.returncode is None:
            child.terminate()
        await asyncio.wait_for(child.communicate(), 30)


async def told(*arguments: str, **settings: str) -> str:
    code, out, err = await run("experiment", *arguments, **settings)
    assert code == 0, out + err
    return out


async def state(**settings: str) -> Any:
    return json.loads(await told("--json", **settings))


async def ask(client: httpx.AsyncClient, name: str) -> httpx.Response:
    answer = await client.post("/graphql", json={"query": ADA}, headers={"viewgate-client": name})
    assert answer.json() == ADAS
    return answer


async def gives(client: httpx.AsyncClient, name: str | None) -> None:
    found = (await ask(client, "probe")).headers.get("viewgate-experiment")
    if found != name:
        raise NotReadyError(f"experiment {found}")


async def test_an_experiment_is_started_shown_changed_and_stopped_while_two_gateways_serve(servers: dict[str, str]) -> None:
    async with serving(**servers) as one, serving(**servers) as other:
        assert "Nothing is on trial, and the settings name nothing." in await told(**servers)
        begun = await told("start", "cheap", "--weights", "view=50,cache-aside=50", "--who", "ada", **servers)
        assert "cheap is on trial" in begun
        for client in (one, other):
            await until(lambda client=client: gives(client, "cheap"), 10)  # type: ignore[misc]  # the default binds the loop's value
        split = Split("cheap", {"view": 50, "cache-aside": 50})
        for place, name in enumerate(CLIENTS):
            answer = await ask((one, other)[place % 2], name)
            assert answer.headers["viewgate-mode"] == split.mode(split.digest(name))

        async def counted() -> None:
            found = await state(**servers)
            if found["subjects"]["distinct"] != len(CLIENTS) + 1:
                raise NotReadyError(str(found))

        await until(counted, 15)
        found = await state(**servers)
        assert (found["from"], found["experiment"]["whom"], found["gateways"]) == ("key", "ada", 2)
        assert sum(found["exposures"].values()) > len(CLIENTS)
        assert found["ratio"]["p"] > 0.001
        shown = await told(**servers)
        assert "cheap is on trial, started by ada" in shown
        assert "201 subjects are as the weights have it" in shown

        await told("start", "trust", "--shadow", "sql", "--share", "1", "--control", "--who", "bob", **servers)
        await until(lambda: gives(one, None), 10)

        async def compared() -> None:
            await ask(one, "x")
            shadow = {row["what"]: row["equal"] for row in (await state(**servers))["shadow"]}
            if not shadow.get("control") or not shadow.get("candidate"):
                raise NotReadyError(str(shadow))

        await until(compared, 15)
        await told("stop", "--who", "ada", **servers)
        shown = await told(**servers)
        assert "Nothing is on trial. The last was trust, started by bob" in shown
        lines = [line.split()[2:4] for line in shown.partition("switched")[2].splitlines()[1:]]
        assert lines == [["ada", "stopped"], ["bob", "started"], ["ada", "started"]]


async def test_a_stop_holds_against_the_settings_until_it_is_reset(servers: dict[str, str]) -> None:
    settled = servers | {"VIEWGATE_EXPERIMENT": "settled", "VIEWGATE_EXPERIMENT_WEIGHTS": "cache-aside=1"}
    async with serving(**settled) as client:
        # from its first request on
        assert (await ask(client, "x")).headers["viewgate-experiment"] == "settled"
        assert "settled is on trial, started by the settings" in await told(**settled)
        await told("stop", **settled)
        await until(lambda: gives(client, None), 10)
        await told("reset", **settled)
        await until(lambda: gives(client, "settled"), 10)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("Big", "--weights", "view=1"), "no name"),
        (("a", "--weights", "view=half"), "no weight"),
        (("a", "--weights", "view=0"), "above 0"),
        (("a",), "does nothing"),
        (("a", "--shadow", "view"), "compared with itself"),
        (("a", "--shadow", "sql", "--share", "0"), "share"),
    ],
)
async def test_what_cannot_be_run_is_refused_and_nothing_is_written(
    servers: dict[str, str], redis: Redis, arguments: tuple[str, ...], why: str
) -> None:
    code, out, err = await run("experiment", "start", *arguments, **servers)
    assert (code, out) == (1, "")
    assert why in err
    assert "Nothing was changed" in err
    assert await redis.keys("{user}:experiment*") == []


async def test_arguments_that_are_none_are_exit_code_2_and_redis_that_is_away_is_a_sentence(servers: dict[str, str]) -> None:
    assert (await run("experiment", "start", "a", "--shadow", "fast", **servers))[0] == 2
    assert (await run("experiment", "start", "a", "--weights", "view=1", "--by", "moon", **servers))[0] == 2
    code, _, err = await run("experiment", VIEWGATE_REDIS_URL="redis://127.0.0.1:1")
    assert (code, len(err.splitlines())) == (1, 1)
    assert err.startswith("Redis cannot be reached")


async def test_a_malformed_document_is_told_and_can_be_stopped(servers: dict[str, str], redis: Redis) -> None:
    await redis.set(layout.experiment_key("User"), b"{")
    assert "cannot be run, and gateways go on with what they had: it is no document" in await told(**servers)
    await told("stop", **servers)
    assert "Nothing is on trial." in await told(**servers)


def counted_by_hand(experiment: Experiment, subjects: dict[str, int]) -> Run:
    """As a gateway has it that has met so many subjects in each mode, whatever the hash says."""
    made = ExperimentMetrics(GatewayMetrics().registry).run(experiment)
    for mode, number in subjects.items():
        for place in range(number):
            digest = Split(experiment.name, experiment.weights).digest(f"{mode}{place}")
            made.exposed("view" if mode == "view" else "cache-aside", digest)
    return made


async def test_a_ratio_that_is_not_that_of_the_weights_and_differences_are_shown(servers: dict[str, str], redis: Redis) -> None:
    experiment = Experiment("cheap", {"view": 50, "cache-aside": 50}, shadow=Shadow(0.5, "sql"), started_ms=1, whom="ada")
    store = ExperimentStore(redis, "User")
    await store.switch(experiment, "started", "ada")
    made = counted_by_hand(experiment, {"view": 1200, "cache-aside": 900})
    made.compared("sql", "wrong", control=False)
    made.differed("sql", "tweet_count", "wrong", 1200, control=False)
    made.differed("sql", "name", "stale", 2500, control=False)
    for field, verdict, behind in (("tweet_count", "wrong", None), ("name", "stale", "view")):
        made.mismatches.append(
            {
                "atMs": 1_700_000_000_000,
                "control": False,
                "by": "id",
                "value": "7",
                "field": field,
                "verdict": verdict,
                "ageMs": 2500,
                "behind": behind,
                "answered": {"mode": "view", "value": "4", "asOfMs": 1},
                "candidate": {"mode": "sql", "value": None, "asOfMs": 2},
            }
        )
    await store.write("gateway", made, running=True)
    shown = await told(**servers)
    assert "SAMPLE RATIO MISMATCH: by chance alone 2,100 subjects" in shown
    lines = [line.split() for line in shown.splitlines()]
    assert ["view", "50", "1,200", "1,200", "57.14%", "of", "50.00%"] in lines
    assert ["sql,", "candidate", "1", "0", "0", "1", "0", "0"] in lines
    assert ["2023-11-14", "22:13:20Z", "id", "7", "tweet_count", "view:", "4", "sql:", "absent", "wrong"] in lines
    assert ["2023-11-14", "22:13:20Z", "id", "7", "name", "view:", "4", "sql:", "absent", "stale,", "view", "by", "2.5", "s"] in lines
    found = await state(**servers)
    assert found["ratio"]["wrong"]
    assert found["fields"][0] | {"verdict": "", "field": ""} == {
        "candidate": "sql", "what": "candidate", "verdict": "", "field": "", "times": 1
    }  # fmt: skip
    assert json.loads(await told("--json", "--mismatches", "1", **servers))["mismatches"] == found["mismatches"][:1]


async def test_all_of_it_lies_on_one_slot_of_a_redis_cluster(tmp_path: Path) -> None:
    async with redis_cluster.start(tmp_path, CACHE, say=print) as cluster:
        redis = open_redis(Settings(), cluster.server.address)
        try:
            store = ExperimentStore(redis, "User")
            experiment = Experiment("cheap", {"view": 1, "cache-aside": 1}, started_ms=1)
            await store.switch(experiment, "started", "ada")
            made = counted_by_hand(experiment, {"view": 6, "cache-aside": 4})
            made.mismatches.append({"field": "name"})
            await store.write("gateway", made, running=True)
            stored = await store.read()
            assert stored is not None
            assert decode(stored) == experiment
            counted = await store.counted(experiment)
            assert (counted.gateways, counted.subjects, counted.mismatches) == (1, {"view": 6, "cache-aside": 4}, [{"field": "name"}])
            assert [(line.whom, line.experiment) for line in await store.log(5)] == [("ada", experiment)]
            await store.switch(None, "reset", "bob")
            assert await store.read() is None
        finally:
            await redis.aclose()
