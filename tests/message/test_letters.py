"""Dead letters read again: each once, with what today's decoders say; whose one is; and that none is lost when a person's are taken out."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
import pytest
from aiokafka.errors import KafkaConnectionError

from demo.publish import envelope
from projectors.dead_letters import LARGEST, POSITION, DeadLetterTopic, Owner, find_letters, mark_replayed, remove_letters
from projectors.letters import Letter, Today, Wanted, read_letters, share_of
from projectors.log import Record
from projectors.topic_reader import Bounds
from schema.definition import read_definition
from schema.fields import Row
from schema.generation import Generation
from schema.positions import Partition
from schema.user import UserView
from tests.faults.arranged import follow, tweet, user
from tests.faults.letter_topic import LetterTopic
from tests.faults.memory import Stored

TODAY = Today(read_definition(UserView))
MS = 1_767_323_045_000


def letter(value: bytes | None, key: bytes | None = None, topic: str = "follows") -> Stored:
    return Stored(0, 0, key, value, [(POSITION, f"{topic}:0:3".encode())] if topic else [])


class Full:
    """A Reader of one letter, a producer whose broker keeps nothing, and an admin that notes up to where it is to delete."""

    def __init__(self) -> None:
        self.deleted: list[int] = []

    async def bounds(self) -> Bounds:
        return {Partition("letters", 0): (3, 4)}

    async def records(self, partition: Partition, start: int, end: int) -> AsyncIterator[Record]:
        yield letter(b"somebody else's")

    async def send(self, *_: Any, **__: Any) -> "asyncio.Future[None]":
        sending = asyncio.get_running_loop().create_future()
        sending.set_exception(KafkaConnectionError())
        return sending

    async def delete_records(self, before: Mapping[Any, Any]) -> None:
        self.deleted += [records.before_offset for records in before.values()]


async def test_no_letter_is_deleted_before_the_others_are_kept() -> None:
    full, owner = Full(), Owner(read_definition(UserView), "1")
    with pytest.raises(KafkaConnectionError):
        await remove_letters(full, owner, await find_letters(full, owner), full, full)
    # only what was asked to see whether it can be done: all before the first
    assert full.deleted == [3]


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (letter(b'{"op": "c", "after": {"followee_id": 7}}'), True),
        (letter(b'{"op": "c", "after": {"followee_id": "7"}}'), True),
        (letter(b'{"op": "c", "after": {"followee_id": 7.0}}'), True),
        (letter(b'{"op": "c", "after": {"followee_id": "007"}}'), True),
        (letter(b'[{"payload": [{"follower_id": 7}]}]'), True),
        (letter(b'{"op": "c", "after": {"followee_id": 77, "follow_id": 7, "user_id": 7}}'), False),
        (letter(b'{"op": "c", "after": {"followee_id": true, "follower_id": null}}'), False),
        (letter(b'{"after": {"user_id": 7}}', topic="users"), True),
        (letter(b'{"after": {"user_id": 7}}', topic=""), True),
        (letter(b"no JSON", b"7", "users"), True),
        (letter(None, b'{"user_id": 7}', "users"), True),
        (letter(b"no JSON", b"7", "follows"), None),
        (letter(b"no JSON", b"8", "users"), None),
        (letter(None, b"8", "users"), False),
        (letter(b"[" * 5000, b"8", "users"), None),
    ],
)
def test_whose_a_letter_is(one: Stored, expected: bool | None) -> None:
    assert Owner(read_definition(UserView), "7").has(one) is expected


async def bury(topic: LetterTopic, offset: int, value: bytes | None, reason: str = "why", of: str = "follows") -> None:
    letters = DeadLetterTopic(topic, "letters")
    await letters.bury(Partition(of, 0), Stored(offset, 0, b"9", value, [("own", b"kept")]), reason)


async def read(topic: LetterTopic) -> list[Letter]:
    return list(await read_letters(topic, TODAY))


async def test_a_record_that_was_buried_twice_is_one_letter_and_the_newest_comes_last() -> None:
    topic = LetterTopic()
    await bury(topic, 3, b"first", "no JSON")
    await bury(topic, 4, b"second", "no JSON")
    await bury(topic, 3, b"first", "no JSON by a newer decoder")
    assert [(one.position, one.times, one.reason) for one in await read(topic)] == [
        ("follows:0:4", 1, "no JSON"),
        ("follows:0:3", 2, "no JSON by a newer decoder"),
    ]
    # a topic that was made anew has another record there
    await bury(topic, 3, b"third")
    assert [one.position for one in await read(topic)] == ["follows:0:4", "follows:0:3", "follows:0:3"]


async def test_a_letter_is_replayed_until_it_is_buried_again() -> None:
    topic = LetterTopic()
    for offset in (3, 4):
        await bury(topic, offset, envelope("c", None, follow(1, 1, 2), MS))
    await mark_replayed(topic, [(topic.partition, "follows:0:3")], ["g1", "g2"])
    assert [(one.position, one.state, one.replayed) for one in await read(topic)] == [
        ("follows:0:3", "replayed", "g1,g2"),
        ("follows:0:4", "decodes now", ""),
    ]
    letters = await find_letters(topic, Owner(read_definition(UserView), "1"))
    assert (letters.own, letters.others) == (2, 0)
    await bury(topic, 3, envelope("c", None, follow(1, 1, 2), MS))
    assert {one.state for one in await read(topic)} == {"decodes now"}


@pytest.mark.parametrize(
    ("of", "op", "before", "after", "ids"),
    [
        ("follows", "c", None, follow(1, 1, 2), {"1", "2"}),
        ("follows", "u", follow(1, 1, 2), follow(1, 1, 3), {"1", "2", "3"}),
        ("follows", "d", follow(1, 4, 4), None, {"4"}),
        ("tweets", "u", tweet(1, 5), tweet(1, 6), {"5", "6"}),
        ("users", "u", user(7, "a"), user(7, "b"), {"7"}),
        ("users", "u", user(7, "a"), user(7, "a", "Ada"), {"7"}),
        ("users", "r", None, user(8, "a"), {"8"}),
    ],
)
async def test_a_letter_that_decodes_now_tells_which_rows_it_touches(
    of: str, op: str, before: Row | None, after: Row | None, ids: set[str]
) -> None:
    topic = LetterTopic()
    await bury(topic, 3, envelope(op, before, after, MS), of=of)
    (one,) = await read(topic)
    assert (one.state, one.op, set(one.ids), one.decodes) == ("decodes now", op, ids, True)


@pytest.mark.parametrize(
    ("of", "value", "problem"),
    [
        ("follows", b"no JSON", "malformed"),
        ("follows", envelope("c", None, None, MS), "op 'c' needs"),
        ("follows", envelope("t", None, None, MS), "run `viewgate rebuild`"),
        ("orders", envelope("c", None, follow(1, 1, 2), MS), "orders is no topic of User"),
        ("follows", None, "it changes no row"),
    ],
)
async def test_a_letter_that_is_no_change_today_says_why(of: str, value: bytes | None, problem: str) -> None:
    topic = LetterTopic()
    await bury(topic, 3, value, of=of)
    (one,) = await read(topic)
    assert (one.state, one.decodes, one.ids) == ("dead", False, frozenset())
    assert problem in one.problem


async def test_a_record_of_somebody_else_in_the_topic_is_told_by_where_it_lies() -> None:
    topic = LetterTopic()
    await topic.send_and_wait("letters", b"what is this?", None, [])
    (one,) = await read(topic)
    assert (one.position, one.state) == ("letters:0:0", "dead")


@pytest.mark.parametrize(
    "record",
    [
        Stored(5, 0, b"1", b"x" * 10_000_000),
        Stored(5, 0, b"k" * 3_000_000, b"x" * 3_000_000),
        Stored(5, 0, b"1", b"x", [("large", b"h" * 3_000_000)]),
        Stored(5, 0, None, b"x" * LARGEST, [("own", b"kept")]),
        Stored(5, 0, None, None, [("large", b"h" * 3_000_000)]),
    ],
)
async def test_what_is_too_large_for_the_topic_is_cut_and_says_so(record: Stored) -> None:
    topic = LetterTopic()
    await DeadLetterTopic(topic, "letters").bury(Partition("follows", 0), record, "\udcff why " * 200_000)
    (kept,) = topic.stored
    size = len(kept.key or b"") + len(kept.value or b"") + sum(len(name) + len(value) for name, value in kept.headers)
    assert size < 2**20 - 50_000
    assert (record.value or b"").startswith(kept.value or b"")
    (one,) = await read(topic)
    assert (one.position, one.state, one.decodes) == ("follows:0:5", "cut", False)


def test_rows_of_a_snapshot_are_not_brought_into_a_generation_that_has_it() -> None:
    record = Generation("g1", "b", "d", 4, {}, {}, {"users:0": 0}, {}, {}, "live", promoted={"users:0": 10})
    place = Partition("letters", 0), 0
    rows = [Letter(f"users:0:{offset}", "", "", op, frozenset({str(offset)}), 0, 0, place) for op in "rc" for offset in (9, 10)]
    share = share_of(record, rows)
    assert ([letter.position for letter in share.late], share.ids) == (["users:0:10"], {"9", "10"})
    building = msgspec.structs.replace(record, state="building", promoted={})
    assert share_of(building, rows).late == []


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (Wanted(), 2),
        (Wanted(["follows:0:3"]), 1),
        (Wanted(topic="follows"), 2),
        (Wanted(topic="follow"), 0),
        (Wanted(reason="GOT `NULL`"), 1),
        (Wanted(["follows:0:3"], reason="got `null`"), 0),
    ],
)
async def test_letters_are_chosen_by_position_topic_and_reason(wanted: Wanted, count: int) -> None:
    topic = LetterTopic()
    await bury(topic, 3, b"", "malformed")
    await bury(topic, 4, b"", "Expected `int`, got `null`")
    assert len([one for one in await read(topic) if wanted.has(one)]) == count


async def test_letters_of_one_sort_differ_in_where_their_json_breaks_off_only() -> None:
    topic = LetterTopic()
    await bury(topic, 3, b"", "JSON is malformed: invalid character (byte 7)")
    await bury(topic, 4, b"", "JSON is malformed: invalid character (byte 21)")
    assert {one.sort for one in await read(topic)} == {"JSON is malformed: invalid character"}
