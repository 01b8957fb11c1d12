"""Shadow compare: what a second mode answers when the client has its answer, how differences are judged, and that nobody notices."""

import asyncio
import json
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
import structlog
from redis.asyncio import Redis

from app import shadow
from app.difference import PRESENT, ROW, Difference, Pair, differences
from app.experiment import Experiment, Shadow
from app.experiment_metrics import MISMATCHES, ExperimentMetrics, Run
from app.experiment_store import ExperimentStore
from app.shadow import Answered, Shadows
from app.telemetry import GatewayMetrics
from app.trial import Trial
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from loaders.fallback import FallbackLoader
from loaders.sql import SqlLoader
from loaders.view import ViewLoader
from schema.loader import Loader, Mode, Read, Rows, SourceUnavailable, ViewNotReady
from tests.clients.running import served
from tests.request.arranged import ADA, ADAS, BY_ID, DEFINITION, USERS, MemoryLoader, View, write_tables
from tests.request.cached import cached
from tests.request.test_experiment import ask, asking, memory, on_trial
from tests.road import make_database

READ = Read("id", "1", ("username", "tweet_count"))
SOON_MS = 60_000


@dataclass(slots=True)
class Changing(MemoryLoader):
    """Rows of each load, the last ones for good; as of now, or of so long ago."""

    versions: Sequence[dict[str, Any]] = ()
    ago_ms: int = 0
    asked: int = 0

    async def load(self, reads: Sequence[Read]) -> Rows:
        version = self.versions[min(self.asked, len(self.versions) - 1)]
        self.asked += 1
        self.rows = {"1": dict(BY_ID["1"]) | version}
        rows = await MemoryLoader.load(self, reads)
        return Rows(rows.rows, rows.mode, rows.generation, now_ms() - self.ago_ms)


@dataclass(slots=True)
class Stuck(MemoryLoader):
    """Never answers."""

    started: int = 0

    async def load(self, reads: Sequence[Read]) -> Rows:
        self.started += 1
        await asyncio.Event().wait()
        raise AssertionError("unreachable: nobody sets it")


@dataclass(slots=True)
class Blocking(MemoryLoader):
    """Lets the whole process stand still until the client says that it has its answer."""

    answered: threading.Event = field(default_factory=threading.Event)
    in_time: list[bool] = field(default_factory=list)

    async def load(self, reads: Sequence[Read]) -> Rows:
        self.in_time.append(self.answered.wait(10))
        return await MemoryLoader.load(self, reads)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def run_of(candidate: Mode | None, *, control: bool = False, share: float = 1) -> Run:
    experiment = Experiment("trust", shadow=Shadow(share, candidate, control), started_ms=1)
    return ExperimentMetrics(GatewayMetrics().registry).run(experiment)


async def compared(shadows: Shadows, run: Run, answered: Answered, times: int = 1) -> Counter[str]:
    """What a request comes to that was answered so: the counts of the run, once nothing is under way."""
    assert run.experiment.shadow
    for _ in range(times):
        shadows.offer(run, run.experiment.shadow, answered)
    await until(lambda: idle(shadows), 10)
    return run.counts


async def answered(loader: Loader, *reads: Read) -> Answered:
    return Answered(reads or [READ], await loader.load(reads or [READ]))


def shadowed_by(sql: Loader) -> tuple[Any, Trial]:
    """A gateway that asks this candidate for every request."""
    return on_trial(Experiment("trust", shadow=Shadow(1, "sql")), memory() | {"sql": sql})


async def idle(shadows: Shadows) -> None:
    if not shadows.idle:
        raise NotReadyError("comparisons are under way")


async def started(candidate: Stuck) -> None:
    if candidate.started != shadow.AT_ONCE:
        raise NotReadyError(f"{candidate.started} reads")


