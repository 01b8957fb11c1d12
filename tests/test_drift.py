"""`viewgate drift`: its plan, its writers and its ways one by one, then all of it; what must part parts, what must not does not."""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import asyncpg
import pytest
import typer

from demo import seed as seeds
from demo.drift import picture, report
from demo.drift.board import Board
from demo.drift.command import ALL, chosen
from demo.drift.compare import Apart, right_percent
from demo.drift.course import COURSES
from demo.drift.experiment import Outcome, Point, _agreed, kills
from demo.drift.outbox import TABLE, UserView, create_outbox
from demo.drift.plan import RACE_EVERY, Act, Delete, Edit, Insert, mark, owned, plan, size_of
from demo.drift.road import Traffic
from demo.drift.rows import insert_all
from demo.drift.ways import WAYS, SingleWrite
from demo.drift.writer import AT_ONCE, Writer
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from demo.tables import create_tables
from projectors.audit import Mismatch, Report
from schema import user
from schema.definition import read_definition
from schema.fields import Row
from schema.user import Users
from tests.demos import clean, need_real_servers, place
from tests.road import make_database

SIZE = size_of(200)
SVG = "{http://www.w3.org/2000/svg}"


def test_a_seed_makes_the_same_plan_every_time_and_another_seed_another() -> None:
    assert plan(SIZE, 1, 300) == plan(SIZE, 1, 300)
    assert plan(SIZE, 1, 300) != plan(SIZE, 2, 300)


def test_no_row_is_inserted_or_deleted_twice_and_nobody_is_edited_who_leaves() -> None:
    acts = [act for acts in plan(SIZE, 1, 2000) for act in acts]
    inserted = [_key(act.row) for act in acts if isinstance(act, Insert)]
    deleted = [(act.table, act.key) for act in acts if isinstance(act, Delete)]
    edited = {(Users, act.user_id) for act in acts if isinstance(act, Edit)}
    seeded = {_key(row) for row in seeds.rows(SIZE)}
    assert len(set(inserted)) == len(inserted) > 1000
    assert len(set(deleted)) == len(deleted) > 100
    assert set(deleted) <= seeded
    assert seeded.isdisjoint(inserted)
    assert edited.isdisjoint(deleted)
    assert (Users, mark(SIZE, 1).user_id) not in edited | set(deleted)


def test_both_writers_edit_the_same_user_differently_at_every_race() -> None:
    mine, theirs = plan(SIZE, 1, 400)
    races = list(zip(mine, theirs, strict=True))[::RACE_EVERY]
    assert len(races) == 50
    for one, other in races:
        assert isinstance(one, Edit)
        assert isinstance(other, Edit)
        assert one.user_id == other.user_id
        assert one.columns["location"] != other.columns["location"]


def test_the_same_acts_are_dealt_so_that_each_user_is_edited_by_one_writer_and_bursts_stay_equal() -> None:
    lists = plan(SIZE, 1, 500)
    dealt = owned(lists, 250)
    assert [len(acts) for acts in dealt] == [500, 500]
    for start in (0, 250):
        before, after = ([act for acts in some for act in acts[start : start + 250]] for some in (lists, dealt))
        assert Counter(map(str, before)) == Counter(map(str, after))
    edited = [{act.user_id for act in acts if isinstance(act, Edit)} for acts in dealt]
    assert edited[0]
    assert edited[0].isdisjoint(edited[1])


def test_no_two_users_are_ever_given_one_name() -> None:
    acts = [act for acts in plan(SIZE, 1, 2000) for act in acts]
    names = [act.columns["username"] for act in acts if isinstance(act, Edit) and "username" in act.columns]
    names += [row.username for row in [*seeds.rows(SIZE), *(act.row for act in acts if isinstance(act, Insert))] if isinstance(row, Users)]
    assert [name for name, times in Counter(names).items() if times > 1] == []


