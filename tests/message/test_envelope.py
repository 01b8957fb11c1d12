"""Decoding the envelope: what is a change, and what is refused. Whatever the bytes, nothing but Undecodable is raised.

What is around a value is in test_wire.py.
"""

import contextlib
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from demo.publish import envelope
from projectors.records.envelope import Op, Undecodable, decoder
from schema import layout
from schema.definition import read_definition
from schema.user import Follows, UserView
from tests.message.shop import Customers

FOLLOW = {"follow_id": 1, "follower_id": 2, "followee_id": 3, "created_at": "2026-01-02T03:04:05.000006+02:00"}
CREATED = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=2)))
CUSTOMER = {
    "customer_id": "c-17",
    "email": "a@b.example",
    "nickname": None,
    "visits": None,
    "rating": None,
    "discount": 0.5,
    "is_member": True,
    "wants_mail": None,
    "since": "2026-01-02T03:04:05Z",
    "seen_at": None,
}
SIDES: dict[Op, tuple[bool, bool]] = {"c": (False, True), "r": (False, True), "u": (True, True), "d": (True, False), "t": (False, False)}
follow, customer = decoder(Follows), decoder(Customers)


def wire(op: str, before: Any, after: Any, **more: Any) -> bytes:
    return msgspec.json.encode({"op": op, "before": before, "after": after, "ts_ms": 5} | more)


def created(**columns: Any) -> bytes:
    return wire("c", None, FOLLOW | columns)


def new_customer(**columns: Any) -> bytes:
    return wire("c", None, CUSTOMER | columns)


def raw(column: str, text: str) -> bytes:
    """A customer with this JSON text as the column's value."""
    return new_customer(**{column: "HERE"}).replace(b'"HERE"', text.encode())


@pytest.mark.parametrize("op", SIDES)
def test_each_op_is_decoded_with_the_sides_it_has(op: Op) -> None:
    before, after = SIDES[op]
    change = follow(wire(op, FOLLOW if before else None, FOLLOW if after else None))
    assert (change.op, change.before is not None, change.after is not None, change.ts_ms) == (op, before, after, 5)


@pytest.mark.parametrize(("op", "before", "after"), [(op, b, a) for op in SIDES for b in (False, True) for a in (False, True)])
def test_an_op_with_other_sides_is_refused_and_the_reason_says_which_it_needs(op: Op, before: bool, after: bool) -> None:
    if SIDES[op] == (before, after):
        return
    with pytest.raises(Undecodable, match=f"op '{op}' needs (a|no|neither) before (and|nor) (an|no )?"):
        follow(wire(op, FOLLOW if before else None, FOLLOW if after else None))


def test_an_update_without_before_says_what_to_set_in_postgresql() -> None:
    with pytest.raises(Undecodable, match="REPLICA IDENTITY FULL"):
        follow(wire("u", None, FOLLOW))


def test_columns_are_decoded_by_their_type() -> None:
    change = follow(created())
    assert change.after is not None
    assert (change.after.followee_id, change.after.created_at) == (3, CREATED)
    assert change.after.created_at.utcoffset() == timedelta(hours=2)


def test_a_row_that_was_published_is_decoded_to_the_same_values() -> None:
    row = Follows(2**63 - 1, -(2**63), 0, CREATED)
    change = follow(envelope("c", None, row, 1))
    assert change.after is not None
    assert msgspec.structs.astuple(change.after) == msgspec.structs.astuple(row)


def test_fields_that_are_not_declared_are_ignored() -> None:
    source = {"version": "3.6.2", "sequence": '["1","2"]', "nested": [{"a": [1.5, None]}]}
    change = follow(wire("c", None, FOLLOW | {"muted": {"until": [1]}}, source=source, transaction=None, ts_us=1, ts_ns=2**63))
    assert change.after is not None
    assert change.after.followee_id == 3


@pytest.mark.parametrize("name", ["pair", "viewgate", "schema", "payload"])
def test_a_field_that_the_envelope_does_not_have_is_ignored(name: str) -> None:
    assert follow(wire("c", None, FOLLOW, **{name: "x"})).pair is None


