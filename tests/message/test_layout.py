"""Where the view is: shards spread evenly over a Cluster's slots, one text per key, short fragments, small hashes."""

import binascii
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import RedisError

from demo.servers.process import Command, NotReadyError, Process, free_port
from demo.servers.server import Server
from projectors.apply import Applied, RedisStore
from projectors.calls import Advance, Call, Packing
from projectors.fold import fold
from projectors.records.envelope import Change
from schema import layout
from schema.definition import read_definition
from schema.fields import Row
from schema.generation import Generation
from schema.layout import InvalidKey, Layout, canonical, cut, encode, tags, uncut
from schema.positions import Partition, Watermark
from schema.user import PROFILE_BANNERS, PROFILE_IMAGES, Follows, Likes, Tweets, Users, UserView
from tests.message.shop import CustomerView

DEFINITION = read_definition(UserView)
NOW = datetime(2024, 2, 29, 12, 30, 15, 250_000, tzinfo=UTC)
WHOLE = Users(
    user_id=2**62,
    username="a_handle_of_15c",
    name="A name of up to fifty characters, which is the most",
    description="What a user says of themselves, in as many characters as there may be: " + "160 " * 22,
    location="A place, as users write it 🌍",
    web_page_url="https://www.example.com/a/page/with/a/path/and/a?query=that&makes=it&longer=than&ninety=characters",
    joined_at=NOW,
    profile_image_url=PROFILE_IMAGES + "1234567890123456789/" + "p" * 60 + "_normal.jpg",
    background_image_url=PROFILE_BANNERS + "1234567890123456789/" + "b" * 60 + "/1500x500",
)
LIMIT_BYTES = 1024


def slot(key: str) -> int:
    """As Redis Cluster reckons it, from its specification."""
    start = key.find("{")
    end = key.find("}", start + 1)
    hashed = key[start + 1 : end] if start >= 0 and end > start + 1 else key
    return binascii.crc_hqx(hashed.encode(), 0) % 16384


@pytest.mark.parametrize("shards", [1, 3, 64, 256])
def test_the_tag_of_shard_v_falls_on_slot_v_times_16384_by_the_number_of_shards(shards: int) -> None:
    assert [slot(f"x{{{tag}}}y") for tag in tags(shards)] == [v * 16384 // shards for v in range(shards)]


@pytest.mark.parametrize("masters", [1, 3, 5, 6, 16])
def test_masters_have_as_many_shards_as_each_other_give_or_take_one(masters: int) -> None:
    homes = [slot(header) * masters // 16384 for header in Layout("User", "g1", layout.SHARDS).headers]
    loads = [homes.count(master) for master in range(masters)]
    assert max(loads) - min(loads) <= 1


@pytest.fixture
async def cluster(redis_at: Server, tmp_path: Path) -> AsyncIterator[Redis]:
    """A node of a Redis Cluster that has no slots yet, and can still say where a key would be."""
    if redis_at.process is None:
        pytest.skip("the Redis was given: there is no redis-server to start another with")
    command = redis_at.process.command
    # its bus listens 10,000 above, and must be below the ports of outgoing connections too
    port = next(port for port in iter(free_port, 0) if port < 22_000)
    where = (
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--cluster-enabled",
        "yes",
        "--dir",
        str(tmp_path),
    )
    client = Redis.from_url(f"redis://127.0.0.1:{port}/0")
    node = Process(Command("redis", (command.argv[0], *where, "--save", ""), tmp_path / "redis.log", lambda: _answers(client)))
    await node.start()
    try:
        yield client
    finally:
        await client.aclose()
        await node.stop()


async def _answers(client: Redis) -> None:
    try:
        await client.ping()
    except RedisError as silent:
        raise NotReadyError(str(silent)) from silent


async def test_redis_cluster_puts_a_shard_s_header_rows_and_claimants_on_its_slot(cluster: Redis) -> None:
    keys = Layout("User", "g1", layout.SHARDS)
    for shard in range(layout.SHARDS):
        claim = keys.claims_prefix(shard, "0", DEFINITION.lookups[0]) + "odd}{name"
        for key in (keys.headers[shard], keys.rows_prefix(shard, "0") + "1}{2", claim):
            assert await cluster.execute_command("CLUSTER", "KEYSLOT", key) == slot(key) == shard * 64  # type: ignore[no-untyped-call]  # redis-py's


@given(key=st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20), build=st.integers(0, 99))
def test_every_key_of_a_row_is_on_the_slot_of_its_shard(key: int | str, build: int) -> None:
    keys = Layout("User", "g7", layout.SHARDS)
    shard = keys.shard(str(key))
    row = keys.rows_prefix(shard, str(build)) + str(key)
    assert slot(row) == slot(keys.headers[shard])
    assert Layout.row_id(row) == str(key)


def test_no_two_sorts_of_key_are_ever_the_same() -> None:
    keys = Layout("User", "g1", 4)
    lookup = DEFINITION.lookups[0]
    made = [layout.live_key("User"), layout.generation_key("User", "g1"), layout.cache_key("User", "cache-aside", "id", "1"), keys.progress]
    made += [*keys.headers, *(keys.rows_prefix(v, b) + "1" for v in range(4) for b in "01")]
    made += [keys.claims_prefix(v, b, lookup) + "1" for v in range(4) for b in "01"]
    assert len(set(made)) == len(made)
    assert [Layout.row_id(key) for key in made if Layout.row_id(key) is not None] == ["1"] * 8


@given(number=st.integers(-(2**70), 2**70))
@example(2**63 - 1)
@example(-(2**63))
@example(2**63)
def test_a_number_has_its_one_text_if_it_fits_into_64_bits(number: int) -> None:
    if -(2**63) <= number < 2**63:
        assert canonical(int, str(number)) == str(number)
    else:
        with pytest.raises(InvalidKey, match="does not fit into 64 bits"):
            canonical(int, str(number))


@given(text=st.from_regex(r"[-+ 0]{0,3}[0-9٣_.e]{0,5}[ \n]?", fullmatch=True) | st.text(max_size=5))
def test_exactly_one_text_is_accepted_for_each_number(text: str) -> None:
    try:
        accepted = canonical(int, text)
    except InvalidKey:
        return
    assert accepted == text == str(int(text))


@pytest.mark.parametrize("text", ["01", "-0", "+1", " 1", "1 ", "1_0", "1.0", "1e3", "٣", "²", "0x1", "", "-", "--1", "1\n", "9" * 5000])
def test_another_way_to_write_a_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidKey):
        canonical(int, text)