def test_kills_take_the_writers_in_turn_within_their_burst_and_spare_the_first() -> None:
    drawn = list(kills(Traffic(200, 1, 7, 300, 500.0)))
    assert drawn == list(kills(Traffic(200, 1, 7, 300, 500.0)))
    assert drawn[0] is None
    for number, kill in enumerate(drawn[1:], 1):
        assert kill is not None
        assert kill.writer == number % 2
        assert number * 300 < kill.at < (number + 1) * 300


class _Remembering:
    """A way that only notes what it was to do; after so many acts it hangs, until it is let go on."""

    def __init__(self, hangs_after: int) -> None:
        self.done: list[Act] = []
        self._hangs_after, self.goes_on = hangs_after, asyncio.Event()

    async def do(self, act: Act) -> None:
        self.done.append(act)
        if len(self.done) > self._hangs_after:
            await self.goes_on.wait()


async def test_a_writer_that_was_killed_goes_on_after_the_last_act_that_it_began(tmp_path: Path) -> None:
    acts, way, board = plan(SIZE, 1, 60)[0], _Remembering(20), Board(tmp_path / "board")
    board.until = 60
    killed = asyncio.create_task(Writer(acts, way, Board(tmp_path / "board"), 2000).run(asyncio.Event()))
    # as many as are served at once, and no more
    await until(lambda: _begun(board, 20 + AT_ONCE), 10)
    killed.cancel()
    await asyncio.gather(killed, return_exceptions=True)
    assert (board.begun, len(way.done), board.done) == (20 + AT_ONCE, 20 + AT_ONCE, 0)
    way.goes_on.set()
    stop = asyncio.Event()
    second = asyncio.create_task(Writer(acts, way, Board(tmp_path / "board"), 2000).run(stop))
    await until(lambda: _done(board, 60), 10)
    stop.set()
    await second
    assert way.done == list(acts)


async def _begun(board: Board, number: int) -> None:
    if board.begun < number:
        raise NotReadyError(f"{board.begun} begun")


async def _done(board: Board, number: int) -> None:
    if board.done < number:
        raise NotReadyError(f"{board.done} done")


class _Kafka:
    """Stands in for a publisher: keeps what was published; where it is `dead`, the service dies before the answer comes."""

    def __init__(self) -> None:
        self.records: list[tuple[str, Row | None, Row | None]] = []
        self.dead = self.lost = False

    async def acknowledged(self, op: str, before: Row | None, after: Row | None, ts_ms: int) -> None:
        if not self.lost:
            self.records.append((op, before, after))
        if self.dead:
            raise ServiceDied


class ServiceDied(Exception):
    """In the middle of an act."""


@pytest.fixture
async def pool(postgres_at: Server) -> AsyncIterator[asyncpg.Pool]:
    """Ten users in the tables, and an outbox."""
    definition = read_definition(user.UserView)
    connection = await asyncpg.connect(postgres_at.address)
    await connection.execute("DROP DATABASE IF EXISTS drift_ways")
    await connection.close()
    async with asyncpg.create_pool(await make_database(postgres_at, "drift_ways"), min_size=1, max_size=2) as opened:
        await create_tables(opened, definition)
        await create_outbox(opened, definition)
        async with opened.acquire() as taken:
            await insert_all(taken, [seeds.user(number) for number in range(1, 11)])
        yield opened


EDIT = Edit(3, {"location": "Elsewhere"})


@pytest.mark.parametrize("way", list(WAYS))
async def test_a_way_does_insert_edit_and_delete_as_it_says(pool: asyncpg.Pool, way: str) -> None:
    kafka = _Kafka()
    service = WAYS[way](pool, kafka)  # type: ignore[arg-type]  # what a way asks of a publisher, it has
    before = await _user(pool, 3)
    for act in (EDIT, Delete(Users, 4), Insert(seeds.user(11)), Delete(Users, 999)):
        await service.do(act)
    writes_itself, publishes = way != "single-write", way not in {"cdc", "outbox"}
    assert await _ids(pool) == ({1, 2, 3, 5, 6, 7, 8, 9, 10, 11} if writes_itself else set(range(1, 11)))
    assert ((await _user(pool, 3))["location"] == "Elsewhere") is writes_itself
    assert [op for op, _, _ in kafka.records] == (["u", "d", "c"] if publishes else [])
    if publishes:
        _, old, new = kafka.records[0]
        assert isinstance(old, Users)
        assert isinstance(new, Users)
        assert (old.location, new.location, old.username) == (before["location"], "Elsewhere", new.username)
    posted = [json.loads(payload)["op"] for (payload,) in await pool.fetch(f"SELECT payload FROM {TABLE} ORDER BY id")]
    assert posted == (["u", "d", "c"] if way == "outbox" else [])


