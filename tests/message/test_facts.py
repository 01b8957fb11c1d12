"""Facts of several types in one topic: what each says of its row, whose it is, and what is refused. And how they fold."""

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.publish import fact, record
from projectors.fold import Claim, fold, fold_rest
from projectors.records import decoder, decoders
from projectors.records.envelope import Change, Undecodable
from schema.definition import read_definition
from schema.fields import Column, Count, Facts, Row, Sum
from tests.faults.memory import Stored

AT_MS = 1_767_323_045_000
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KAFKA_MS = 7


class People(Row, topic="activity", key="user_id", form=Facts(("joined",), ("left",))):
    user_id: int
    handle: str


class Likes(Row, topic="activity", key="like_id", form=Facts(("liked", "loved"), ("unliked",))):
    like_id: int
    user_id: int
    hearts: int
    created_at: datetime | None


class Visits(Row, topic="visits", key="visit_id", form=Facts(("came",), header="kind", at="began_at")):
    visit_id: int
    type: str
    began_at: datetime


@dataclass
class PersonView:
    """A person."""

    id: str
    handle: Annotated[str, Column(People, lookup=True)]
    like_count: Annotated[int, Count(Likes, by="user_id")]
    hearts: Annotated[int, Sum(Likes, of="hearts", by="user_id")]


DEFINITION = read_definition(PersonView)
LIKE = {"like_id": 1, "user_id": 2, "hearts": 3, "created_at": None}
activity, visits = decoder(People, Likes), decoder(Visits)


def stored(value: object, *headers: tuple[str, bytes], timestamp: int = KAFKA_MS) -> Stored:
    return Stored(0, timestamp, b"1", value if isinstance(value, bytes) else msgspec.json.encode(value), headers)


def told(change: Change[Any] | None) -> tuple[Any, ...]:
    """A decoded row is of a class of its own, so what is compared is what it holds."""
    assert change is not None
    return (change.op, *(None if side is None else msgspec.structs.astuple(side) for side in (change.before, change.after)), change.ts_ms)


@pytest.mark.parametrize("kind", ["liked", "loved"])
def test_a_fact_that_makes_a_row_is_its_create(kind: str) -> None:
    assert told(activity(stored({"type": kind, "at": AT_MS, **LIKE}))) == ("c", None, (1, 2, 3, None), AT_MS)


def test_a_fact_that_takes_a_row_back_is_its_delete() -> None:
    assert told(activity(stored({"type": "unliked", "at": AT_MS, **LIKE}))) == ("d", (1, 2, 3, None), None, AT_MS)


def test_each_type_is_of_its_own_row() -> None:
    change = activity(stored({"type": "joined", "at": AT_MS, "user_id": 2, "handle": "ada"}))
    assert told(change) == ("c", None, (2, "ada"), AT_MS)
    assert change is not None
    assert isinstance(change.after, People)


@pytest.mark.parametrize(
    "value", [{"type": "muted"}, {"type": "came", "at": "noon", "like_id": "x"}, {"type": "", **LIKE}, {"type": "LIKED"}]
)
def test_a_fact_of_another_type_is_passed_over_whatever_else_it_says(value: Any) -> None:
    assert activity(stored(value)) is None


def test_a_tombstone_is_passed_over() -> None:
    assert activity(Stored(0, 0, b"1", None)) is None


def test_fields_that_are_no_columns_are_ignored() -> None:
    assert told(activity(stored({"from": [{}], "type": "liked", **LIKE, "to": None}))) == ("c", None, (1, 2, 3, None), KAFKA_MS)


@pytest.mark.parametrize("column", LIKE)
def test_a_fact_that_takes_back_without_the_whole_row_is_refused_with_what_it_needs(column: str) -> None:
    value = {name: value for name, value in LIKE.items() if name != column}
    with pytest.raises(
        Undecodable, match=f"missing required field `{column}`; a fact that takes a row back tells the whole row, as it was"
    ):
        activity(stored({"type": "unliked", **value}))