@given(text=st.text(max_size=140))
def test_a_text_is_its_own_key_or_refused(text: str) -> None:
    try:
        assert canonical(str, text) == text
    except InvalidKey:
        assert not text or len(text) > 128 or text != text.strip() or not text.isprintable()


@pytest.mark.parametrize("text", ["", " c-17", "c-17 ", "c\t17", "c\x0017", "c" * 129])
def test_a_text_that_may_be_mistaken_for_another_is_refused(text: str) -> None:
    with pytest.raises(InvalidKey):
        canonical(str, text)


TEXTS_CUT = st.sampled_from(["", PROFILE_IMAGES, "~", 'quo"te', "é", "\\"]) | st.text(max_size=4)
TEXTS = st.text(max_size=9) | st.sampled_from(["~", "~cut", PROFILE_IMAGES, PROFILE_IMAGES + "1.png", PROFILE_IMAGES[:-1], "null", '"'])


def heads(text: str) -> tuple[str, str]:
    """What a record says of a column whose values mostly begin with this text: now, and in 0.1.0."""
    return encode(text)[:-1].decode(), text.lstrip('"')


@given(value=st.none() | TEXTS | st.tuples(TEXTS_CUT, TEXTS).map("".join), text=TEXTS_CUT)
@example("~", "")
@example("", "")
@example(None, "")
@example(PROFILE_IMAGES, PROFILE_IMAGES)
@example(None, PROFILE_IMAGES)
@example(PROFILE_IMAGES + "~", PROFILE_IMAGES)
def test_what_is_cut_is_put_back(value: str | None, text: str) -> None:
    fragment = encode(value)
    for prefix in heads(text):
        assert uncut(cut(fragment, prefix), prefix) == fragment


def test_strings_are_stored_without_quotes_and_prefix_and_what_lacks_the_prefix_whole() -> None:
    kept = layout.prefixes(DEFINITION)
    assert cut(encode("code_1"), kept["username"]) == b"code_1"
    assert cut(encode(PROFILE_IMAGES + "1.png"), kept["profile_image_url"]) == b"1.png"
    assert cut(encode("https://else.example/1.png"), kept["profile_image_url"]) == b'~"https://else.example/1.png"'
    assert cut(encode(NOW), kept["joined_at"]) == b"2024-02-29T12:30:15.250000Z"
    assert [cut(encode(value), kept["name"]) for value in (None, "", "null", "~", 'a "b"')] == [b"~", b"", b"null", b'~"~"', rb"a \"b\""]