def test_the_source_s_time_may_be_missing() -> None:
    assert follow(msgspec.json.encode({"op": "c", "after": FOLLOW})).ts_ms is None
    assert follow(wire("c", None, FOLLOW, ts_ms=None)).ts_ms is None


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("follower_id", "2", "Expected `int`, got `str` - at `$.after.follower_id`"),
        ("follower_id", None, "Expected `int`, got `null`"),
        ("follower_id", True, "Expected `int`, got `bool`"),
        ("follower_id", 1.5, "Expected `int`, got `float`"),
        ("follower_id", [2], "Expected `int`, got `array`"),
        ("follower_id", {}, "Expected `int`, got `object`"),
        ("created_at", 1_767_323_045_000, "Expected `datetime`, got `int`"),
        ("created_at", "yesterday", "Invalid RFC3339 encoded datetime"),
        ("created_at", "2026-02-30T00:00:00Z", "Invalid RFC3339 encoded datetime"),
    ],
)
def test_a_value_of_another_type_is_refused_and_named(column: str, value: object, reason: str) -> None:
    with pytest.raises(Undecodable) as refused:
        follow(created(**{column: value}))
    assert reason in str(refused.value)


@pytest.mark.parametrize("missing", FOLLOW)
def test_a_column_that_is_missing_is_refused_and_named(missing: str) -> None:
    with pytest.raises(Undecodable, match=f"missing required field `{missing}`"):
        follow(wire("c", None, {name: value for name, value in FOLLOW.items() if name != missing}))


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**64, 10**30])
@pytest.mark.parametrize("column", ["follow_id", "followee_id"])
def test_an_integer_beyond_64_bits_is_refused_since_no_store_can_hold_it(column: str, number: int) -> None:
    with pytest.raises(Undecodable, match=f"at `\\$.after.{column}`"):
        follow(created(**{column: "HERE"}).replace(b'"HERE"', str(number).encode()))


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 2**53 + 1])
def test_an_integer_of_64_bits_is_exact(number: int) -> None:
    change = follow(created(followee_id=number))
    assert change.after is not None
    assert change.after.followee_id == number


def test_a_time_without_a_zone_is_refused_since_it_says_no_moment() -> None:
    with pytest.raises(Undecodable, match=r"with a timezone component - at `.*created_at`"):
        follow(created(created_at="2026-01-02T03:04:05"))


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+02:00", "9999-12-31T23:59:59-00:01"])
def test_a_moment_that_utc_cannot_write_is_refused(moment: str) -> None:
    with pytest.raises(Undecodable, match="outside of the years 1 to 9999 in UTC"):
        customer(new_customer(seen_at=moment))


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "0001-01-01T02:00:00+02:00", "9999-12-31T23:59:59.999999Z"])
def test_the_first_and_the_last_moment_are_taken(moment: str) -> None:
    change = customer(new_customer(seen_at=moment))
    assert change.after is not None
    assert change.after.seen_at is not None
    assert layout.encode(change.after.seen_at) == layout.encode(change.after.seen_at.astimezone(UTC))


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e400", "0x1", "01", ".5", "+1"])
def test_what_json_does_not_call_a_number_is_refused(text: str) -> None:
    with pytest.raises(Undecodable):
        customer(raw("discount", text))


@pytest.mark.parametrize("text", ['"\\ud800"', '"\\x41"', '"a\nb"', "'a'", '"a'])
def test_what_json_does_not_call_a_text_is_refused(text: str) -> None:
    with pytest.raises(Undecodable):
        customer(raw("email", text))


def test_an_integer_is_a_float_where_one_is_expected() -> None:
    change = customer(new_customer(discount=3))
    assert change.after is not None
    assert isinstance(change.after.discount, float)


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_text_with_a_nul_which_postgresql_does_not_hold_is_refused(side: str) -> None:
    sides = {"before": CUSTOMER, "after": CUSTOMER} | {side: CUSTOMER | {"nickname": "a\0b"}}
    with pytest.raises(Undecodable, match="column 'nickname' has a NUL in its text"):
        customer(wire("u", **sides))


def test_what_only_looks_like_a_nul_is_a_text() -> None:
    assert customer(wire("c", None, CUSTOMER | {"email": r"\u0000"}, more="\0")).after.email == r"\u0000"  # type: ignore[union-attr]  # it is there