@pytest.mark.parametrize("road", ["whole", "short"])
async def test_the_client_has_its_answer_before_the_candidate_is_asked(road: str) -> None:
    candidate = Blocking(mode="sql")
    app, trial = shadowed_by(candidate)
    more = {"viewgate-extensions": "false"} if road == "whole" else {}

    def client(url: str) -> bytes:
        request = urllib.request.Request(url, json.dumps({"query": ADA}).encode(), {"content-type": "application/json"} | more)
        with urllib.request.urlopen(request, timeout=20) as answer:
            body: bytes = answer.read()
        # while the gateway stands still
        candidate.answered.set()
        return body

    async with served(app) as url:
        assert json.loads(await asyncio.to_thread(client, url)) == ADAS
        await until(lambda: idle(trial.shadows), 10)
    assert candidate.in_time == [True]
    assert trial.running
    assert trial.running.run.counts == {"shadow:sql:candidate:equal": 1}


@pytest.mark.parametrize("error", [SourceUnavailable("away"), ZeroDivisionError("ours")])
async def test_an_error_of_the_candidate_reaches_no_client_and_is_told_once(answered_by: str, error: Exception) -> None:
    app, trial = shadowed_by(MemoryLoader(mode="sql", error=error))
    with structlog.testing.capture_logs() as logs:
        async with asking(app, answered_by) as client:
            for _ in range(3):
                answer = await ask(client)
                assert (answer.json(), answer.headers["viewgate-mode"]) == (ADAS, "view")
                assert "viewgate-experiment" not in answer.headers, "a shadow gives nobody a mode"
                await until(lambda: idle(trial.shadows), 10)
            told = (await client.get("/metrics")).text
    assert 'viewgate_shadow_total{candidate="sql",control="false",outcome="error"} 3.0' in told
    assert [line["event"] for line in logs] == ["shadow_failed"]


async def test_a_candidate_that_hangs_delays_nobody_and_takes_only_so_much_room(monkeypatch: pytest.MonkeyPatch, answered_by: str) -> None:
    candidate = Stuck(mode="sql")
    app, trial = shadowed_by(candidate)
    async with asking(app, answered_by) as client:
        answers = [await ask(client) for _ in range(20)]
        assert all(answer.json() == ADAS for answer in answers)
        await until(lambda: started(candidate), 10)
        assert trial.running
        assert trial.running.run.counts == {"shadow:sql:candidate:dropped": 20 - shadow.AT_ONCE}
        await trial.shadows.end()
        assert trial.shadows.idle
        monkeypatch.setattr(shadow, "READ_SECONDS", 0.01)
        await ask(client)
        await until(lambda: idle(trial.shadows), 10)
        assert trial.running.run.counts["shadow:sql:candidate:error"] == 1


async def test_differences_that_are_watched_leave_room_for_others_up_to_a_bound() -> None:
    loaders: dict[Mode, Loader] = {"view": MemoryLoader(), "sql": MemoryLoader({"1": BY_ID["1"] | {"tweet_count": 9}}, mode="sql")}
    shadows, run = Shadows(loaders), run_of("sql")
    assert run.experiment.shadow
    one = await answered(loaders["view"])
    for _ in range(shadow.WATCHED + 5):
        shadows.offer(run, run.experiment.shadow, one)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert run.counts == {"shadow:sql:candidate:dropped": 5}
    await shadows.end()


async def test_only_a_share_of_requests_is_compared_and_none_that_a_fallback_or_the_candidate_answered() -> None:
    sql = MemoryLoader(mode="sql")
    shadows, run = Shadows({"sql": sql}), run_of("sql", share=0.1)
    assert run.experiment.shadow
    drawn = sum(shadows.drawn(run.experiment.shadow) for _ in range(10_000))
    assert 880 < drawn < 1120
    other = await MemoryLoader().load([READ])
    await compared(shadows, run, Answered([READ], Rows(other.rows, "cache-aside", None, other.as_of_ms, "NOT_READY")))
    await compared(shadows, run, await answered(sql))
    assert (run.counts, len(sql.loads)) == ({}, 1)


async def test_a_shadow_of_a_view_that_is_away_takes_nobodys_turn_at_the_fallback() -> None:
    sql = MemoryLoader(mode="sql")
    view = FallbackLoader(MemoryLoader(error=ViewNotReady("building")), sql, limit=1, wait_seconds=0)
    experiment = Experiment("trust", shadow=Shadow(1, "view"))
    app, trial = on_trial(experiment, memory() | {"view": view}, mode="cache-aside")
    async with asking(app, "plan") as client:
        assert (await ask(client)).json() == ADAS
        await until(lambda: idle(trial.shadows), 10)
    assert trial.running
    assert trial.running.run.counts == {"shadow:view:candidate:error": 1, "error:view:ViewNotReady": 1}
    assert sql.loads == []


