"""A changelog becomes changes that can be undone: whatever was compacted away, whoever broke off, and whoever came back too late."""

import contextlib
from collections import Counter
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from aiokafka.errors import KafkaError, KafkaTimeoutError, ProducerFenced
from hypothesis import given, settings
from hypothesis import strategies as st

from projectors import stage
from projectors.log import RetentionPassed
from projectors.reading import SourceChanged
from projectors.records.envelope import Change, Undecodable
from projectors.rows import LARGEST, Reached, Rows, reached_of
from schema.fields import Row
from tests.message.changelog import KEPT_SECONDS, PEOPLE, WINDOW_MS, Fault, People, World, person, read, stored

ADA, ADA_OLDER, BOB = person(1, "ada"), person(1, "ada", 36), person(2, "bob")


def change(rows: Rows, key: bytes | None, value: bytes | None, timestamp: int = 7) -> Change[People] | None:
    made = rows.change(stored(0, key, value, timestamp))
    return None if made is None else read(made)


def test_the_first_value_creates_the_next_updates_and_a_tombstone_deletes() -> None:
    rows = Rows(People)
    assert change(rows, b"1", ADA) == Change("c", None, People(1, "ada", None), 7)
    assert change(rows, b"1", ADA_OLDER) == Change("u", People(1, "ada", None), People(1, "ada", 36), 7)
    assert change(rows, b"1", None) == Change("d", People(1, "ada", 36), None, 7)
    assert len(rows) == 0


def test_the_same_value_again_and_a_tombstone_of_nothing_change_nothing() -> None:
    rows = Rows(People)
    change(rows, b"1", ADA)
    assert change(rows, b"1", ADA) is None
    assert change(rows, b"2", None) is None


def test_columns_that_are_not_declared_are_kept_for_a_later_definition() -> None:
    rows = Rows(People)
    made = rows.change(stored(0, b"1", b'{"person_id":1,"username":"ada","age":null,"city":"London"}'))
    assert made is not None
    assert msgspec.json.decode(made)["after"]["city"] == "London"


def test_any_bytes_are_a_key_as_long_as_they_are_the_same_for_a_row() -> None:
    rows, eight_bytes = Rows(People), (1).to_bytes(8)
    change(rows, eight_bytes, ADA)
    assert change(rows, eight_bytes, None) == Change("d", People(1, "ada", None), None, 7)


def test_a_row_in_a_block_with_its_schema_is_the_row() -> None:
    rows = Rows(People)
    change(rows, b"1", ADA)
    assert change(rows, b"1", b'{"schema": {"type": "struct"}, "payload": %s}' % ADA) is None
    assert change(rows, b"1", b'{"schema": null, "payload": %s}' % ADA_OLDER) is not None


@pytest.mark.parametrize("gone", [b"null", b" null\n", b'{"schema": {"type": "struct"}, "payload": null}'])
def test_a_row_that_is_null_in_json_is_gone(gone: bytes) -> None:
    rows = Rows(People)
    change(rows, b"1", ADA)
    assert not rows.has(stored(0, b"1", gone))
    assert change(rows, b"1", gone) == Change("d", People(1, "ada", None), None, 7)
    assert rows.has(stored(0, b"1", gone))
    assert change(rows, b"1", gone) is None


def test_a_time_that_nobody_told_is_null() -> None:
    made = change(Rows(People), b"1", ADA, timestamp=-1)
    assert made is not None
    assert made.ts_ms is None


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (None, ADA, "needs a key"),
        (b"1", b"{", "truncated"),
        (b"1", b"\xff\xfe", "malformed"),
        (b"1", b'{"person_id":1,"username":"\xff","age":null}', "utf-8"),
        (b"1", b'{"person_id":"1","username":"ada","age":null}', "Expected `int`, got `str`"),
        (b"1", b'{"person_id":1,"username":null,"age":null}', "Expected `str`, got `null`"),
        (b"1", b'{"person_id":1,"age":null}', "missing required field `username`"),
        (b"1", b'{"person_id":3,"username":"ada","age":null}', "changes the key 'person_id'"),
        (b"1", ADA + b',"after":{}', "malformed"),
        (b"1", b'{"person_id":1,"username":"' + b"a" * LARGEST + b'","age":null}', "the most that there is room for"),
    ],
)
def test_what_is_no_row_is_refused_with_the_reason_and_the_row_stays(key: bytes | None, value: bytes, reason: str) -> None:
    rows = Rows(People)
    change(rows, b"1", ADA)
    with pytest.raises(Undecodable, match=reason):
        rows.change(stored(1, key, value))
    assert change(rows, b"1", ADA_OLDER) == Change("u", People(1, "ada", None), People(1, "ada", 36), 7)


