"""The measurements of growth: they run, they notice what is wrong, and their picture is drawn to scale."""

import json
import sys
from asyncio.subprocess import PIPE, STDOUT, create_subprocess_exec
from collections import Counter
from collections.abc import Sized
from functools import partial
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from app.settings import Settings
from bench import celebrity, endurance, rebuild
from bench.history import COUNTS, Amounts, History, Part
from bench.picture import Line, log_log
from bench.readers import Readers
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from loaders.sql import SqlLoader
from loaders.view import ViewLoader
from projectors.fold import fold
from projectors.records.envelope import decoder
from schema.definition import read_definition
from schema.loader import Read, Rows
from schema.user import UserView
from tests.request.arranged import BY_ID, View

DEFINITION = read_definition(UserView)
PARTS = [Part(number, 2, 4_000) for number in range(2)]
SVG = "{http://www.w3.org/2000/svg}"


async def bench(*arguments: str) -> str:
    process = await create_subprocess_exec(sys.executable, "-m", *arguments, stdout=PIPE, stderr=STDOUT)
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


def test_the_records_of_a_history_amount_to_what_it_tells() -> None:
    amounts, users = Amounts.nothing(PARTS[0].users), {}
    counted: dict[str, Counter[int | str]] = {name: Counter() for name in COUNTS}
    for part in PARTS:
        history = History(part)
        for topic, _, value in history.records():
            row = DEFINITION.topics[topic]
            effects = fold(DEFINITION, row, [(0, decoder(row)(value))])
            users.update(effects.profiles)
            for name, deltas in effects.counts.items():
                counted[name].update(deltas)
        amounts.add(history.amounts)
    assert users.keys() == set(range(1, PARTS[0].users + 1))
    assert all(
        user is not None and msgspec.structs.astuple(user) == msgspec.structs.astuple(amounts.user(int(key))) for key, user in users.items()
    )
    for name, counts in zip(COUNTS, amounts.counts, strict=True):
        assert {number: count for number, count in enumerate(counts, 1) if count} == {key: n for key, n in counted[name].items() if n}
    assert amounts.renamed


def test_a_history_is_the_same_each_time_and_no_two_parts_make_the_same_row() -> None:
    first, again, other = (list(History(part).records()) for part in (PARTS[0], PARTS[0], PARTS[1]))
    assert first == again
    assert {(topic, key) for topic, key, _ in first}.isdisjoint({(topic, key) for topic, key, _ in other})
    of_each = Counter((topic, value[7:8]) for topic, _, value in first)
    assert of_each["users", b"u"] * 3 == of_each["users", b"c"]
    assert of_each["follows", b"d"] * 9 == of_each["follows", b"c"]


async def came(what: Sized, count: int) -> None:
    if len(what) < count:
        raise NotReadyError(f"{len(what)} of {count}")


async def test_readers_tell_wrong_answers_from_right_ones(view: View) -> None:
    draws = iter(["1", "2"] * 10_000)
    right = {key: await _row(view, key) for key in BY_ID}
    for expected, wrong in ((right, False), ({**right, "2": right["1"]}, True)):
        readers = Readers(view.redis, DEFINITION, 1000, lambda: next(draws), expected.__getitem__)
        async with readers.reading() as reads:
            await until(partial(came, reads.seconds, 20), 20)
        assert (bool(reads.wrong), reads.failed, reads.generations) == (wrong, [], ["g1"])
        assert all(told.startswith("2:") for told in reads.wrong)


async def test_readers_tell_of_a_generation_that_answers_again(view: View) -> None:
    readers = Readers(view.redis, DEFINITION, 1000, lambda: "1", {"1": await _row(view, "1")}.__getitem__)
    readers.reads.generations += ["g1", "g2"]
    async with readers.reading() as reads:
        await until(partial(came, reads.wrong, 1), 20)
    assert reads.wrong[0] == "1: answered by g1 again, after g2"


async def test_readers_tell_of_reads_that_failed(view: View) -> None:
    await view.redis.delete(view.header("99"))
    readers = Readers(view.redis, DEFINITION, 1000, lambda: "99", lambda _: [])
    async with readers.reading() as reads:
        await until(partial(came, reads.failed, 1), 20)
    assert "is lost" in reads.failed[0]
    assert reads.seconds == []


async def _row(view: View, key: str) -> list[bytes]:
    (row,) = (await ViewLoader(view.redis, DEFINITION).load([Read("id", key, rebuild.FIELDS)])).rows
    assert row is not None
    return list(row)