async def test_single_write_tells_what_it_published_last_also_where_postgresql_does_not_have_it_yet(pool: asyncpg.Pool) -> None:
    kafka = _Kafka()
    service = SingleWrite(pool, kafka)  # type: ignore[arg-type]  # see above
    await asyncio.gather(*(service.do(Edit(3, {"username": f"name_{number}"})) for number in range(4)))
    told = [
        (before.username, after.username) for _, before, after in kafka.records if isinstance(before, Users) and isinstance(after, Users)
    ]
    assert len(told) == 4
    assert [before for before, _ in told[1:]] == [after for _, after in told[:-1]]


@pytest.mark.parametrize(("way", "in_database", "in_kafka"), [("dual-write", True, False), ("publish-first", False, True)])
async def test_dual_write_that_dies_between_its_two_writes_has_done_one(
    pool: asyncpg.Pool, way: str, in_database: bool, in_kafka: bool
) -> None:
    kafka = _Kafka()
    # before its record reaches Kafka, or after
    kafka.dead, kafka.lost = True, not in_kafka
    with pytest.raises(ServiceDied):
        await WAYS[way](pool, kafka).do(EDIT)  # type: ignore[arg-type]  # see above
    assert ((await _user(pool, 3))["location"] == "Elsewhere", bool(kafka.records)) == (in_database, in_kafka)


async def test_an_outbox_whose_message_is_refused_has_no_row_either(pool: asyncpg.Pool) -> None:
    await pool.execute(f"ALTER TABLE {TABLE} ADD CHECK (aggregate <> 'users')")
    with pytest.raises(asyncpg.CheckViolationError):
        await WAYS["outbox"](pool, _Kafka()).do(EDIT)  # type: ignore[arg-type]  # see above
    assert (await _user(pool, 3))["location"] != "Elsewhere"


async def _user(pool: asyncpg.Pool, number: int) -> asyncpg.Record:
    found = await pool.fetchrow("SELECT * FROM users WHERE user_id = $1", number)
    assert found
    return found


async def _ids(pool: asyncpg.Pool) -> set[int]:
    return {number for (number,) in await pool.fetch("SELECT user_id FROM users")}


def test_the_view_by_the_outbox_is_the_same_view_from_other_topics() -> None:
    ours, theirs = read_definition(user.UserView), read_definition(UserView, "outbox.public.outbox_")
    assert [(f.name, f.type, f.nullable, f.description) for f in theirs.fields] == [
        (f.name, f.type, f.nullable, f.description) for f in ours.fields
    ]
    assert [row.source.table for row in theirs.rows] == [row.source.table for row in ours.rows]
    assert {row.source.form for row in theirs.rows} == {"outbox"}


def test_reads_of_the_popular_weigh_more() -> None:
    assert right_percent({}, 1000) == 100
    assert right_percent({"1": 0}, 1000) < right_percent({"500": 0, "501": 0, "502": 0}, 1000) < 100
    assert right_percent({str(number): 0 for number in range(1, 1001)}, 1000) == pytest.approx(0)
    # who joined later is read by nobody yet
    assert right_percent({"1001": 0}, 1000) == 100


def test_the_curve_in_the_table_shows_one_wrong_user_and_no_lowest_bar_for_it() -> None:
    assert report.curve([0, 1, 350, 700], 700) == "▁▂▅█"
    assert report.percent(99.9999) == "99.99"
    assert report.percent(100) == "100"


