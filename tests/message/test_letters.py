"""Whose a dead letter is, and that none is lost when a person's are taken out."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from projectors.dead_letters import POSITION, Owner, find_letters, remove_letters
from projectors.log import Record
from projectors.snapshot import Bounds
from schema.definition import read_definition
from schema.positions import Partition
from schema.user import UserView
from tests.faults.memory import Stored


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