async def test_a_control_asks_the_same_mode_again_and_is_counted_apart() -> None:
    noisy = Changing(versions=[{"tweet_count": 3}, {"tweet_count": 4}])
    loaders: dict[Mode, Loader] = {"view": noisy, "sql": Changing(mode="sql", versions=[{"tweet_count": 4}])}
    run = run_of("sql", control=True)
    counts = await compared(Shadows(loaders), run, await answered(noisy))
    assert counts == {
        "shadow:view:control:stale": 1,
        "field:view:control:stale:tweet_count": 1,
        "shadow:sql:candidate:stale": 1,
        "field:sql:candidate:stale:tweet_count": 1,
    }
    assert [(one["control"], one["candidate"]["mode"]) for one in run.mismatches] == [(True, "view"), (False, "sql")]
    alone = run_of(None, control=True)
    assert await compared(Shadows(loaders), alone, await answered(noisy)) == {"shadow:view:control:equal": 1}


async def test_what_is_equal_when_it_is_read_again_was_stale_and_who_moved_was_behind() -> None:
    for moving, behind in (("sql", "sql"), ("view", "view")):
        first, second = [{"tweet_count": 3}], [{"tweet_count": 4}]
        loaders: dict[Mode, Loader] = {
            "view": Changing(versions=first + second if moving == "view" else second),
            "sql": Changing(mode="sql", versions=first + second if moving == "sql" else second),
        }
        run = run_of("sql")
        counts = await compared(Shadows(loaders), run, await answered(loaders["view"]))
        assert counts["shadow:sql:candidate:stale"] == 1
        assert [(one["field"], one["verdict"], one["behind"]) for one in run.mismatches] == [("tweet_count", "stale", behind)]


async def test_what_stays_different_while_both_have_everything_is_wrong_and_what_the_older_excuses_is_stale() -> None:
    view = Changing(versions=[{"tweet_count": 4}])
    for ago_ms, verdict in ((0, "wrong"), (30_000, "stale")):
        other = Changing(mode="sql", versions=[{"tweet_count": 3}], ago_ms=ago_ms)
        run = run_of("sql")
        await compared(Shadows({"view": view, "sql": other}, patience_seconds=0.4, settled_seconds=0.2), run, await answered(view))
        (one,) = run.mismatches
        assert (one["verdict"], one["answered"]["value"], one["candidate"]["value"]) == (verdict, "4", "3")
        assert (one["ageMs"] >= 30_000, one["behind"]) == ((True, "sql") if ago_ms else (False, None))


@pytest.fixture(scope="session")
async def shadow_at(postgres_at: Server) -> str:
    """A database that may be changed."""
    return await make_database(postgres_at, "shadow")


@pytest.fixture
async def pool(shadow_at: str) -> AsyncIterator[asyncpg.Pool]:
    connection = await asyncpg.connect(shadow_at)
    await write_tables(connection, USERS)
    await connection.close()
    async with asyncpg.create_pool(shadow_at, min_size=0, max_size=2) as opened:
        yield opened


@dataclass(slots=True)
class Stores:
    """The same users in three modes, and how one changes."""

    redis: Redis
    pool: asyncpg.Pool
    view: View
    loaders: dict[Mode, Loader] = field(init=False)

    def __post_init__(self) -> None:
        sql = SqlLoader(self.pool, DEFINITION)
        cache = cached(self.redis, sql)
        self.loaders = {"view": ViewLoader(self.redis, DEFINITION), "cache-aside": cache, "sql": sql}

    async def projected(self) -> None:
        """The view says that it has everything."""
        await self.redis.hset(self.view.keys.progress, mapping={"users:0": now_ms() + SOON_MS, "tweets:0": now_ms() + SOON_MS})

    async def tweet(self) -> None:
        """Of user 1; the projector has it at once."""
        await self.pool.execute("INSERT INTO tweets (user_id, text, created_at) VALUES (1, 'x', now())")
        await self.redis.hincrby(self.view.key("1"), self.view.code("tweet_count"), 1)


