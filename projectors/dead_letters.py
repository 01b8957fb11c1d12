"""Records that are no change: kept as they were in a topic of their own, with where they lay and why; and a person's taken out of it.

They are read again by projectors/letters.py.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Protocol

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import KafkaError

from projectors.log import Record
from projectors.records.columns import UNREADABLE
from projectors.topic_reader import Bounds, Reader
from schema.definition import Definition
from schema.layout import LONGEST_KEY
from schema.positions import Partition

POSITION, REASON = "viewgate-position", "viewgate-reason"
# of a letter that was too large: the size that it had. Of a mark, which has no key and an empty value: the generations that have the change
CUT, REPLAYED = "viewgate-cut", "viewgate-replayed"
# of key, value and headers: with our own they stay below 1 MiB, which is what producer and broker take if nothing else is said
LARGEST = 900_000
LONGEST_REASON = 1_000
AT_ONCE = 500
Headers = Sequence[tuple[str, bytes]]


class DeadLetters(Protocol):
    async def bury(self, partition: Partition, record: Record, reason: str) -> None:
        """Return once it is kept. A record that is read again is buried again, under the same position."""
        ...


class DeadLetterTopic:
    """Key, value and headers as they were; `viewgate-position` (topic:partition:offset) and `viewgate-reason` beside them.

    What is too large is cut, and says so by `viewgate-cut`: a topic may take larger records than this one, and none may stop the projector.
    """

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self._producer, self.topic = producer, topic

    async def bury(self, partition: Partition, record: Record, reason: str) -> None:
        why = reason[:LONGEST_REASON].encode(errors="backslashreplace")
        own = [(POSITION, f"{partition}:{record.offset}".encode()), (REASON, why)]
        key, value, headers = record.key, record.value, record.headers
        size = len(key or b"") + len(value or b"") + _size(headers)
        if size > LARGEST:
            key, value, headers = _cut(record)
            own.append((CUT, b"%d" % size))
        # aiokafka sends nothing that has neither
        value = b"" if key is None and value is None else value
        await self._producer.send_and_wait(self.topic, value=value, key=key, headers=[*headers, *own])


def _size(headers: Headers) -> int:
    return sum(len(name.encode()) + len(value or b"") for name, value in headers)


def _cut(record: Record) -> tuple[bytes | None, bytes | None, Headers]:
    """What there is room for: the headers, all or none, then the key, then the value."""
    headers = record.headers if _size(record.headers) < LARGEST // 2 else ()
    room = LARGEST - _size(headers)
    key = record.key and record.key[:room]
    room -= len(key or b"")
    return key, record.value and record.value[:room], headers


async def mark_replayed(producer: AIOKafkaProducer, letters: Iterable[tuple[Partition, str]], generations: Sequence[str]) -> None:
    """Say of letters, behind them, that these generations have their changes.

    letters: the partition that each lies in, and its position. Only a note for people: nothing is decided by it. Raises KafkaError.
    """
    names = ",".join(generations).encode()
    sent = [
        await producer.send(partition.topic, b"", partition=partition.number, headers=[(POSITION, lay.encode()), (REPLAYED, names)])
        for partition, lay in letters
    ]
    await asyncio.gather(*sent)


class CannotDelete(Exception):
    """The broker deletes no records of the topic; the message says why. Nothing was written."""


@dataclass(slots=True)
class Letters:
    """Dead letters up to the ends: how many are the row's, how many others'; positions of those whose JSON cannot be read."""

    bounds: Bounds
    own: int = 0
    others: int = 0
    unread: list[str] = field(default_factory=list)


class Owner:
    """Tells whose a dead letter is: the row's, if it is keyed by its id in the base topic, or bears it where the definition looks."""

    def __init__(self, definition: Definition, row_id: str) -> None:
        self._id, self._is_number = row_id, definition.key_type is int
        self._base = definition.topic(definition.base)
        self._columns: dict[str, set[str]] = {self._base: {definition.base.source.key}}
        for aggregate in definition.aggregates:
            self._columns.setdefault(definition.topic(aggregate.kind.row), set()).add(getattr(aggregate.kind, "by", ""))
        self._all = {column for columns in self._columns.values() for column in columns}

    def has(self, letter: Record) -> bool | None:
        """None where nothing names the row, but not all can be read."""
        topic = position(letter).rpartition(":")[0].rpartition(":")[0]
        columns = self._columns.get(topic, self._all)
        if topic == self._base and letter.key is not None and self._is(letter.key.decode(errors="replace")):
            return True
        read = [_read(part) for part in (letter.key, letter.value)]
        if any(self._names(part, columns) for part in read):
            return True
        return None if letter.value and read[1] is None else False

    def _names(self, part: Any, columns: set[str]) -> bool:
        waiting = [part]
        while waiting:
            found = waiting.pop()
            if isinstance(found, Mapping):
                if any(self._is(found[column]) for column in columns & found.keys()):
                    return True
                waiting += found.values()
            elif isinstance(found, list):
                waiting += found
        return False

    def _is(self, value: object) -> bool:
        """Also as another type than the column's: that may be why it is a dead letter."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        text = str(value).strip()
        if self._is_number and len(text) <= LONGEST_KEY and text.removeprefix("-").isdecimal():
            text = str(int(text))
        return text == self._id


async def find_letters(reader: Reader, owner: Owner) -> Letters:
    """Read all dead letters. reader: of their topic alone. Raises KafkaError."""
    letters = Letters(await reader.bounds())
    for partition, (first, end) in letters.bounds.items():
        async for letter in reader.records(partition, first, end):
            if told(letter, REPLAYED):
                continue
            own = owner.has(letter)
            letters.own, letters.others = letters.own + (own is True), letters.others + (own is not True)
            if own is None:
                letters.unread.append(position(letter) or f"{partition}:{letter.offset}")
    return letters


async def remove_letters(reader: Reader, owner: Owner, letters: Letters, producer: AIOKafkaProducer, admin: AIOKafkaAdminClient) -> None:
    """Take the row's out: write the others again at the end, then delete all before it. Raises CannotDelete, KafkaError.

    Broken off it has lost nothing: letters are then there twice, under the same position, and once again after the next time.
    """
    await _check(admin, letters.bounds)
    for partition, (first, end) in letters.bounds.items():
        written, sent = set[tuple[str, bytes | None, bytes]](), list[asyncio.Future[Any]]()
        async for letter in reader.records(partition, first, end):
            one = position(letter) or f"{letter.offset}", letter.key, blake2b(letter.value or b"").digest()
            if owner.has(letter) is True or one in written:
                continue
            written.add(one)
            head = {"key": letter.key, "headers": list(letter.headers), "partition": partition.number, "timestamp_ms": letter.timestamp}
            sent.append(await producer.send(partition.topic, letter.value, **head))
            if len(sent) == AT_ONCE:
                await asyncio.gather(*sent)
                sent.clear()
        # all of them are kept before one is deleted
        await asyncio.gather(*sent)
    await _delete(admin, {partition: end for partition, (_, end) in letters.bounds.items()})


async def _check(admin: AIOKafkaAdminClient, bounds: Bounds) -> None:
    """By deleting nothing, what is before the first."""
    try:
        await _delete(admin, {partition: first for partition, (first, _) in bounds.items()})
    except (KafkaError, NotImplementedError, ValueError, OSError) as refused:
        raise CannotDelete(f"the broker does not delete records of it ({refused!r})") from refused


async def _delete(admin: AIOKafkaAdminClient, before: Mapping[Partition, int]) -> None:
    await admin.delete_records({TopicPartition(*partition): RecordsToDelete(offset) for partition, offset in before.items()})


def position(letter: Record) -> str:
    """Where the record lay (topic:partition:offset), "" if it does not say so."""
    return told(letter, POSITION)


def told(letter: Record, header: str) -> str:
    """What one of our headers says, "" if it is not there."""
    # ours are the last: the record that was buried may have had one of that name
    return next(((value or b"").decode(errors="replace") for name, value in reversed(letter.headers) if name == header), "")


def _read(part: bytes | None) -> Any:
    try:
        return msgspec.json.decode(part or b"")
    except UNREADABLE:
        return None
