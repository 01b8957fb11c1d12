"""Live traffic that is split among modes: who is answered by which, what is told and counted of it, and how it is switched."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from app.endpoint.endpoint import Endpoint
from app.experiment import NONE, BadExperiment, Experiment, Shadow, Split, check, decode, weights
from app.experiment_metrics import NAMES, SUBJECTS, ExperimentMetrics, Run
from app.experiment_store import LOGGED, ExperimentStore
from app.experiment_watch import Watch
from app.server import application, gateway, trial_of
from app.settings import Settings, SettingsError
from app.settled import settled
from app.telemetry import GatewayMetrics
from app.trial import Trial
from demo.servers import redis as redis_server
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from schema import layout
from schema.loader import Loader, Mode, SourceUnavailable
from tests.clients.running import served
from tests.request.arranged import ADA, ADAS, DEFINITION, MemoryLoader, View
from tests.request.conftest import CACHE, Open

HALF: dict[Mode, int] = {"view": 50, "cache-aside": 50}
MODES: tuple[Mode, ...] = ("view", "cache-aside", "sql")
CLIENTS = [f"client-{number}" for number in range(40)]


def store(redis: Redis) -> ExperimentStore:
    return ExperimentStore(redis, DEFINITION.name)


def memory() -> dict[Mode, Loader]:
    return {mode: MemoryLoader(mode=mode) for mode in MODES}


def on_trial(experiment: Experiment | None, loaders: Mapping[Mode, Loader], **given: Any) -> tuple[Any, Trial]:
    """An app, and what it has on trial, without any server."""
    settings, metrics = Settings(**given), GatewayMetrics()
    trial = trial_of(settings, loaders, metrics)
    trial.switch(experiment)
    return application(settings, DEFINITION, loaders, metrics, trial), trial


@asynccontextmanager
async def asking(app: Any, answered_by: str) -> AsyncIterator[httpx.AsyncClient]:
    if answered_by == "short":
        async with served(app) as url, httpx.AsyncClient(base_url=url.removesuffix("/graphql")) as client:
            yield client
        return
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        yield client


async def ask(client: httpx.AsyncClient, query: str = ADA, **headers: str) -> httpx.Response:
    return await client.post("/graphql", json={"query": query}, headers={name.replace("_", "-"): text for name, text in headers.items()})


def mode_of(split: Split, subject: str) -> Mode:
    return split.mode(split.digest(subject))


def test_a_subject_has_the_same_mode_in_every_version_and_however_the_weights_are_written() -> None:
    # written down when this was first made: should they change, every subject would change its arm
    first = {
        "1": "view",
        "3": "cache-aside",
        "ada": "view",
        "10.0.0.1": "view",
        "client-1": "cache-aside",
        "ç": "view",
        "::1": "cache-aside",
    }
    for given in ("view=50,cache-aside=50", "cache-aside=50, view=50", "cache-aside=1,view=1,sql=0"):
        split = Split("cheap", weights(given))
        assert {subject: mode_of(split, subject) for subject in first} == first


@pytest.mark.parametrize("given", [{"view": 50, "cache-aside": 50}, {"view": 97, "cache-aside": 2, "sql": 1}, {"sql": 1}])
def test_subjects_come_to_the_modes_as_the_weights_have_it(given: dict[Mode, int]) -> None:
    split, total = Split("cheap", given), 100_000
    found = Counter(mode_of(split, f"user-{number}") for number in range(total))
    assert set(found) == set(given)
    for mode, weight in given.items():
        expected = total * weight / sum(given.values())
        # four standard deviations
        assert abs(found[mode] - expected) <= 4 * (expected * (1 - expected / total)) ** 0.5


def test_another_name_deals_subjects_out_anew_and_another_weight_moves_no_more_than_it_must() -> None:
    subjects = [str(number) for number in range(10_000)]
    one, other = ({subject: mode_of(Split(name, HALF), subject) for subject in subjects} for name in ("one", "other"))
    both = Counter((one[subject], other[subject]) for subject in subjects)
    assert all(2300 < times < 2700 for times in both.values())
    more = {subject: mode_of(Split("one", {"view": 40, "cache-aside": 60}), subject) for subject in subjects}
    moved = [subject for subject in subjects if more[subject] != one[subject]]
    assert {more[subject] for subject in moved} == {"cache-aside"}
    assert 900 < len(moved) < 1100


@pytest.mark.parametrize("text", ["view", "view=x", "view=-1", "fast=1", "view=1,view=2", "view=1,", "view=1;sql=1", "view=1.5"])
def test_weights_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(BadExperiment, match="weight"):
        weights(text)


@pytest.mark.parametrize(
    ("experiment", "why"),
    [
        (Experiment("Big", HALF), "no name"),
        (Experiment("a\r\nset-cookie: x", HALF), "no name"),
        (Experiment("x" * 64, HALF), "no name"),
        (Experiment("", HALF), "no name"),
        (Experiment("a"), "does nothing"),
        (Experiment("a", {"view": 0}), "above 0"),
        (Experiment("a", {"view": -1, "sql": 2}), "number from 0"),
        (Experiment("a", {"cache-invalidate": 1}), "has no mode cache-invalidate"),
        (Experiment("a", HALF, shadow=Shadow(0, "sql")), "share"),
        (Experiment("a", HALF, shadow=Shadow(1.5, "sql")), "share"),
        (Experiment("a", shadow=Shadow(0.5)), "needs a mode"),
        (Experiment("a", shadow=Shadow(0.5, "view")), "compared with itself"),
        (Experiment("a", {"sql": 1, "view": 0}, shadow=Shadow(0.5, "sql")), "compared with itself"),
    ],
)
def test_what_cannot_be_run_is_refused_with_a_sentence(experiment: Experiment, why: str) -> None:
    with pytest.raises(BadExperiment, match=why):
        check(experiment, MODES, "view")


def test_a_candidate_that_is_one_of_the_arms_and_a_control_alone_can_be_run() -> None:
    check(Experiment("a", HALF, shadow=Shadow(1, "view")), MODES, "view")
    check(Experiment("a", shadow=Shadow(1, control=True)), MODES, "view")
    check(Experiment("a", shadow=Shadow(1, "view", control=True)), MODES, "view")


@pytest.mark.parametrize(
    "stored", [b"", b"{", b"[]", b'{"name":1}', b'{"name":"a","weights":{"fast":1}}', b'{"name":"a","wieghts":{}}', b"\xff"]
)
def test_a_document_that_is_none_is_refused(stored: bytes) -> None:
    with pytest.raises(BadExperiment, match="no document"):
        decode(stored)


@pytest.mark.parametrize(
    "given",
    [
        {"experiment_weights": "view=1"},
        {"shadow_mode": "sql"},
        {"experiment": "a"},
        {"experiment": "A", "experiment_weights": "view=1"},
        {"experiment": "a", "shadow_mode": "view"},
        {"experiment": "a", "experiment_weights": "cache-invalidate=1"},
    ],
)
def test_settings_that_name_half_an_experiment_are_refused_when_a_gateway_starts(given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"^VIEWGATE_EXPERIMENT: "):
        settled(Settings(**given), MODES)


async def test_a_client_is_answered_by_one_mode_and_told_which_experiment_has_given_it(answered_by: str) -> None:
    experiment = Experiment("cheap", HALF)
    split = Split("cheap", HALF)
    app, trial = on_trial(experiment, memory())
    async with asking(app, answered_by) as client:
        for name in CLIENTS * 2:
            answer = await ask(client, viewgate_client=name)
            assert answer.json() == ADAS
            assert (answer.headers["viewgate-mode"], answer.headers["viewgate-experiment"]) == (mode_of(split, name), "cheap")
        told = (await client.get("/metrics")).text
    given = Counter(mode_of(split, name) for name in CLIENTS)
    assert len(given) == 2
    for mode, clients in given.items():
        assert f'viewgate_exposures_total{{experiment="cheap",mode="{mode}"}} {2 * clients}.0' in told
        assert f'viewgate_requests_total{{mode="{mode}",outcome="ok"}} {2 * clients}.0' in told
    assert trial.running
    assert len(trial.running.run.take()) == len(CLIENTS)


async def test_a_split_by_id_goes_by_the_first_row_that_is_asked_for(answered_by: str) -> None:
    split = Split("cheap", HALF)
    app, _ = on_trial(Experiment("cheap", HALF, by="id"), memory())
    queries = {
        "1": ADA,
        "2": '{ user(id: "2") { id } }',
        "3": '{ users(ids: ["3", "1", "2"]) { id } }',
        "-4": 'query { a: user(id: "-4") { id } user(id: "2") { id } }',
        "bob": '{ userByUsername(username: "bob") { id } }',
    }
    async with asking(app, answered_by) as client:
        for subject, query in queries.items():
            for name in CLIENTS[:3]:
                answer = await ask(client, query, viewgate_client=name)
                assert (answer.headers["viewgate-mode"], answer.headers["viewgate-experiment"]) == (mode_of(split, subject), "cheap")
    assert len({mode_of(split, subject) for subject in queries}) == 2


async def test_a_client_without_a_name_goes_by_its_address(answered_by: str) -> None:
    app, _ = on_trial(Experiment("cheap", HALF), memory())
    async with asking(app, answered_by) as client:
        answer = await ask(client)
    assert answer.headers["viewgate-mode"] == mode_of(Split("cheap", HALF), "127.0.0.1")
    assert answer.headers["viewgate-experiment"] == "cheap"


@pytest.mark.parametrize("headers", [{"viewgate_mode": "sql"}, {"viewgate_after": "users:0:1"}])
async def test_a_request_that_asks_for_a_mode_or_for_a_write_is_in_no_experiment(answered_by: str, headers: dict[str, str]) -> None:
    app, trial = on_trial(Experiment("cheap", {"cache-aside": 1}), memory(), allow_mode_header=True)
    async with asking(app, answered_by) as client:
        answer = await ask(client, **headers)
    assert answer.headers["viewgate-mode"] == headers.get("viewgate_mode", "view")
    assert "viewgate-experiment" not in answer.headers
    assert trial.running
    assert not trial.running.run.exposures


async def test_a_request_that_reads_nothing_is_no_exposure_and_one_that_fails_is(answered_by: str) -> None:
    loaders: dict[Mode, Loader] = memory() | {"sql": MemoryLoader(mode="sql", error=SourceUnavailable("away"))}
    app, trial = on_trial(Experiment("cheap", {"sql": 1}, by="id"), loaders)
    async with asking(app, answered_by) as client:
        nothing = await ask(client, "{ __typename }")
        failed = await ask(client)
    assert "viewgate-experiment" not in nothing.headers
    assert failed.json()["errors"][0]["extensions"] == {"code": "UNAVAILABLE"}
    assert (failed.headers["viewgate-mode"], failed.headers["viewgate-experiment"]) == ("sql", "cheap")
    assert trial.running
    assert trial.running.run.exposures == {"sql": 1}


async def test_all_operations_of_an_array_are_answered_by_the_mode_of_the_first() -> None:
    app, trial = on_trial(Experiment("cheap", HALF, by="id"), memory(), limit_batch=10)
    async with asking(app, "plan") as client:
        answer = await client.post("/graphql", json=[{"query": f'{{ user(id: "{number}") {{ id }} }}'} for number in (1, 2, 3)])
    assert answer.headers["viewgate-mode"] == mode_of(Split("cheap", HALF), "1")
    assert trial.running
    assert sum(trial.running.run.exposures.values()) == 1


async def test_the_short_road_answers_those_who_fall_to_its_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    whole: list[str] = []
    call = Endpoint.__call__

    async def counted(self: Endpoint, scope: Any, *rest: Any) -> None:
        whole.append(dict(scope["headers"]).get(b"viewgate-client", b"").decode())
        await call(self, scope, *rest)

    monkeypatch.setattr(Endpoint, "__call__", counted)
    app, _ = on_trial(Experiment("cheap", HALF), memory())
    async with asking(app, "short") as client:
        for name in CLIENTS:
            await ask(client, viewgate_client=name)
    assert whole == [name for name in CLIENTS if mode_of(Split("cheap", HALF), name) != "view"]


async def test_modes_agree_while_traffic_is_split_among_them(view: View, open_gateway: Open) -> None:
    given: dict[Mode, int] = {"view": 1, "cache-aside": 1, "sql": 1}
    await store(view.redis).switch(Experiment("all", given), "started", "a test")
    client = await open_gateway()
    answers = [await ask(client, '{ users(ids: ["1", "2"]) { username tweetCount } }', viewgate_client=name) for name in CLIENTS]
    assert {answer.headers["viewgate-mode"] for answer in answers} == set(given)
    assert {answer.headers["viewgate-experiment"] for answer in answers} == {"all"}
    assert len({answer.text for answer in answers}) == 1


async def shows(client: httpx.AsyncClient, name: str | None) -> None:
    found = (await ask(client, viewgate_client="1")).headers.get("viewgate-experiment")
    if found != name:
        raise NotReadyError(f"experiment {found}")


async def test_a_gateway_takes_up_what_is_switched_while_it_serves(view: View, redis_at: Server, users_at: str) -> None:
    switch = store(view.redis)
    settings = Settings(redis_url=redis_at.address, postgres_url=users_at)
    async with gateway(settings, DEFINITION) as app, asking(app, "short") as client:
        assert "viewgate-experiment" not in (await ask(client)).headers
        await switch.switch(Experiment("first", HALF, started_ms=1), "started", "ada")
        await until(lambda: shows(client, "first"), 10)
        await switch.switch(Experiment("second", {"sql": 1}, started_ms=2), "started", "bob")
        await until(lambda: shows(client, "second"), 10)
        assert (await ask(client)).headers["viewgate-mode"] == "sql"
        await switch.switch(NONE, "stopped", "ada")
        await until(lambda: shows(client, None), 10)
    log = await switch.log(10)
    assert [(line.whom, line.what, line.experiment and line.experiment.name) for line in log] == [
        ("ada", "stopped", ""),
        ("bob", "started", "second"),
        ("ada", "started", "first"),
    ]
    # what was counted when the gateway ended is there
    assert sum((await switch.counted(Experiment("second", {"sql": 1}, started_ms=2))).exposures.values()) > 1


async def test_the_key_wins_over_the_settings_and_its_absence_gives_way_to_them(redis: Redis) -> None:
    _, trial = on_trial(None, memory())
    watch, switch = Watch(store(redis), trial, Experiment("settled", HALF)), store(redis)

    async def running() -> str | None:
        await watch.turn()
        return trial.running.run.experiment.name if trial.running else None

    assert await running() == "settled"
    await switch.switch(Experiment("other", {"sql": 1}), "started", "ada")
    assert await running() == "other"
    await switch.switch(NONE, "stopped", "ada")
    assert await running() is None
    await switch.switch(None, "reset", "ada")
    assert await running() == "settled"


@pytest.mark.parametrize("stored", [b"{", b'{"name":"a","weights":{"cache-invalidate":1}}', b'{"name":"a"}'])
async def test_a_malformed_document_changes_nothing_and_is_told_once(redis: Redis, stored: bytes) -> None:
    _, trial = on_trial(None, memory())
    watch = Watch(store(redis), trial, None)
    await store(redis).switch(Experiment("good", HALF), "started", "ada")
    await watch.turn()
    await redis.set(layout.experiment_key("User"), stored)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            await watch.turn()
    assert trial.running
    assert trial.running.told == "good"
    assert [(line["event"], line["running"]) for line in logs] == [("experiment_malformed", "good")]
    await store(redis).switch(Experiment("better", HALF), "started", "ada")
    await watch.turn()
    assert trial.running.told == "better"


@pytest.mark.servers
async def test_while_redis_is_away_all_goes_on_as_it_was_and_that_is_told_once(tmp_path: Path) -> None:
    _, trial = on_trial(None, memory())
    async with redis_server.start(tmp_path, CACHE, say=print) as server, Redis.from_url(server.address) as redis:
        assert server.process is not None
        watch = Watch(store(redis), trial, None)
        await store(redis).switch(Experiment("good", HALF), "started", "ada")
        await watch.turn()
        assert trial.running
        run = trial.running.run
        await server.process.kill()
        with structlog.testing.capture_logs() as logs:
            for number in range(3):
                digest = Split("good", HALF).digest(str(number))
                run.exposed("view", digest)
                await watch.turn()
        assert trial.running.run is run
        assert [line["event"] for line in logs] == ["experiment_redis_away"]
        await server.process.start()
        await store(redis).switch(Experiment("good", HALF), "started", "ada")
        await watch.turn()
        counted = await store(redis).counted(Experiment("good", HALF))
    assert (counted.exposures, counted.subjects, counted.gateways) == ({"view": 3}, {"view": 3}, 1)


async def test_the_counts_of_several_gateways_add_up_and_may_be_told_again(redis: Redis) -> None:
    experiment = Experiment("good", HALF, started_ms=1)
    split = Split("good", HALF)
    await store(redis).switch(experiment, "started", "ada")
    for names in (CLIENTS[:30], CLIENTS[10:]):
        _, trial = on_trial(None, memory())
        watch = Watch(store(redis), trial, None)
        await watch.turn()
        assert trial.running
        for name in names * 2:
            trial.running.run.exposed(mode_of(split, name), split.digest(name))
        for _ in range(3):
            await watch.turn()
    counted = await store(redis).counted(experiment)
    assert (counted.gateways, counted.exposures.total()) == (2, 120)
    assert counted.subjects == Counter(mode_of(split, name) for name in CLIENTS)
    assert counted.distinct == len(CLIENTS)
    again = await store(redis).counted(Experiment("good", HALF, started_ms=2))
    assert (again.exposures.total(), again.distinct) == (0, 0), "what is started anew is counted anew"


async def test_subjects_that_could_not_be_told_are_told_later(redis: Redis) -> None:
    experiment = Experiment("good", HALF)
    run, key = Run(experiment, ExperimentMetrics(GatewayMetrics().registry)), layout.experiment_key("User", experiment.run, "subjects")
    run.exposed("view", Split("good", HALF).digest("1"))
    await redis.set(key, "somebody else's")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await store(redis).write("one", run, running=True)
    await redis.delete(key)
    run.exposed("view", Split("good", HALF).digest("2"))
    await store(redis).write("one", run, running=True)
    assert (await store(redis).counted(experiment)).subjects == {"view": 2}


async def test_of_many_subjects_a_fair_sample_is_kept_and_all_are_estimated(redis: Redis) -> None:
    experiment = Experiment("good", {"view": 80, "cache-aside": 20})
    split, total = Split("good", experiment.weights), 60_000
    metrics = ExperimentMetrics(GatewayMetrics().registry)
    runs = [metrics.run(experiment), Run(experiment, metrics)]
    chosen = random.Random(1)
    for number in range(total):
        for run in chosen.sample(runs, chosen.choice((1, 2))):
            run.exposed(mode_of(split, str(number)), split.digest(str(number)))
        if number % 7000 == 0:
            await store(redis).write(str(id(runs[0])), runs[0], running=True)
    for place, run in enumerate(runs):
        await store(redis).write(str(place), run, running=True)
    counted = await store(redis).counted(experiment)
    assert counted.subjects.total() == SUBJECTS
    assert abs(counted.distinct / total - 1) < 0.05
    assert abs(counted.subjects["view"] / SUBJECTS - 0.8) < 4 * (0.8 * 0.2 / SUBJECTS) ** 0.5


async def test_the_log_of_switches_is_bounded_and_each_switch_is_in_it(redis: Redis) -> None:
    for number in range(30):
        await asyncio.gather(*[store(redis).switch(Experiment(f"e{number}-{one}", HALF), "started", "ada") for one in range(50)])
    log = await store(redis).log(10_000)
    # Redis cuts it where that is cheap
    assert LOGGED <= len(log) < LOGGED + 200
    stored = await store(redis).read()
    assert stored is not None
    assert log[0].experiment == decode(stored)


def test_metrics_remember_only_so_many_experiments() -> None:
    metrics = ExperimentMetrics(GatewayMetrics().registry)
    for number in range(NAMES + 3):
        metrics.run(Experiment(f"e{number}", HALF)).exposed("view", bytes(16))
    assert {name for name, _ in metrics.exposures} == {f"e{number}" for number in range(3, NAMES + 3)}


def test_the_document_in_redis_is_plain_json() -> None:
    experiment = Experiment("cheap", HALF, "id", Shadow(0.1, "sql", control=True), 5, "ada")
    assert msgspec.json.decode(experiment.encode()) == {
        "name": "cheap",
        "weights": HALF,
        "by": "id",
        "shadow": {"share": 0.1, "mode": "sql", "control": True},
        "started_ms": 5,
        "whom": "ada",
    }
    assert decode(experiment.encode()) == experiment