@pytest.fixture
async def stores(redis: Redis, view: View, pool: asyncpg.Pool) -> Stores:
    made = Stores(redis, pool, view)
    await made.projected()
    return made


async def test_a_row_that_the_cache_has_kept_too_long_is_stale_and_one_that_the_view_has_corrupted_is_wrong(stores: Stores) -> None:
    shadows = Shadows(stores.loaders, patience_seconds=0.5, settled_seconds=0.2)
    await stores.loaders["cache-aside"].load([READ])
    began_ms = now_ms()
    await stores.tweet()

    old, fresh = run_of("cache-aside"), run_of("sql")
    assert await compared(shadows, fresh, await answered(stores.loaders["view"])) == {"shadow:sql:candidate:equal": 1}
    counts = await compared(shadows, old, await answered(stores.loaders["view"]))
    assert counts == {"shadow:cache-aside:candidate:stale": 1, "field:cache-aside:candidate:stale:tweet_count": 1}
    (one,) = old.mismatches
    assert (one["by"], one["value"], one["behind"]) == ("id", "1", "cache-aside")
    assert (one["answered"]["value"], one["candidate"]["value"]) == ("4", "3")
    assert one["candidate"]["asOfMs"] <= began_ms < one["answered"]["asOfMs"]
    assert 500 <= one["ageMs"] <= now_ms() - one["candidate"]["asOfMs"]

    await stores.redis.hset(stores.view.key("1"), stores.view.code("tweet_count"), "999")
    counts = await compared(shadows, fresh, await answered(stores.loaders["view"]))
    assert counts["shadow:sql:candidate:wrong"] == 1
    assert counts["field:sql:candidate:wrong:tweet_count"] == 1
    (one,) = fresh.mismatches
    assert (one["verdict"], one["behind"], one["answered"]["value"], one["candidate"]["value"]) == ("wrong", None, "999", "4")


async def test_a_row_that_one_mode_has_lost_is_one_difference(stores: Stores) -> None:
    await stores.redis.delete(stores.view.key("1"))
    run = run_of("sql")
    reads = [READ, Read("id", "99", ("username",)), Read("id", "2", ("username",))]
    await compared(Shadows(stores.loaders, patience_seconds=0.5, settled_seconds=0.2), run, await answered(stores.loaders["view"], *reads))
    assert run.counts == {"shadow:sql:candidate:wrong": 1, f"field:sql:candidate:wrong:{ROW}": 1}
    assert (run.mismatches[0]["answered"]["value"], run.mismatches[0]["candidate"]["value"]) == (None, PRESENT.decode())


async def test_modes_that_agree_have_no_noise(stores: Stores) -> None:
    fields = ("id", *(f.name for f in DEFINITION.fields))
    reads = [Read("id", stored["id"], fields) for stored in USERS] + [Read("username", "ada", fields), Read("id", "99", fields)]
    for mode in stores.loaders:
        for candidate in stores.loaders.keys() - {mode}:
            run = run_of(candidate, control=True)
            await compared(Shadows(stores.loaders), run, await answered(stores.loaders[mode], *reads))
            assert run.counts == {f"shadow:{mode}:control:equal": 1, f"shadow:{candidate}:candidate:equal": 1}


async def test_only_the_newest_differences_are_kept_and_of_each_value_only_the_beginning(redis: Redis) -> None:
    users = {str(number): dict(BY_ID["1"]) | {"id": str(number), "name": "ä" * 500} for number in range(250)}
    other = {key: row | {"name": "o" * 500} for key, row in users.items()}
    loaders: dict[Mode, Loader] = {"view": MemoryLoader(users), "sql": MemoryLoader(other, mode="sql")}
    run, store = run_of("sql"), ExperimentStore(redis, DEFINITION.name)
    shadows = Shadows(loaders, patience_seconds=0)
    for half in (range(120), range(120, 250)):
        await compared(shadows, run, await answered(loaders["view"], *[Read("id", str(number), ("name",)) for number in half]))
        assert len(run.mismatches) == MISMATCHES
        await store.write("one", run, running=True)
        assert not run.mismatches
    kept = (await store.counted(run.experiment)).mismatches
    assert [one["value"] for one in kept] == [str(number) for number in range(249, 149, -1)]
    assert len(kept[0]["answered"]["value"].encode()) <= shadow.SHOWN_BYTES
    assert kept[0]["answered"]["value"] == '"' + "ä" * 99


