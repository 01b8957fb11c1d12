"""What is around a change: its key, its size, Kafka Connect's block with a schema, and Debezium's pair of LSNs."""

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projectors.records import LARGEST, decoder, decoders, envelope
from projectors.records.envelope import Change, Undecodable
from schema.definition import read_definition
from schema.fields import Row
from schema.user import Follows, UserView
from tests.faults.memory import Stored


class Visits(Row, topic="visits", key="visit_id", position="debezium"):
    visit_id: int
    began_at: datetime
    ended_at: datetime | None
    place: str


class Plain(Visits, topic="plain", key="visit_id"):
    pass


BEGAN = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROS = (BEGAN - EPOCH) // timedelta(microseconds=1)
VISIT = {"visit_id": 1, "began_at": "2026-01-02T03:04:05.000006Z", "ended_at": None, "place": "Nairobi"}
visit, plain = envelope.decoder(Visits), envelope.decoder(Plain)


def told(change: Change[Any] | None) -> tuple[Any, ...]:
    """A decoded row is of a class of its own, so what is compared is what it holds."""
    assert change is not None
    sides = [None if side is None else msgspec.structs.astuple(side) for side in (change.before, change.after)]
    return (change.op, *sides, change.ts_ms, change.pair)


def wire(row: dict[str, Any] | None, op: str = "c", before: dict[str, Any] | None = None, **more: Any) -> bytes:
    return msgspec.json.encode({"before": before, "after": row, "source": {}, "op": op, "ts_ms": 5, **more})


def paired(sequence: object) -> bytes:
    return wire(VISIT, source={"lsn": 5, "sequence": sequence})


def schema(**names: str) -> dict[str, Any]:
    """Kafka Connect's, with these logical names of columns."""
    columns = [{"type": "int64", "optional": False, "field": "visit_id"}]
    columns += [{"type": "int64", "optional": True, "name": name, "version": 1, "field": column} for column, name in names.items()]
    sides = [{"type": "struct", "fields": columns, "optional": True, "field": side} for side in ("before", "after")]
    source = {"type": "struct", "fields": [{"type": "int64", "field": "ts_ms"}], "field": "source"}
    return {"type": "struct", "fields": [*sides, source], "optional": False, "name": "app.public.visits.Envelope"}


def block(payload: bytes, **names: str) -> bytes:
    return b'{"schema":%s,"payload":%s}' % (msgspec.json.encode(schema(**names)), payload)


def test_a_record_without_a_key_is_refused_with_what_to_do() -> None:
    value = wire(VISIT)
    assert told(decoder(Plain)(Stored(0, 0, b"1", value))) == ("c", None, (1, BEGAN, None, "Nairobi"), 5, None)
    with pytest.raises(Undecodable, match="no key, so changes of one row may come in any order; publish it under the key of its row"):
        decoder(Plain)(Stored(0, 0, None, value))


@pytest.mark.parametrize("row", [Plain, Visits])
def test_a_truncate_has_no_key_and_is_told_all_the_same(row: type[Row]) -> None:
    change = decoder(row)(Stored(0, 0, None, wire(None, "t", source={"sequence": '["5","9"]'})))
    assert change is not None
    assert change.op == "t"


def test_a_tombstone_changes_nothing_even_without_a_key() -> None:
    assert decoder(Plain)(Stored(0, 0, b"1", None)) is decoder(Plain)(Stored(0, 0, None, None)) is None


def test_a_value_of_ten_megabytes_is_refused_and_one_that_just_fits_is_read() -> None:
    room = LARGEST - len(wire(VISIT | {"place": ""}))
    assert told(decoder(Plain)(Stored(0, 0, b"1", wire(VISIT | {"place": "x" * room}))))[2][3] == "x" * room
    with pytest.raises(Undecodable, match=r"the value has 10,\d{3},\d{3} bytes, and 8,388,608 is the most that is read"):
        decoder(Plain)(Stored(0, 0, b"1", wire(VISIT | {"place": "x" * 10_000_000})))


def test_every_topic_of_a_definition_has_a_decoder() -> None:
    of = decoders(read_definition(UserView, "app."))
    assert of.keys() == {"app.users", "app.tweets", "app.follows", "app.likes"}
    value = msgspec.json.encode({"op": "c", "after": Follows(1, 2, 3, BEGAN)})
    assert told(of["app.follows"](Stored(0, 0, b"1", value))) == ("c", None, (1, 2, 3, BEGAN), None, None)
    with pytest.raises(Undecodable, match="missing required field `like_id`"):
        of["app.likes"](Stored(0, 0, b"1", value))


@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_a_value_in_a_block_is_the_same_as_without(turned: bool, spaced: bool) -> None:
    value = wire(VISIT, "u", before=VISIT | {"place": "Berlin"})
    inner, outer = value, msgspec.json.encode(schema())
    around = b'{"payload":%s,"schema":%s}' % (inner, outer) if turned else b'{"schema":%s,"payload":%s}' % (outer, inner)
    assert plain(around.replace(b'":', b'" : ') if spaced else around) == plain(value)
    assert plain(b'{"schema":null,"payload":%s}' % value) == plain(value)


def test_values_in_a_block_and_without_may_come_in_any_order() -> None:
    """As while a converter's `schemas.enable` is changed."""
    decode, bare = envelope.decoder(Plain), wire(VISIT)
    for value in (bare, block(bare), block(bare), bare, b"{}", bare, block(bare, place="x"), bare):
        with contextlib.nullcontext() if value != b"{}" else pytest.raises(Undecodable):
            assert told(decode(value)) == ("c", None, (1, BEGAN, None, "Nairobi"), 5, None)