def test_what_was_written_is_recalled() -> None:
    written, recalled = Rows(People), Rows(People)
    for value in (ADA, ADA_OLDER):
        made = written.change(stored(0, b"1", value))
        reached = Reached(5, 6, "id")
        assert recalled.recall(stored(0, b"1", made)) is None
    record = stored(0, b"2", written.change(stored(1, b"2", BOB)))
    record.headers = [("viewgate-reached", reached.encode())]
    assert recalled.recall(record) == reached_of(record) == reached
    assert change(recalled, b"1", None) == Change("d", People(1, "ada", 36), None, 7)
    assert len(recalled) == 1


async def test_an_undecodable_value_is_buried_where_it_lay_and_the_rest_goes_on() -> None:
    world = World()
    await world.open()
    world.source.put(b"1", ADA)
    world.source.put(b"1", b"{}")
    world.source.put(b"2", BOB)
    await world.level()
    ((partition, offset, reason),) = world.buried.letters
    assert (partition, offset) == (PEOPLE, 1)
    assert "missing required field" in reason
    assert world.state() == {1: People(1, "ada", None), 2: People(2, "bob", None)}


class Strict(Row, topic="people", key="person_id", form="changelog"):
    """As People, by a mistake: not everybody tells an age."""

    person_id: int
    username: str
    age: int


async def test_what_was_buried_by_a_wrong_declaration_is_a_row_once_it_is_mended() -> None:
    world = World()
    await world.open(row=Strict)
    world.source.put(b"1", ADA)
    world.source.put(b"2", person(2, "bob", 40))
    world.source.put(b"2", BOB)
    await world.level()
    assert (len(world.topic.changes()), len(world.buried.letters)) == (1, 2)
    await world.open()
    await world.level()
    assert world.state() == world.published() == {1: People(1, "ada", None), 2: People(2, "bob", None)}
    written = len(world.topic.written)
    await world.open()
    await world.level()
    # once, and not at each start
    assert (len(world.topic.written), len(world.buried.letters)) == (written, 2)


async def test_a_stage_that_is_shut_out_writes_nothing() -> None:
    world = World()
    zombie = await world.open()
    world.source.put(b"1", ADA)
    batch = world.source.batch(0, 10)
    await world.open()
    await world.level()
    with pytest.raises(ProducerFenced):
        await zombie.take(batch)
    assert world.state() == world.published()


@pytest.mark.parametrize("fault", ["before", "after"])
async def test_a_transaction_whose_answer_is_lost_is_neither_lost_nor_repeated(fault: Fault) -> None:
    world = World()
    await world.open()
    world.source.put(b"1", ADA)
    world.journal.fault = fault
    with pytest.raises(KafkaTimeoutError):
        await world.turn()
    await world.open()
    await world.level()
    assert len(world.topic.changes()) == 1
    assert world.state() == world.published()


async def test_a_batch_that_does_not_go_on_where_the_last_one_ended_is_thrown_away() -> None:
    world = World()
    opened = await world.open()
    world.source.put(b"1", ADA)
    world.source.put(b"1", ADA_OLDER)
    await opened.take(world.source.batch(1, 10))
    assert opened.reached.offset == 0
    assert not world.topic.written


