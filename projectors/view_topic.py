"""A view topic on the wire: a record for each row, each lookup value's claimants, each shard, each partition. Pure: sends nothing.

Every record bears a Stamp in its header `viewgate`, a tombstone too. Its key is JSON, so that no id can be taken for a shard:

    {"id":"7"}                        {"id":"7","generation":"g1","version":…,"row":{"username":"ada",…,"tweet_count":3}}
    {"by":"username","value":"ada"}   {"by":"username","value":"ada","generation":"g1","version":…,"claimants":{"7":"1767…:12"}}
    {"shard":5}                       {"shard":5,"generation":"g1","version":…,"watermarks":{"users:0":"17|1767…|…"}}
    {"partition":3}                   {"partition":3,"generation":"g1","version":…,"as_of":{"users:0":1767…},"versions":{"5":…},
                                       "record":{…}}

All of a shard is in one partition: shard mod partitions.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import Raw, Struct, json

from projectors.log import Record
from schema import layout
from schema.generation import Generation
from schema.layout import Layout

HEADER = "viewgate"


class UnreadableTopic(Exception):
    """A record that no projector publishes lies in the view topic; the message says where."""


class Stamp(Struct, frozen=True):
    """generation, shards, definition: of the Redis that it was read from. shard: -1 in a partition's record, series is "" then.

    version: what is of a higher one is newer, within a shard. µs since 1970 or more. series: all versions of one are about the same
    shard; where another begins, whatever was told of the shard before is void.
    """

    generation: str
    series: str
    shard: int
    shards: int
    definition: str
    version: int


class Sent(NamedTuple):
    """A record to be written."""

    partition: int
    key: bytes
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class ViewTopic(Protocol):
    """Of one publisher: whoever opened it last is the only one who can write it."""

    @property
    def name(self) -> str: ...

    @property
    def topic_id(self) -> str:
        """The broker's id of it, "" where it tells none."""
        ...

    @property
    def partitions(self) -> int: ...

    async def versions(self, generation: str) -> Mapping[int, int]:
        """By shard the highest version that lies in it; shards of which nothing is known are left out. Raises KafkaError."""
        ...

    async def write(self, records: Sequence[Sent]) -> None:
        """All of them or none. Raises KafkaError; what is written then is not known."""
        ...


class Told(NamedTuple):
    """A record that was read. at: what its Redis key has after the hash tag, None for a shard's or a partition's.

    row: fragments by field. claimants: when, by id. Neither: there is no such hash.
    """

    stamp: Stamp
    at: str | None
    row: Mapping[str, Raw] = {}
    claimants: Mapping[str, str] = {}
    watermarks: Mapping[str, str] | None = None
    as_of: Mapping[str, int] = {}
    versions: Mapping[str, int] = {}
    record: Generation | None = None


class _Key(Struct):
    id: str | None = None
    by: str | None = None
    value: str | None = None
    shard: int | None = None
    partition: int | None = None


class _Value(Struct):
    row: dict[str, Raw] = {}
    claimants: dict[str, str] = {}
    watermarks: dict[str, str] | None = None
    as_of: dict[str, int] = {}
    versions: dict[str, int] = {}
    record: Generation | None = None


_STAMP, _KEY, _VALUE = json.Decoder(Stamp), json.Decoder(_Key), json.Decoder(_Value)


class Wire:
    """Writes the records of one generation. partitions: of the topic."""

    def __init__(self, record: Generation, partitions: int) -> None:
        self._record, self._partitions = record, partitions
        self._names = {code.encode(): name for name, code in record.codes.items()}

    def hash(self, shard: int, series: str, version: int, key: str, stored: Mapping[bytes, bytes]) -> Sent:
        """A row's or claimants' hash as it is in Redis, empty where there is none. key: its key in Redis."""
        stamp, row_id = self._stamp(shard, series, version), Layout.row_id(key)
        if row_id is not None:
            return self._sent(shard, stamp, {"id": row_id}, {"row": self._row(stored)} if stored else None)
        by, _, value = key.partition("}@")[2].partition(":")
        claimants = {id_.decode(): when.decode() for id_, when in stored.items()}
        return self._sent(shard, stamp, {"by": by, "value": value}, {"claimants": claimants} if stored else None)

    def shard(self, shard: int, series: str, version: int, watermarks: Mapping[bytes, bytes]) -> Sent:
        """With everything of this version and before, the shard is where these watermarks are."""
        told = {partition.decode(): watermark.decode() for partition, watermark in watermarks.items()}
        return self._sent(shard, self._stamp(shard, series, version), {"shard": shard}, {"watermarks": told})

    def level(self, partition: int, versions: Mapping[int, int], as_of_ms: Mapping[str, int]) -> Sent:
        """Every shard of the partition is published as a whole; the view has each source partition up to these Unix ms."""
        told = {"as_of": as_of_ms, "versions": {str(shard): version for shard, version in versions.items()}, "record": self._record}
        stamp = self._stamp(-1, "", max(versions.values(), default=0))
        return self._sent(partition, stamp, {"partition": partition}, told)

    def _row(self, stored: Mapping[bytes, bytes]) -> dict[str, Raw]:
        prefixes, row = self._record.prefixes, {}
        for code, value in stored.items():
            name = self._names[code]
            row[name] = Raw(layout.uncut(value, prefixes[name]) if name in prefixes else value)
        return row

    def _stamp(self, shard: int, series: str, version: int) -> Stamp:
        return Stamp(self._record.name, series, shard, self._record.shards, self._record.definition, version)

    def _sent(self, place: int, stamp: Stamp, key: Mapping[str, Any], told: Mapping[str, Any] | None) -> Sent:
        value = None if told is None else json.encode({**key, "generation": stamp.generation, "version": stamp.version, **told})
        return Sent(place % self._partitions, json.encode(key), value, [(HEADER, json.encode(stamp))])


def read(record: Record) -> Told:
    """Raises UnreadableTopic."""
    stamped = next((value for name, value in record.headers if name == HEADER), None)
    try:
        if stamped is None:
            raise ValueError(f"it has no header {HEADER}")
        stamp, key = _STAMP.decode(stamped), _KEY.decode(record.key or b"")
        told = _VALUE.decode(record.value) if record.value is not None else _Value()
        return Told(stamp, _at(key), told.row, told.claimants, told.watermarks, told.as_of, told.versions, told.record)
    except (ValueError, msgspec.MsgspecError) as problem:
        raise UnreadableTopic(
            f"at offset {record.offset} lies what no projector publishes ({problem}): a view topic is for `viewgate project` alone."
        ) from problem


class Versions:
    """The highest version of each shard of each generation, from records in their order."""

    def __init__(self) -> None:
        self.found: dict[str, dict[int, int]] = {}
        self.is_whole = False

    def add(self, record: Record) -> None:
        """is_whole: with the first record of a partition all of its shards are known. Raises UnreadableTopic."""
        told = read(record)
        of = self.found.setdefault(told.stamp.generation, {})
        versions = {int(shard): version for shard, version in told.versions.items()} or {told.stamp.shard: told.stamp.version}
        of |= {shard: max(version, of.get(shard, 0)) for shard, version in versions.items()}
        self.is_whole = self.is_whole or told.stamp.shard < 0


def _at(key: _Key) -> str | None:
    if key.id is not None:
        return f":{key.id}"
    return None if key.by is None else f"@{key.by}:{key.value}"