def test_numbers_are_stored_as_they_are() -> None:
    customers = read_definition(CustomerView)
    numbers = {f.name for f in customers.columns if f.type not in {str, datetime}}
    assert numbers
    assert layout.prefixes(customers).keys() == {f.name for f in customers.columns} - numbers


def test_what_0_1_0_has_stored_is_read_and_written_as_its_record_says() -> None:
    assert cut(encode(PROFILE_IMAGES + "1.png"), PROFILE_IMAGES) == b'~1.png"'
    assert cut(encode("https://else.example/1.png"), PROFILE_IMAGES) == b'"https://else.example/1.png"'
    assert [uncut(stored, "") for stored in (b'"code_1"', b"null")] == [cut(stored, "") for stored in (b'"code_1"', b"null")]


@given(moment=st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1)), minutes=st.integers(-1439, 1439))
def test_the_same_moment_is_the_same_fragment_in_every_zone(moment: datetime, minutes: int) -> None:
    utc = moment.replace(tzinfo=UTC)
    assert encode(utc.astimezone(timezone(timedelta(minutes=minutes)))) == encode(utc)
    assert encode(utc).endswith(b'Z"')


def test_codes_are_unique_and_short_even_for_a_hundred_fields() -> None:
    codes = layout.codes(DEFINITION)
    assert list(codes) == [f.name for f in DEFINITION.fields]
    assert len(set(codes.values())) == len(codes)
    assert {len(code) for code in codes.values()} == {1}
    many: Any = type("Many", (), {"fields": [type("Field", (), {"name": str(n)}) for n in range(1000)]})
    assert len(set(layout.codes(many).values())) == 1000


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


async def written(redis: Redis) -> str:
    """WHOLE with four large counts, written as a projector writes it; the key of its hash."""
    codes, prefixes = layout.codes(DEFINITION), layout.prefixes(DEFINITION)
    packing = Packing(DEFINITION, Generation("g1", "0", DEFINITION.fingerprint, layout.SHARDS, codes, prefixes, {}, {}, {}))
    key = WHOLE.user_id
    shard = packing.layout.shard(str(key))
    partition, start = Partition("t", 0), Watermark(0, 0, "")
    await redis.hset(packing.layout.headers[shard], mapping={"build": "0", "state": "live", str(partition): start.encode()})
    follows: list[Row] = [Follows(1, key, 2, NOW), Follows(2, 2, key, NOW)]
    rows: dict[type[Row], list[Row]] = {Tweets: [Tweets(1, key, "x", NOW)], Likes: [Likes(1, key, 1, NOW)], Follows: follows}
    folded = fold(DEFINITION, Users, [(0, Change[Users]("c", None, WHOLE))])
    for row, facts in rows.items():
        folded.add(fold(DEFINITION, row, [(0, Change("c", None, fact)) for fact in facts]))
    for deltas in folded.counts.values():
        deltas[key] = 100_000_000
    keys, effects = packing.shards(folded, ["0"] * layout.SHARDS)[shard]
    store = RedisStore(redis, packing.layout, packing.marker)
    assert await store.apply([Call(shard, "0", [Advance(partition, start, Watermark(1, 0, ""))], keys, effects)]) == [Applied()]
    return packing.layout.rows_prefix(shard, "0") + str(key)


async def test_a_user_with_a_full_profile_of_long_urls_and_four_counts_is_one_listpack_below_one_kilobyte(redis: Redis) -> None:
    urls = [WHOLE.web_page_url, WHOLE.profile_image_url, WHOLE.background_image_url]
    assert all(url is not None and len(url) > 90 for url in urls)
    key = await written(redis)
    used = await redis.memory_usage(key, samples=0)
    encoding = await redis.object("ENCODING", key)
    raw = sum(len(msgspec.json.encode(value)) for value in msgspec.structs.astuple(WHOLE))
    print(f"a full user of {raw} B as JSON and four counts of 9 digits: {encoding.decode()}, MEMORY USAGE {used} B")  # noqa: T201  # shown by -s
    assert await redis.hlen(key) == len(DEFINITION.fields)
    # Redis 6 calls the same thing by its older name
    assert encoding in {b"listpack", b"ziplist"}
    assert used is not None
    assert used < LIMIT_BYTES