async def away(world: World, seconds: float) -> None:
    """Ada and Bob are known, the stage leaves, and Ada is deleted; Kafka forgets it as soon as it may."""
    await world.open()
    world.source.put(b"1", ADA)
    world.source.put(b"2", BOB)
    await world.level()
    await world.turn()
    await world.stage.mark()
    world.source.put(b"1", None)
    world.clock.seconds += seconds
    world.source.compact(world.source.end)
    await world.open()


async def test_a_row_whose_tombstone_was_forgotten_meanwhile_is_deleted_all_the_same() -> None:
    world = World()
    await away(world, KEPT_SECONDS + 1)
    assert [record.key for record in world.source.records_] == [b"2"]
    await world.turn()
    assert world.stage.reached.offset == world.source.end
    assert world.state() == world.published() == {2: People(2, "bob", None)}
    assert not world.stage.may_have_missed


async def test_one_that_was_away_for_less_reads_on_and_not_all() -> None:
    world = World()
    await away(world, WINDOW_MS / 1000 - 1)
    assert not world.stage.may_have_missed
    await world.level()
    assert world.state() == world.published()


async def test_a_stage_that_lags_reads_all_even_if_it_never_went_away() -> None:
    world = World()
    await world.open()
    for value in (ADA, ADA_OLDER, ADA, ADA_OLDER, None):
        world.source.put(b"1", value)
    for _ in range(2):
        await world.turn(limit=1)
    world.clock.seconds += KEPT_SECONDS + 1
    world.source.compact(world.source.end)
    await world.level()
    assert world.state() == {}


async def test_a_stage_that_never_gets_to_the_end_is_not_level() -> None:
    world = World()
    await world.open()
    world.source.put(b"1", ADA)
    world.source.put(b"2", BOB)
    world.source.put(b"2", None)
    world.source.put(b"1", None)
    for _ in range(3):
        await world.turn(limit=1)
        world.source.put(b"3", person(3, "eve", world.source.end))
        world.clock.seconds += 0.8 * WINDOW_MS / 1000
    world.source.compact(world.source.end)
    await world.level()
    assert world.state() == world.published()


async def test_a_transaction_tells_where_its_batch_ends_and_not_its_last_change() -> None:
    world = World()
    await world.open()
    for value in (ADA, ADA_OLDER, ADA_OLDER):
        world.source.put(b"1", value)
    await world.turn()
    told = [reached_of(record) for record in world.topic.written]
    assert [reached and reached[:2] for reached in told] == [(1, 1_000_000_000), (3, 1_000_000_000)]


async def test_a_reading_of_all_that_took_too_long_is_done_again() -> None:
    world = World()
    await away(world, KEPT_SECONDS + 1)
    world.source.put(b"3", person(3, "eve"))

    def slow() -> None:
        world.source.put(b"2", None)
        world.clock.seconds += KEPT_SECONDS + 1
        world.source.compact(world.source.end)

    world.source.meanwhile.append(slow)
    await world.level()
    assert world.state() == world.published() == {3: People(3, "eve", None)}


async def test_one_broken_off_in_the_middle_of_it_does_it_again() -> None:
    world = World()
    await away(world, KEPT_SECONDS + 1)
    world.source.put(b"2", person(2, "robert"))
    world.source.put(b"3", person(3, "eve"))
    for done in (1, 2):
        world.journal.fault = "after"
        with patch.object(stage, "AT_ONCE", 1), pytest.raises(KafkaTimeoutError):
            await world.turn()
        assert len(world.topic.changes()) == 2 + done
        await world.open()
    await world.level()
    assert world.state() == world.published()


async def test_how_far_a_quiet_topic_was_read_is_written_when_first_level_and_then_seldom() -> None:
    world = World()
    await world.open()
    world.source.put(b"1", None)
    await world.level()
    await world.stage.mark(after_ms=1000)
    assert [record.value for record in world.topic.written] == [None]
    for seconds in (0.5, 0.6):
        world.clock.seconds += seconds
        await world.turn()
        await world.stage.mark(after_ms=1000)
    assert len(world.topic.written) == 2
    assert (await world.open()).reached[:3] == (1, world.clock.now_ms(), "first")