async def test_a_quick_rebuild_is_right_under_readers(apache_kafka_at: Server, redis_at: Server, tmp_path: Path) -> None:
    if redis_at.kind == "embedded":
        pytest.skip("needs an installed redis-server")
    figures = tmp_path / "figures.json"
    await bench("bench.rebuild", "--changes", "20000", "--json", str(figures))
    found = json.loads(figures.read_text())
    assert (found["changes"], found["users"], found["wrong"], found["failed"]) == (20_000, 600, [], [])
    assert found["generations"] == ["g1", "g2"]
    assert found["reads"] > 0


async def test_a_row_that_is_wrong_or_one_too_many_fails_the_rebuild(view: View) -> None:
    amounts = Amounts.nothing(2)
    run = rebuild.Run(Settings(), [], Path(), amounts)
    with pytest.raises(rebuild.RowsDiffer, match="user 1 of g1 is"):
        await run.check(view.redis, "g1", 2)
    with pytest.raises(rebuild.RowsDiffer, match=f"g1 has {len(BY_ID)} rows, and there are 0 users"):
        await run.check(view.redis, "g1", 0)


async def test_a_short_run_of_the_projector_is_right_and_its_memory_looked_at(
    apache_kafka_at: Server, redis_at: Server, tmp_path: Path
) -> None:
    if redis_at.kind == "embedded":
        pytest.skip("needs an installed redis-server")
    figures = tmp_path / "figures.json"
    assert "too short to tell" in await bench("bench.endurance", "--quick", "--minutes", "0.2", "--json", str(figures))
    found = json.loads(figures.read_text())
    assert found["events"] == 20_000 * found["rounds"] > 0
    assert found["looks"][-1]["events"] > found["looks"][0]["events"]
    assert all(look["mb"] > 20 for look in found["looks"])


@pytest.mark.parametrize(("grown", "flat"), [(0.0, True), (0.04, True), (0.06, False)])
def test_memory_that_grows_is_not_called_flat(grown: float, flat: bool) -> None:
    looks = [endurance.Look(second, second, 50.0 if second < 60 else 100 * (1 + grown * (second - 60) / 510)) for second in range(600)]
    figures = endurance.Figures(10, 1, 1, looks, "")
    assert figures.flat is flat
    assert endurance.Figures(9, 1, 1, looks, "").flat is None


async def test_counts_that_differ_fail_the_run_of_the_projector(view: View) -> None:
    redis = view.redis.connection_pool.connection_kwargs
    settings = Settings(redis_url=f"redis://{redis['host']}:{redis['port']}/{redis.get('db', 0)}")
    with pytest.raises(endurance.CountsDiffer, match="users differ after 3 rounds"):
        await endurance._check(settings, 1_000, 3)


async def test_a_quick_look_at_a_celebrity_is_drawn(redis_at: Server, postgres_at: Server, tmp_path: Path) -> None:
    if "embedded" in {redis_at.kind, postgres_at.kind}:
        pytest.skip("needs an installed redis-server and PostgreSQL")
    figures, picture = tmp_path / "figures.json", tmp_path / "picture.svg"
    await bench("bench.celebrity", "--quick", "--json", str(figures), "--picture", str(picture))
    assert [point["followers"] for point in json.loads(figures.read_text())["points"]] == [10**4, 10**5]
    assert len(list(ElementTree.parse(picture).iter(f"{SVG}circle"))) == 4


async def test_a_celebrity_is_not_timed_where_the_loaders_differ(
    redis_at: Server, postgres_at: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "embedded" in {redis_at.kind, postgres_at.kind}:
        pytest.skip("needs an installed redis-server and PostgreSQL")
    load = SqlLoader.load

    async def one_too_few(loader: SqlLoader, reads: list[Read]) -> Rows:
        rows = await load(loader, reads)
        return Rows([[*list(row or ())[:-1], b"-1"] for row in rows.rows], rows.mode, rows.generation, rows.as_of_ms)

    monkeypatch.setattr(SqlLoader, "load", one_too_few)
    with pytest.raises(celebrity.AnswersDiffer, match="with 10 followers"):
        await celebrity.measure([10], 0)


def test_a_picture_has_its_points_where_their_logarithms_are() -> None:
    drawn = ElementTree.fromstring(log_log("a < b", "rows", "ms", [Line("one", [(1, 1), (10, 10), (100, 100)])]))
    spots = [(float(spot.attrib["cx"]), float(spot.attrib["cy"])) for spot in drawn.iter(f"{SVG}circle")]
    across = [right[0] - left[0] for left, right in pairwise(spots)]
    up = [left[1] - right[1] for left, right in pairwise(spots)]
    assert across == pytest.approx([across[0]] * 2, abs=0.2)
    assert up == pytest.approx([up[0]] * 2, abs=0.2)
    assert across[0] > 0 < up[0]
    assert drawn.attrib["aria-label"] == "a < b"