@pytest.mark.parametrize("kind", ["liked", "unliked"])
@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("user_id", "2", "Expected `int`, got `str` - at `$.user_id`"),
        ("user_id", None, "Expected `int`, got `null` - at `$.user_id`"),
        ("user_id", 2.5, "Expected `int`, got `float` - at `$.user_id`"),
        ("like_id", {}, "Expected `int`, got `object` - at `$.like_id`"),
        ("hearts", 2**63, "Expected `int` <= 9223372036854775807 - at `$.hearts`"),
        ("created_at", 5, "Expected `datetime | null`, got `int` - at `$.created_at`; a number does not tell its unit"),
        ("created_at", "2026-01-01T00:00:00", "with a timezone component - at `$.created_at`"),
        ("created_at", "9999-12-31T23:59:59-00:01", "outside of the years 1 to 9999 in UTC"),
    ],
)
def test_a_column_of_another_type_is_refused_and_named(kind: str, column: str, value: object, reason: str) -> None:
    with pytest.raises(Undecodable) as refused:
        activity(stored({"type": kind, **LIKE, column: value}))
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (LIKE, "the fact has no field 'type', which tells its type"),
        (LIKE | {"type": None}, "the fact has no field 'type'"),
        (LIKE | {"type": 1}, "Expected `str | null`, got `int` - at `$.type`"),
        (LIKE | {"type": "liked", "at": "noon"}, "'at' is no time, in RFC 3339 or Unix ms: Invalid RFC3339"),
        (LIKE | {"type": "liked", "at": 1.5}, "'at' is no time, in RFC 3339 or Unix ms: Expected"),
        (LIKE | {"type": "liked", "at": 10**15}, "'at' is no time, in RFC 3339 or Unix ms: Expected"),
        (LIKE | {"type": "liked", "at": "2026-01-02T03:04:05"}, "'at' is no time, in RFC 3339 or Unix ms: "),
        ([], "Expected `object`, got `array`"),
        (b"", "truncated"),
        (b'{"type":"liked\xff"}', ""),
        (b'{"type":"liked","like_id":1}x', "trailing"),
        (b"[" * 100_000, ""),
    ],
)
def test_what_is_no_fact_is_refused_with_the_reason(value: Any, reason: str) -> None:
    with pytest.raises(Undecodable) as refused:
        activity(stored(value))
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("at", "ms"), [(AT_MS, AT_MS), ("2026-01-02T03:04:05Z", AT_MS), ("2026-01-02T05:04:05.0004+02:00", AT_MS), (None, KAFKA_MS), (0, 0)]
)
def test_the_time_is_in_milliseconds_or_rfc_3339_and_else_kafka_s(at: object, ms: int) -> None:
    assert told(activity(stored({"type": "liked", "at": at, **LIKE})))[-1] == ms
    assert told(activity(stored({"type": "liked", **LIKE}, timestamp=-1)))[-1] is None


def test_a_header_may_tell_the_type_and_a_column_the_time() -> None:
    value = {"visit_id": 1, "type": "short", "began_at": "2026-01-02T03:04:05Z"}
    assert told(visits(stored(value, ("trace", b"\xff"), ("kind", b"came")))) == ("c", None, (1, "short", AT), AT_MS)
    assert visits(stored(value, ("kind", b"went"))) is None
    assert visits(stored(b"\x00\x00\x00\x00\x07no JSON", ("kind", b"went"))) is None


@pytest.mark.parametrize("headers", [(), (("type", b"came"),)])
def test_a_fact_without_the_header_is_refused_even_if_a_field_is_called_so(headers: Any) -> None:
    with pytest.raises(Undecodable, match="the fact has no header 'kind', which tells its type"):
        visits(stored({"kind": "came", "visit_id": 1, "type": "short", "began_at": "2026-01-02T03:04:05Z"}, *headers))