async def test_a_topic_made_anew_or_cut_or_emptied_stops_the_stage() -> None:
    world = World()
    await world.open()
    world.source.put(b"1", ADA)
    await world.level()
    with pytest.raises(SourceChanged, match="people was deleted and made anew"):
        await world.open("second")
    world.source.end = 0
    with pytest.raises(SourceChanged, match="ends at offset 0, but its rows are of offset 1"):
        await world.open()
    world.source.first = world.source.end = 5
    with pytest.raises(RetentionPassed, match="begins at offset 5"):
        await world.open()


_KEYS = st.integers(1, 3)
_VALUES = st.tuples(_KEYS, st.sampled_from("abc"), st.sampled_from([None, 1]))
STEPS = st.one_of(
    st.tuples(st.just("put"), _VALUES),
    st.tuples(st.just("put"), _VALUES),
    st.tuples(st.just("tombstone"), _KEYS),
    st.tuples(st.just("bad"), _KEYS),
    st.tuples(st.just("compact"), st.integers(0, 40)),
    st.tuples(st.just("turn"), st.integers(1, 5)),
    st.tuples(st.just("turn"), st.integers(1, 5)),
    st.tuples(st.just("fault"), st.sampled_from(["before", "after"])),
    st.tuples(st.just("takeover"), st.just(0)),
    st.tuples(st.just("late"), st.integers(0, 5)),
    st.tuples(st.just("mark"), st.just(0)),
    st.tuples(st.just("wait"), st.sampled_from([1, int(WINDOW_MS / 1000), int(KEPT_SECONDS) + 1])),
)


class History:
    """Steps taken one after the other; `zombies` are stages that another took over from, with a batch in hand."""

    def __init__(self) -> None:
        self.world = World()
        self.zombies: list[Any] = []

    async def take(self, step: str, value: Any) -> None:
        world, source = self.world, self.world.source
        if step == "put":
            source.put(b"%d" % value[0], person(*value))
        elif step == "tombstone":
            source.put(b"%d" % value, None)
        elif step == "bad":
            known = source.newest.get(b"%d" % value)
            source.put(b"%d" % value, b"{}")
            source.put(b"%d" % value, known)
        elif step == "compact":
            source.compact(value)
        elif step == "turn":
            await world.turn(value)
        elif step == "fault":
            world.journal.fault = value
            await self.broken(world.turn())
        elif step == "takeover":
            self.zombies.append((world.stage, source.batch(world.stage.reached.offset, 3)))
            await world.open()
        elif step == "late" and self.zombies:
            zombie, batch = self.zombies[value % len(self.zombies)]
            await self.refused(zombie.take(batch))
        elif step == "mark":
            await world.stage.mark()
        elif step == "wait":
            world.clock.seconds += value

    async def broken(self, doing: Any) -> None:
        try:
            await doing
        except KafkaError:
            await self.world.open()
        self.world.journal.fault = "none"

    async def refused(self, doing: Any) -> None:
        written = len(self.world.topic.written)
        with contextlib.suppress(KafkaError):
            await doing
        assert len(self.world.topic.written) == written


@settings(max_examples=200, deadline=None)
@given(steps=st.lists(STEPS, max_size=50))
async def test_any_changelog_under_compaction_and_faults_counts_as_its_newest_rows_do(steps: list[tuple[str, Any]]) -> None:
    history = History()
    with patch.object(stage, "AT_ONCE", 1):
        await history.world.open()
        for step, value in steps:
            await history.take(step, value)
        await history.world.level()
    counted: Counter[str] = Counter()
    for made in history.world.topic.changes():
        counted.subtract([made.before.username] if made.before else [])
        counted.update([made.after.username] if made.after else [])
    published = history.world.published()
    assert history.world.state() == published
    # SELECT username, count(*) … GROUP BY username
    assert +counted == Counter(row.username for row in published.values())
