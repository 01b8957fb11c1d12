"""The records of a view topic: what is read is what was written, whatever a row holds, and what is no such record is refused."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from projectors.calls import Packing
from projectors.copies import Copy
from projectors.view_topic import HEADER, Sent, Stamp, UnreadableTopic, Versions, Wire, read
from schema import layout
from schema.definition import read_definition
from schema.generation import Generation
from schema.layout import Layout
from schema.user import Users, UserView
from tests.faults.memory import Stored

USERS = read_definition(UserView)
CODES, PREFIXES = layout.codes(USERS), layout.prefixes(USERS)
RECORD = Generation("g1", "ab12", USERS.fingerprint, 16, CODES, PREFIXES, {"users:0": 0}, {}, {})
KEYS = Layout("User", "g1", 16)
TEXTS = st.none() | st.text() | st.sampled_from(["~", "~null", '"', "null", "https://pbs.twimg.com/profile_images/"])
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
PROFILES = st.builds(Users, st.integers(1, 2**63 - 1), st.text(), TEXTS, TEXTS, TEXTS, TEXTS, TIMES, TEXTS, TEXTS)


def lying(sent: Sent) -> Stored:
    return Stored(7, 0, sent.key, sent.value, sent.headers)


def stored(profile: Users | None, amounts: dict[str, int]) -> dict[bytes, bytes]:
    """A row's hash, as apply.lua is told of it."""
    flat = [text.encode() for text in Packing(USERS, RECORD).row(profile, amounts)]
    return dict(zip(flat[::2], flat[1::2], strict=True))


def copied(sent: Sent, record: Generation) -> dict[bytes, bytes]:
    """What a copy of this record stores of it."""
    flat = [text.encode() for text in copy_of(record).hash(read(lying(sent)))]
    return dict(zip(flat[::2], flat[1::2], strict=True))


def copy_of(record: Generation) -> Copy:
    class NoRedis:
        def register_script(self, text: str) -> Any: ...

    return Copy(NoRedis(), USERS, record)  # type: ignore[arg-type]  # it is not asked


@given(st.none() | PROFILES, st.dictionaries(st.sampled_from([f.name for f in USERS.aggregates]), st.integers(-(2**53), 2**53)))
def test_a_copy_stores_every_byte_of_a_row_as_it_was(profile: Users | None, amounts: dict[str, int]) -> None:
    hash_ = stored(profile, amounts)
    sent = Wire(RECORD, 3).hash(5, "s", 9, KEYS.rows_prefix(5, "ab12") + "7", hash_)
    assert copied(sent, RECORD) == hash_


def test_a_row_is_read_by_others_under_the_names_of_the_definition() -> None:
    profile = Users(
        7, "ada", None, None, None, None, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), layout._text(USERS.columns[6]) + "a.png", None
    )
    sent = Wire(RECORD, 3).hash(5, "s", 9, KEYS.rows_prefix(5, "ab12") + "7", stored(profile, {"tweet_count": 3}))
    assert (sent.partition, sent.key) == (2, b'{"id":"7"}')
    value = json.loads(sent.value or b"")
    assert (value["id"], value["generation"], value["version"]) == ("7", "g1", 9)
    assert {name: value["row"][name] for name in ("username", "name", "joined_at", "profile_image_url", "tweet_count")} == {
        "username": "ada",
        "name": None,
        "joined_at": "2026-01-02T03:04:05Z",
        "profile_image_url": "https://pbs.twimg.com/profile_images/a.png",
        "tweet_count": 3,
    }
    assert read(lying(sent)).stamp == Stamp("g1", "s", 5, 16, USERS.fingerprint, 9)


def test_a_copy_may_call_and_cut_the_fields_otherwise() -> None:
    codes = {name: f"x{code}" for name, code in CODES.items()}
    other = structs.replace(RECORD, codes=codes, prefixes={"username": '"ad'})
    profile = Users(7, "ada", "Ada", None, None, None, datetime(2026, 1, 2, tzinfo=UTC), None, None)
    hash_ = copied(Wire(RECORD, 3).hash(5, "s", 9, KEYS.rows_prefix(5, "ab12") + "7", stored(profile, {})), other)
    assert hash_[codes["username"].encode()] == b"a"
    assert hash_[codes["name"].encode()] == b'"Ada"'


def test_an_id_and_a_name_that_look_like_other_keys_are_none_of_them() -> None:
    wire, prefix = Wire(RECORD, 3), KEYS.rows_prefix(5, "ab12")
    claims = KEYS.claims_prefix(5, "ab12", USERS.lookups[0])
    keys = [prefix + '{"shard":5}', prefix + "shard:5", claims + "shard", claims + "a:b}@c", prefix + "a}:b"]
    sent = [wire.hash(5, "s", 9, key, {}) for key in keys]
    sent += [wire.shard(5, "s", 9, {}), wire.level(2, {5: 9}, {})]
    assert len({one.key for one in sent}) == len(sent)
    assert [prefix[:-1] + (read(lying(one)).at or "") for one in sent[:5]] == keys
    assert [read(lying(one)).at for one in sent[5:]] == [None, None]


def test_claimants_and_watermarks_are_told_as_they_lie_in_redis() -> None:
    claims = KEYS.claims_prefix(5, "ab12", USERS.lookups[0]) + "ada"
    told = read(lying(Wire(RECORD, 3).hash(5, "s", 9, claims, {b"7": b"1767:12"})))
    assert copy_of(RECORD).hash(told) == ["7", "1767:12"]
    told = read(lying(Wire(RECORD, 3).shard(5, "s", 9, {b"users:0": b"17|1767|id|3|4|5"})))
    assert told.watermarks == {"users:0": "17|1767|id|3|4|5"}


def test_what_is_gone_is_a_tombstone_that_bears_its_stamp() -> None:
    sent = Wire(RECORD, 3).hash(5, "s", 9, KEYS.rows_prefix(5, "ab12") + "7", {})
    assert sent.value is None
    assert read(lying(sent)).stamp.version == 9


def test_the_record_of_a_partition_tells_the_versions_of_its_shards() -> None:
    wire, versions = Wire(RECORD, 3), Versions()
    versions.add(lying(wire.shard(5, "s", 11, {})))
    assert not versions.is_whole
    versions.add(lying(wire.level(2, {2: 8, 5: 9}, {"users:0": 1767})))
    versions.add(lying(wire.shard(2, "s", 10, {})))
    assert (versions.found, versions.is_whole) == ({"g1": {2: 10, 5: 11}}, True)


@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [
        (b"7", b"{}", ()),
        (b'{"id":"7"}', b"no JSON", ((HEADER, b"{}"),)),
        (b"7", b"{}", ((HEADER, b'{"generation":"g1","series":"","shard":1,"shards":16,"definition":"","version":1}'),)),
    ],
)
def test_what_no_projector_publishes_is_refused_with_its_place(key: bytes, value: bytes, headers: Any) -> None:
    with pytest.raises(UnreadableTopic, match=r"at offset 7 .* for `viewgate project` alone"):
        read(Stored(7, 0, key, value, headers))