def test_a_header_that_is_no_utf_8_is_refused() -> None:
    with pytest.raises(Undecodable, match="header 'kind' is no UTF-8"):
        visits(stored({}, ("kind", b"\xff")))


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "at", *LIKE]), inner, max_size=4),
    max_leaves=6,
)


@given(kind=st.sampled_from(["liked", "unliked", "joined", "muted"]) | JSON, more=st.dictionaries(st.sampled_from(["at", *LIKE]), JSON))
def test_any_json_is_a_change_nothing_or_undecodable(kind: Any, more: dict[str, Any]) -> None:
    with contextlib.suppress(Undecodable):
        change = activity(stored({"type": kind, **LIKE, **more}))
        assert change is None or (change.op in "cd" and (change.before is None) is not (change.after is None))


@given(value=st.binary(max_size=200))
def test_any_bytes_are_a_change_nothing_or_undecodable(value: bytes) -> None:
    with contextlib.suppress(Undecodable):
        activity(stored(value))


@pytest.mark.parametrize("op", ["c", "d"])
@pytest.mark.parametrize("row", [Likes(1, 2, 3, AT), People(2, "ada")])
def test_a_fact_that_was_published_is_decoded_to_the_same_row(op: str, row: Row) -> None:
    value, headers = fact(op, row, AT_MS)
    sides = (None, msgspec.structs.astuple(row)) if op == "c" else (msgspec.structs.astuple(row), None)
    assert told(activity(stored(value, *headers))) == (op, *sides, AT_MS)


def test_a_published_fact_bears_its_header() -> None:
    value, headers = fact("c", Visits(1, "short", AT), AT_MS + 1)
    assert (msgspec.json.decode(value), headers) == (
        {"visit_id": 1, "type": "short", "began_at": "2026-01-02T03:04:05Z"},
        [("kind", b"came")],
    )
    with pytest.raises(ValueError, match="a fact of visits is not told by key and value alone, but by a header too"):
        record("c", None, Visits(1, "short", AT), AT_MS)


def test_a_fact_is_not_changed() -> None:
    with pytest.raises(ValueError, match="op 'u' of Likes is no fact: a fact says that a row came or went, and is never changed"):
        record("u", Likes(1, 2, 3, AT), Likes(1, 2, 4, AT), AT_MS)


def changes(*facts: dict[str, Any]) -> list[tuple[int, Change[Any]]]:
    decode = decoders(DEFINITION)["activity"]
    decoded = [(number, decode(stored({"at": AT_MS, **one}))) for number, one in enumerate(facts)]
    return [(number, change) for number, change in decoded if change is not None]


MIXED = changes(
    {"type": "joined", "user_id": 2, "handle": "ada"},
    {"type": "liked", **LIKE},
    {"type": "muted", "user_id": 2},
    {"type": "loved", **LIKE, "like_id": 2, "hearts": 5},
    {"type": "joined", "user_id": 3, "handle": "bob"},
    {"type": "unliked", **LIKE},
    {"type": "left", "user_id": 3, "handle": "bob"},
)


@pytest.mark.parametrize("row", [People, Likes])
def test_the_facts_of_a_shared_topic_fold_each_into_the_fields_of_its_row(row: type[Row]) -> None:
    effects = fold(DEFINITION, row, MIXED)
    assert effects.counts == {"like_count": {2: 1}, "hearts": {2: 5}}
    assert {key: one and msgspec.structs.astuple(one) for key, one in effects.profiles.items()} == {2: (2, "ada"), 3: None}
    assert effects.claims == {Claim("handle", "ada", 2): (AT_MS, 0), Claim("handle", "bob", 3): None}


def test_what_some_shards_have_already_is_left_out_of_a_shared_topic_too() -> None:
    effects, dropped = fold_rest(DEFINITION, People, MIXED, lambda text, offset: text == "2" and offset < 3)
    assert (effects.counts, dropped) == ({"like_count": {2: 0}, "hearts": {2: 2}}, 2)
    assert effects.profiles.keys() == {3}