Look = tuple[Pair, tuple[int, int]]


@pytest.mark.parametrize(
    ("looks", "verdict", "behind"),
    [
        # values and as-of of both, 10 ms apart, from 1,010 on; it was seen at 1,000
        ([((b"1", b"2"), (1005, 1001))], "wrong", None),
        ([((b"1", b"2"), (1005, 999)), ((b"2", b"2"), (1015, 999))], "stale", 0),
        ([((b"1", b"1"), (0, 0))], "stale", 1),
        ([((b"1", b"2"), (999, 2000)), ((b"1", b"2"), (999, 2000))], "stale", 0),
        ([((b"1", b"2"), (2000, 0))], "stale", 1),
        # it changed: what both had until then says nothing of what came
        ([((b"1", b"3"), (1005, 1005)), ((b"1", b"3"), (1009, 1009)), ((b"3", b"3"), (1030, 1030))], "stale", None),
        ([((b"1", b"3"), (1005, 1005)), ((b"1", b"3"), (1010, 1010))], "wrong", None),
        ([((b"2", b"3"), (1010, 1010)), ((b"3", b"4"), (1020, 1020)), ((b"4", b"5"), (1030, 1030))], "stale", None),
        ([((None, None), (1005, 1005))], "stale", None),
    ],
)
def test_a_difference_is_judged_by_how_it_goes_on(looks: list[Look], verdict: str, behind: int | None) -> None:
    one = Difference(READ, "tweet_count", (b"1", b"2"), (900, 900), 1000)
    for number, (values, as_of_ms) in enumerate(looks):
        if one.verdict is None:
            one.look(values, as_of_ms, 1010 + 10 * number, 10)
    one.end(looks[-1][1], 2000)
    assert (one.verdict, one.behind) == (verdict, behind)


def test_a_difference_must_stay_for_a_while_before_it_is_wrong() -> None:
    one = Difference(READ, "tweet_count", (b"1", b"2"), (900, 900), 1000)
    for at_ms, verdict in ((1010, None), (1499, None), (1500, "wrong")):
        one.look((b"1", b"2"), (at_ms, at_ms), at_ms, 500)
        assert one.verdict == verdict


def test_rows_are_compared_field_by_field_and_those_asked_for_twice_once() -> None:
    reads = [READ, READ, Read("id", "2", ("username",)), Read("id", "3", ())]
    first = Rows([[b'"a"', b"1"], [b'"a"', b"1"], None, []], "view", "g1", 1)
    second = Rows([[b'"b"', b"2"], [b'"b"', b"2"], [b'"c"'], None], "sql", None, 2)
    found = differences(reads, first, second, 3)
    assert [(one.read.value, one.field, one.values) for one in found] == [
        ("1", "username", (b'"a"', b'"b"')),
        ("1", "tweet_count", (b"1", b"2")),
        ("2", ROW, (None, PRESENT)),
        ("3", ROW, (PRESENT, None)),
    ]


async def test_the_answers_of_every_road_can_be_compared(answered_by: str) -> None:
    spoilt = {key: row | {"username": "other"} for key, row in BY_ID.items()}
    app, trial = shadowed_by(MemoryLoader(spoilt, mode="sql"))
    trial.shadows._patience_seconds = 0
    async with asking(app, answered_by) as client:
        await ask(client, '{ a: user(id: "1") { username } users(ids: ["1", "2"]) { username id } }')
        await ask(client, '{ user(id: "1") { tweetCount } }')
        await ask(client, "{ __typename }")
        await until(lambda: idle(trial.shadows), 10)
    assert trial.running
    run = trial.running.run
    assert run.counts == {"shadow:sql:candidate:stale": 1, "shadow:sql:candidate:equal": 1, "field:sql:candidate:stale:username": 3}