def test_two_looks_that_do_not_agree_are_refused() -> None:
    course, apart = COURSES["cdc"], Apart(10, {"3": ("location",)}, 0, 90.0)
    lookup = Mismatch("cats_3", "by username", None, b'"3"')
    assert _agreed(course, apart, Report(mismatches=[Mismatch("3", "location", b'"a"', b'"b"'), lookup])) == 1
    with pytest.raises(Exception, match="the audit finds"):
        _agreed(course, apart, Report())


def test_a_way_that_must_be_exact_fails_by_one_user_or_one_lookup_and_dual_write_by_none() -> None:
    def outcome(way: str, differing: dict[str, tuple[str, ...]], lookups: int = 0) -> Outcome:
        return Outcome(COURSES[way], [Point(1, 10, Apart(10, differing, 0, 99.0))], lookups)

    assert not outcome("cdc", {}).failed
    assert outcome("cdc", {"1": ("name",)}).failed
    assert outcome("outbox", {}, 1).failed
    assert not outcome("dual-write", {"1": ("name",)}).failed


def test_the_picture_is_drawn_to_scale_and_those_that_never_part_share_a_line() -> None:
    lines = [picture.Line("dual-write", [2, 10, 20]), picture.Line("cdc", [0, 0, 0]), picture.Line("outbox", [0, 0, 0])]
    root = ElementTree.fromstring(picture.drawn("Title", "Under it", "kills", lines))
    spots = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in root.iter(f"{SVG}circle")]
    (x0, y0), (x1, y1), (x2, y2), (flat_x, zero) = spots
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert [(zero - y0), (zero - y1)] == [pytest.approx((zero - y2) * 0.1, abs=0.3), pytest.approx((zero - y2) * 0.5, abs=0.3)]
    assert flat_x == x2
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"dual-write", "cdc", "outbox", "20 users wrong", "0 users wrong"} <= set(texts)
    assert "prefers-color-scheme: dark" in (root.findtext(f"{SVG}style") or "")


def test_names_of_curves_that_end_together_stand_apart() -> None:
    lines = [picture.Line(name, [0, value]) for name, value in (("one", 20), ("other", 20), ("third", 1))]
    root = ElementTree.fromstring(picture.drawn("Title", "", "kills", [*lines, picture.Line("cdc", [0, 0])]))
    heights = sorted(float(text.attrib["y"]) for text in root.iter(f"{SVG}text") if text.attrib.get("class") == "name")
    assert len(heights) == 4
    assert all(lower - upper >= 17 for upper, lower in pairwise(heights))


def test_nothing_at_all_can_be_drawn_too() -> None:
    ElementTree.fromstring(picture.drawn("Title", "", "kills", [picture.Line("cdc", [0])]))


def test_a_way_that_is_none_is_refused_with_those_that_are() -> None:
    assert [course.way for course in chosen(ALL)] == list(WAYS) == list(COURSES)
    with pytest.raises(typer.BadParameter, match=r"'triple-write': there is dual-write, "):
        chosen("cdc,triple-write")


@pytest.mark.servers
@pytest.mark.timeout(600)
async def test_dual_write_parts_and_the_other_ways_do_not() -> None:
    await need_real_servers()
    with place() as folder:
        code, output = await _drift(folder, "--quick", "--seed", "1", "--json", "--picture", str(folder / "drift.svg"))
        assert code == 0, output
        found = json.loads(output.splitlines()[-1])
        ElementTree.parse(folder / "drift.svg")
    ways = {way["way"]: way for way in found["ways"]}
    if os.environ.get("CI") == "true":
        assert found["not_run"] == []
    assert ways["dual-write"]["users_that_differ"] > 0
    assert ways["dual-write"]["points"][-1]["kills"] == 3
    for name in set(ways) - {"dual-write"}:
        assert (ways[name]["users_that_differ"], ways[name]["lookups"]) == (0, 0), ways[name]
    assert {"dual-write", "single-write"} <= set(ways)
    assert len({way["changes"] for way in ways.values()}) == 1


async def _drift(folder: Path, *options: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "drift", *options, cwd=folder, env=clean(folder), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


def _key(row: Row) -> tuple[type[Row], int]:
    return type(row), int(getattr(row, row.source.key))
