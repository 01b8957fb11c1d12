"""Dead letters read again: each once, with why it was buried, and what the decoders of today say of it. Writes nothing.

A letter that decodes now is not applied by itself. Its rows are put right by projectors/repair.py, which asks the log what they must be
at the watermarks that they have: only so it does not matter whether a projector with the mended decoder has read the record meanwhile,
on all shards or on some, nor how often it is replayed, and an old row never comes on top of a newer one.
"""

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from projectors.dead_letters import CUT, REASON, REPLAYED, position, told
from projectors.fold import fold
from projectors.log import Record
from projectors.records import decoders
from projectors.records.envelope import Change, Undecodable
from projectors.topic_reader import Reader
from schema.definition import Definition
from schema.fields import Row
from schema.generation import Generation
from schema.positions import Partition

_PLACE = re.compile(r"(.+):(\d+):(\d+)")
# where in a text JSON breaks off: the rest of the reason is the same for all that break off
_BYTE = re.compile(r" \(byte \d+\)")


@dataclass(frozen=True, slots=True)
class Letter:
    """position: where the record lay, topic:partition:offset; of one that does not say so, where the letter lies itself.

    reason: why it was buried, when it last was. problem: why it is no change by the decoders of today, "" if it is one. op, ids: what
    the change is then, and the rows of the view that it touches. buried_ms: when it last was, Unix ms. times: how often. size: of what
    is kept of key and value, in bytes. is_cut: the rest lies where the record lay, if anywhere. replayed: the generations that a mark
    says have it. place: where it lies itself.
    """

    position: str
    reason: str
    problem: str
    op: str
    ids: frozenset[str]
    buried_ms: int
    size: int
    place: tuple[Partition, int]
    times: int = 1
    is_cut: bool = False
    replayed: str = ""

    @property
    def topic(self) -> str:
        return self.position.rsplit(":", 2)[0]

    @property
    def decodes(self) -> bool:
        """Whether it is known to be a change now."""
        return bool(self.op) and not self.problem

    @property
    def sort(self) -> str:
        """The reason, without what differs from one letter of the sort to the next."""
        return _BYTE.sub("", self.reason)

    @property
    def state(self) -> str:
        """`replayed`, `decodes now`, `cut` (not known before the record is read), or `dead`."""
        if self.problem:
            return "dead"
        return "replayed" if self.replayed else "cut" if self.is_cut else "decodes now"

    @property
    def lay(self) -> tuple[Partition, int] | None:
        """The position, None for a text that is none."""
        found = _PLACE.fullmatch(self.position)
        return (Partition(found[1], int(found[2])), int(found[3])) if found else None


class Today:
    """What the decoders of this process say."""

    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self._decoders = decoders(definition)

    def read(self, letter: Letter, record: Record) -> Letter:
        """The letter with what is known of its record now."""
        row = self._definition.topics.get(letter.topic)
        if letter.topic in self._definition.changelogs:
            # the stage that reads a changelog has passed it, and what it wrote is its state
            return replace(letter, problem="a changelog tells the newest value of a row only: have the producer publish the row again")
        if row is None:
            return replace(letter, problem=f"{letter.topic} is no topic of {self._definition.name}")
        try:
            change = self._decoders[letter.topic](record)
        except Undecodable as reason:
            return replace(letter, problem=str(reason))
        if change is None:
            return replace(letter, problem="it changes no row of the view")
        if change.op == "t":
            return replace(letter, problem="the table was truncated, which cannot be counted: run `viewgate rebuild`", op="t")
        return replace(letter, problem="", op=change.op, ids=frozenset(self._touched(row, change)), is_cut=False)

    def _touched(self, row: type[Row], change: Change[Any]) -> set[str]:
        """Rows of the view that have a count or a profile of it; whoever has a claim of it has that profile."""
        effects = fold(self._definition, row, [(0, change)])
        keys = {key for deltas in effects.counts.values() for key in deltas} | effects.profiles.keys()
        return {str(key) for key in keys}


async def read_letters(reader: Reader, today: Today) -> Sequence[Letter]:
    """Each once, the one that was buried last at the end. reader: of their topic alone. Raises KafkaError.

    A record that is read again is buried again, and letters that `viewgate erase` has moved have other offsets: what tells that two are
    the same is the position and the bytes. A topic that was deleted and made anew has others at the same positions.
    """
    found: dict[str, dict[bytes, Letter]] = {}
    async for letter, record in _all(reader, today):
        same = found.setdefault(letter.position, {})
        if names := told(record, REPLAYED):
            same.update({digest: replace(known, replayed=names) for digest, known in same.items()})
            continue
        digest = blake2b(b"%d:" % len(record.key or b"") + (record.key or b"") + (record.value or b"")).digest()
        same[digest] = replace(letter, times=same[digest].times + 1) if digest in same else letter
    letters = [letter for same in found.values() for letter in same.values()]
    return sorted(letters, key=lambda letter: (letter.buried_ms, letter.place))


async def _all(reader: Reader, today: Today) -> AsyncIterator[tuple[Letter, Record]]:
    for partition, (first, end) in (await reader.bounds()).items():
        async for record in reader.records(partition, first, end):
            lay = position(record) or f"{partition}:{record.offset}"
            is_cut = bool(told(record, CUT))
            size = len(record.key or b"") + len(record.value or b"")
            letter = Letter(
                lay, told(record, REASON), "", "", frozenset(), record.timestamp, size, (partition, record.offset), is_cut=is_cut
            )
            yield (letter if is_cut or told(record, REPLAYED) else today.read(letter, record)), record


async def record_at(reader: Reader, place: tuple[Partition, int] | None) -> Record | None:
    """What lies there, None if nothing does any more. reader: of the topics that it may be in. Raises KafkaError."""
    if place is None:
        return None
    partition, offset = place
    first, end = (await reader.bounds()).get(partition, (0, 0))
    if first <= offset < end:
        async for record in reader.records(partition, offset, offset + 1):
            return record
    return None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters are meant. Nothing said: all of them. topic: with its prefix. reason: a part of it, however it is written."""

    positions: Sequence[str] = ()
    topic: str | None = None
    reason: str | None = None

    def has(self, letter: Letter) -> bool:
        return (
            (not self.positions or letter.position in self.positions)
            and (self.topic is None or letter.topic == self.topic)
            and (self.reason is None or self.reason.casefold() in letter.reason.casefold())
        )


@dataclass(slots=True)
class Share:
    """What a generation is to take of some letters. late: rows of a snapshot that came when it had them already."""

    ids: set[str] = field(default_factory=set)
    late: list[Letter] = field(default_factory=list)


def share_of(record: Generation, letters: Sequence[Letter]) -> Share:
    """Of letters that decode now. A snapshot builds a generation and is never added to one, by whatever road its rows come."""
    share = Share()
    for letter in letters:
        partition, offset = letter.lay or (Partition("", 0), 0)
        if letter.op == "r" and record.promoted and offset >= record.promoted.get(str(partition), 0):
            share.late.append(letter)
        else:
            share.ids |= letter.ids
    return share