@pytest.mark.parametrize("ts_ms", [10**15, -(10**14), 2**63, 10**40])
def test_a_time_beyond_the_years_1_to_9999_is_refused(ts_ms: int) -> None:
    with pytest.raises(Undecodable, match="ts_ms"):
        follow(wire("c", None, FOLLOW, ts_ms=ts_ms))


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\x80"])
def test_bytes_that_are_no_utf_8_are_refused(bad: bytes) -> None:
    with pytest.raises(Undecodable):
        customer(new_customer(email="HERE").replace(b"HERE", bad))


@pytest.mark.parametrize(
    "value", [b"", b" ", b"null", b"[]", b"1", b'"c"', b"{}", b"{", b'{"op":"c"}x', b"\x00\x00\x00\x00\x07{}", b"\xef\xbb\xbf{}"]
)
def test_what_is_no_object_with_an_op_is_refused(value: bytes) -> None:
    with pytest.raises(Undecodable):
        follow(value)


@pytest.mark.parametrize("op", ["x", "C", "", "m", "create"])
def test_an_unknown_op_is_refused(op: str) -> None:
    with pytest.raises(Undecodable, match="Invalid enum value"):
        follow(wire(op, None, FOLLOW))


@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000])
@pytest.mark.parametrize("head", [b"", b'{"op":"c","more":', b'{"op":"c","after":{"follow_id":1,"more":'])
def test_deep_nesting_is_refused_and_overflows_nothing(head: bytes, deep: bytes) -> None:
    with pytest.raises(Undecodable):
        follow(head + deep)


def test_an_update_of_the_key_is_refused_with_what_to_send_instead() -> None:
    with pytest.raises(Undecodable, match="an update changes the key 'follow_id'; send a delete and a create, each under its own key"):
        follow(wire("u", FOLLOW, FOLLOW | {"follow_id": 9}))


def test_an_update_of_any_other_column_is_taken() -> None:
    assert follow(wire("u", FOLLOW, FOLLOW | {"follower_id": 9, "followee_id": 8})).op == "u"


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from([*SIDES, "0001-01-01T00:00:00+09:00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["op", "before", "after", *FOLLOW]), inner, max_size=4),
    max_leaves=8,
)


def only_undecodable(value: bytes) -> None:
    """Whatever it says, it is a change that can be folded and encoded, or is refused."""
    for decode in (follow, customer):
        with contextlib.suppress(Undecodable):
            after = decode(value).after
            assert after is None or all(layout.encode(column) for column in msgspec.structs.astuple(after))


@given(value=st.binary(max_size=200))
@example(b'{"op":"t"}')
def test_any_bytes_are_a_change_or_undecodable(value: bytes) -> None:
    only_undecodable(value)


@given(sides=st.tuples(JSON, JSON), op=st.sampled_from([*SIDES, "x", 1, None]), ts_ms=JSON)
def test_any_json_is_a_change_or_undecodable(sides: tuple[Any, Any], op: Any, ts_ms: Any) -> None:
    only_undecodable(_python_json({"op": op, "before": sides[0], "after": sides[1], "ts_ms": ts_ms}))


@given(base=st.sampled_from([FOLLOW, CUSTOMER]), op=st.sampled_from([*SIDES]), data=st.data())
def test_any_column_with_any_value_is_a_change_or_undecodable(base: dict[str, Any], op: Op, data: st.DataObject) -> None:
    column = data.draw(st.sampled_from([*base]))
    mutated = base | {column: data.draw(JSON)}
    only_undecodable(_python_json({"op": op, "before": base if SIDES[op][0] else None, "after": mutated if SIDES[op][1] else None}))


@given(base=st.sampled_from([created(), new_customer()]), at=st.integers(0, 400), put=st.binary(max_size=3), cut=st.integers(0, 5))
def test_any_spoilt_record_is_a_change_or_undecodable(base: bytes, at: int, put: bytes, cut: int) -> None:
    only_undecodable(base[:at] + put + base[at + cut :])


def _python_json(value: object) -> bytes:
    """Python's own writes NaN, Infinity, integers of any size and lone surrogates, as careless services do."""
    return json.dumps(value).encode()


def test_every_row_of_the_view_has_a_decoder() -> None:
    for row in read_definition(UserView).rows:
        with pytest.raises(Undecodable):
            decoder(row)(b"{}")
