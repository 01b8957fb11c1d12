"""Where a view is in Redis: slots, keys, codes, fragments and watermarks; and that a whole profile stays small."""

import binascii
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.crc import key_slot

from demo.servers.server import Server
from projectors.apply import Applied, RedisStore
from projectors.calls import Advance, Call, Packing
from projectors.fold import Effects, fold
from projectors.generations import Generations
from projectors.records.envelope import Change
from schema import layout
from schema.definition import Definition, read_definition
from schema.fields import Column, Count, Row
from schema.layout import InvalidKey, Layout
from schema.positions import Partition, Watermark
from schema.user import PROFILE_BANNERS, PROFILE_IMAGES, Follows, Likes, Tweets, Users, UserView

DEFINITION = read_definition(UserView)
ZONES = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NOW = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)


@pytest.mark.parametrize("shards", [1, 2, 3, 16, 256, 1000])
def test_each_shard_s_tag_falls_on_its_own_evenly_spaced_slot(shards: int) -> None:
    slots = [binascii.crc_hqx(tag.encode(), 0) % layout.SLOTS for tag in layout.tags(shards)]
    assert slots == [v * 16384 // shards for v in range(shards)]


@pytest.mark.parametrize("masters", [1, 3, 5, 6, 16])
def test_masters_have_as_many_shards_as_each_other_give_or_take_one(masters: int) -> None:
    homes = [key_slot(header.encode()) * masters // 16384 for header in Layout("User", "g1", layout.SHARDS).headers]
    loads = [homes.count(master) for master in range(masters)]
    assert max(loads) - min(loads) <= 1


@given(row_id=TEXTS.filter(bool), name=TEXTS.filter(bool), shards=st.sampled_from([1, 3, 256]))
@example("ü}{x", "}:{", 256)
@example("{", "{}", 3)
def test_a_shard_s_header_rows_and_claims_share_a_slot_and_only_rows_have_an_id(row_id: str, name: str, shards: int) -> None:
    keys = Layout("User", "g1", shards)
    shard = keys.shard(row_id)
    row = keys.rows_prefix(shard, "7") + row_id
    claim = keys.claims_prefix(shard, "7", DEFINITION.lookups[0]) + name
    assert 0 <= shard < shards
    assert {key_slot(key.encode()) for key in (keys.headers[shard], row, claim)} == {shard * 16384 // shards}
    assert [Layout.row_id(key) for key in (row, claim, keys.headers[shard], keys.progress)] == [row_id, None, None, None]


def test_builds_generations_and_views_share_no_key() -> None:
    layouts = [Layout(view, generation, 4) for view in ("User", "Customer") for generation in ("g1", "g2")]
    rows = {keys.rows_prefix(shard, build) for keys in layouts for shard in range(4) for build in ("0", "1")}
    assert len(rows) == 2 * 2 * 4 * 2


@given(number=st.integers(-(2**63), 2**63 - 1))
@example(0)
def test_a_number_is_written_in_exactly_one_way(number: int) -> None:
    assert layout.canonical(int, str(number)) == str(number)
    digits = str(abs(number))
    wide = "".join(chr(0xFF10 + int(digit)) for digit in digits)
    others = [
        f"+{digits}",
        f"0{number}",
        f"-0{digits}",
        f" {number}",
        f"{number}\n",
        f"{number}.0",
        f"{number}e0",
        f"{digits}_0",
        wide,
        "-0",
    ]
    for other in [*others, hex(number), f"{number:,}" if abs(number) > 999 else ""]:
        with pytest.raises(InvalidKey):
            layout.canonical(int, other)


@given(text=st.text(max_size=30) | st.from_regex(r"\A[-+ 0]{0,3}[0-9_]{0,21}\Z"))
def test_whatever_is_taken_as_a_key_is_the_text_of_one_key(text: str) -> None:
    with contextlib.suppress(InvalidKey):
        assert str(int(layout.canonical(int, text))) == text
    with contextlib.suppress(InvalidKey):
        assert layout.canonical(str, text) == text == text.strip()


@pytest.mark.parametrize("text", [str(2**63), str(-(2**63) - 1), "9" * 128, "9" * 129, "", "-", "--1", "1-", "²", "٣"])
def test_what_is_no_number_of_64_bits_is_no_key(text: str) -> None:
    with pytest.raises(InvalidKey):
        layout.canonical(int, text)


@pytest.mark.parametrize("text", ["", " a", "a ", "a\n", "a\0b", "a\u2028b", "\ud800", "x" * 129])
def test_a_text_that_looks_like_another_is_no_key(text: str) -> None:
    with pytest.raises(InvalidKey):
        layout.canonical(str, text)


@given(prefix=TEXTS, rest=TEXTS, has=st.booleans())
@example(PROFILE_IMAGES, "", True)
@example('a"\\', "~", True)
@example("~", "~", True)
@example("", "~", False)
def test_a_fragment_that_was_cut_is_whole_again(prefix: str, rest: str, has: bool) -> None:
    fragment = layout.encode(prefix + rest if has else rest)
    stored = layout.cut(fragment, prefix)
    assert layout.uncut(stored, prefix) == fragment
    if has and prefix:
        assert stored == b"~" + layout.encode(rest)[1:]
    assert layout.uncut(layout.cut(layout.NULL, prefix), prefix) == layout.NULL


@given(moment=st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=ZONES))
def test_a_moment_is_written_in_utc_whatever_its_zone(moment: datetime) -> None:
    fragment = layout.encode(moment)
    assert fragment.endswith(b'Z"')
    assert msgspec.json.decode(fragment, type=datetime) == moment


class Things(Row, topic="things", key="thing_id"):
    thing_id: int
    name: str


@pytest.mark.parametrize("counts", [0, 34, 35, 36, 700])
def test_every_field_has_a_code_of_its_own_of_at_most_two_letters(counts: int) -> None:
    lines = {f"count_{number}": Annotated[int, Count(Things, by="thing_id")] for number in range(counts)}
    view: type = dataclass(type("ThingView", (), {"__annotations__": {"id": str, "name": Annotated[str, Column(Things)], **lines}}))
    codes = layout.codes(read_definition(view))
    assert list(codes) == ["name", *lines]
    assert len(set(codes.values())) == counts + 1
    assert {len(code) for code in codes.values()} <= {1, 2}


@given(offset=st.integers(0, 2**63), ts_ms=st.integers(0, 2**63), topic_id=st.from_regex(r"\A[A-Za-z0-9_-]{0,22}\Z"))
def test_a_watermark_is_read_as_it_was_written(offset: int, ts_ms: int, topic_id: str) -> None:
    watermark = Watermark(offset, ts_ms, topic_id)
    assert Watermark.decode(watermark.encode()) == watermark


@given(stored=st.binary(max_size=30) | st.sampled_from([b"1|2", b"1|2|3|4", b"|0|", b"x|0|", b"1.0|0|", b""]))
def test_what_is_no_watermark_raises_value_error_alone(stored: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert stored.count(b"|") == Watermark.decode(stored).encode().count(b"|") == 2


@given(steps=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1))
def test_a_watermark_never_goes_back(steps: list[tuple[int, int]]) -> None:
    watermark = Watermark(0, 0, "t")
    for offset, ts_ms in steps:
        watermark = watermark.advanced(offset, ts_ms)
    assert watermark == Watermark(max(offset for offset, _ in steps), max(ts_ms for _, ts_ms in steps), "t")


FULL = Users(
    user_id=1_234_567_890_123_456_789,
    username="a_handle_of_15c",
    name="A name of the fifty characters that may be had: 50",
    description="One hundred and sixty characters, as many as a description may have. " + "d" * 91,
    location="Thirty characters of a location",
    web_page_url="https://www.example.org/" + "w" * 80,
    joined_at=NOW,
    profile_image_url=f"{PROFILE_IMAGES}1234567890123456789/{'p' * 64}_400x400.jpg",
    background_image_url=f"{PROFILE_BANNERS}1234567890123456789/{'b' * 24}/1500x500",
)


@pytest.fixture
async def redis(redis_at: Server) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_at.address)
    await client.flushall()
    yield client
    await client.aclose()


async def applied(redis: Redis, definition: Definition, *rows: Row) -> str:
    """Create these rows in a new view, by fold, Packing and RedisStore; the key of the one row of the view."""
    partition, start = Partition("users", 0), Watermark(0, 0, "")
    record = await Generations(redis, definition).open_first({partition: (0, 0)}, {})
    packing, effects = Packing(definition, record), Effects()
    for row in rows:
        effects.add(fold(definition, type(row), [(0, Change("c", None, row, 1))]))
    calls = [
        Call(shard, "0", [Advance(partition, start, start.advanced(1, 1))], keys, packed)
        for shard, (keys, packed) in packing.shards(effects, ["0"] * record.shards).items()
    ]
    assert await RedisStore(redis, packing.layout, packing.marker).apply(calls) == [Applied()] * len(calls)
    keys_: list[str] = [key.decode() async for key in redis.scan_iter(packing.layout.rows_pattern())]
    (row_key,) = [key for key in keys_ if Layout.row_id(key)]
    return row_key


async def test_a_full_profile_with_its_counts_is_one_listpack_of_less_than_a_kilobyte(redis: Redis) -> None:
    urls = [FULL.web_page_url, FULL.profile_image_url, FULL.background_image_url]
    assert all(url is not None and len(url) > 90 for url in urls)
    me = FULL.user_id
    key = await applied(redis, DEFINITION, FULL, Tweets(1, me, "", NOW), Follows(1, me, me, NOW), Likes(1, me, 1, NOW))
    stored: dict[Any, Any] = await redis.hgetall(key)
    assert len(stored) == len(DEFINITION.fields)
    assert [stored[layout.codes(DEFINITION)[f.name].encode()] for f in DEFINITION.aggregates] == [b"1"] * 4
    # counts as large as they may come
    await redis.hset(key, mapping={layout.codes(DEFINITION)[f.name]: 123_456_789 for f in DEFINITION.aggregates})
    used: Any = await redis.memory_usage(key)
    assert await redis.object("ENCODING", key) in (b"listpack", b"ziplist"), "Redis 6 calls it a ziplist"
    assert used < 1024, used