def test_an_envelope_that_bears_a_field_called_schema_is_no_block() -> None:
    assert plain(b'{"schema":1,' + wire(VISIT)[1:]) == plain(wire(VISIT))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (block(wire(VISIT | {"visit_id": "1"})), r"Expected `int`, got `str` - at `\$\.after\.visit_id`"),
        (block(wire(VISIT | {"place": None})), r"Expected `str`, got `null` - at `\$\.after\.place`"),
        (block(wire(VISIT, "x")), "Invalid enum value 'x'"),
        (block(b"null"), "Expected `object`, got `null`"),
        (block(b"{}"), "missing required field `op`"),
        (b'{"schema":{}}', "missing required field `op`"),
        (b'{"schema":{},"payload":', "truncated"),
        (b'{"schema":7,"payload":%s}' % wire(VISIT), r"Expected `object \| null`, got `int`"),
        (block(wire(None)), "op 'c' needs no before and an after"),
        (b'{"payload":%s,"schema":null}' % wire(VISIT, "d"), "op 'd' needs a before and no after"),
    ],
)
def test_what_is_wrong_inside_of_a_block_is_named(value: bytes, reason: str) -> None:
    with pytest.raises(Undecodable, match=reason):
        plain(value)


@pytest.mark.parametrize(
    ("name", "number", "moment"),
    [
        ("io.debezium.time.MicroTimestamp", MICROS, BEGAN),
        ("io.debezium.time.Timestamp", MICROS // 1000, BEGAN.replace(microsecond=0)),
        ("io.debezium.time.NanoTimestamp", MICROS * 1000 + 999, BEGAN),
        ("org.apache.kafka.connect.data.Timestamp", -1, EPOCH - timedelta(milliseconds=1)),
    ],
)
def test_a_time_without_zone_is_read_as_utc_where_the_schema_tells_its_unit(name: str, number: int, moment: datetime) -> None:
    before, after = VISIT | {"began_at": number}, VISIT | {"began_at": number, "ended_at": number}
    change = plain(block(wire(after, "u", before=before), began_at=name, ended_at=name))
    assert told(change) == ("u", (1, moment, None, "Nairobi"), (1, moment, moment, "Nairobi"), 5, None)
    assert change.after is not None
    assert change.after.began_at.tzinfo is UTC


def test_the_schema_of_each_record_is_its_own() -> None:
    """As after the column's type was changed."""
    value = wire(VISIT | {"began_at": 1_000_000})
    micro, milli = "io.debezium.time.MicroTimestamp", "io.debezium.time.Timestamp"
    seconds = [plain(block(value, began_at=name)).after for name in (micro, milli, micro)]
    assert [one and (one.began_at - EPOCH).total_seconds() for one in seconds] == [1, 1000, 1]


@pytest.mark.parametrize(
    "value", [wire(VISIT | {"began_at": MICROS}), block(wire(VISIT | {"began_at": MICROS}), ended_at="io.debezium.Other")]
)
def test_a_number_without_a_unit_is_no_time_and_the_reason_says_what_to_do(value: bytes) -> None:
    with pytest.raises(Undecodable, match=r"Expected `datetime`, got `int` - at `\$\.after\.began_at`; .* make the column timestamptz, or"):
        plain(value)


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
def test_a_number_that_is_no_year_of_four_digits_is_refused(number: int) -> None:
    """PostgreSQL's `infinity` comes as such a one."""
    with pytest.raises(Undecodable, match=rf"the time {number}, of which a second has 1,000,000, is outside of the years 1 to 9999"):
        plain(block(wire(VISIT | {"began_at": number}), began_at="io.debezium.time.MicroTimestamp"))


def test_a_text_is_refused_where_the_schema_says_that_it_is_a_number() -> None:
    with pytest.raises(Undecodable, match=r"Expected `int`, got `str` - at `\$\.after\.began_at`"):
        plain(block(wire(VISIT), began_at="io.debezium.time.MicroTimestamp"))


@given(lsns=st.tuples(st.none() | st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1)), is_block=st.booleans())
def test_the_pair_is_read_from_the_source_s_sequence(lsns: tuple[int | None, int], is_block: bool) -> None:
    value = paired(msgspec.json.encode([None if lsn is None else str(lsn) for lsn in lsns]).decode())
    assert visit(block(value) if is_block else value).pair == (lsns[0] or 0, lsns[1])


def test_the_pair_is_not_read_where_the_position_is_the_offset() -> None:
    assert plain(paired('["1","2"]')).pair is None
    assert told(plain(paired({"odd": 1}))) == told(plain(wire(VISIT)))


@pytest.mark.parametrize(
    "sequence", [None, "", "[]", '["1"]', '["1","2","3"]', '["1",null]', '["one","2"]', '["-1","2"]', f'["1","{2**63}"]', '{"a":1}', "1"]
)
def test_a_record_of_a_paired_source_without_a_pair_is_refused_with_what_to_declare(sequence: str | None) -> None:
    with pytest.raises(Undecodable, match=r"source\.sequence is .* not a pair of LSNs, .*; for all else declare position='offset'"):
        visit(paired(sequence))


@pytest.mark.parametrize("value", [wire(VISIT, source=None), msgspec.json.encode({"op": "c", "after": VISIT})])
def test_a_record_of_a_paired_source_without_a_source_is_refused(value: bytes) -> None:
    with pytest.raises(Undecodable, match=r"source\.sequence is None"):
        visit(value)


def test_a_sequence_that_is_no_text_is_refused_and_named() -> None:
    with pytest.raises(Undecodable, match=r"Expected `str \| null`, got `array` - at `\$\.source\.sequence`"):
        visit(paired(["1", "2"]))
