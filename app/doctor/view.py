"""Checks of the view in Redis: is there one, is it of this definition, whole, fresh and small, and does Kafka have what comes next."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from app.doctor import kafka, redis
from app.doctor.checks import Checks, Finding, NothingThere, Verdict, listed, worst
from projectors.apply import Header, RedisStore
from projectors.generations import FIRST, Generations
from schema import layout
from schema.definition import Definition
from schema.generation import Generation
from schema.loader import Mode
from schema.positions import Partition, Watermark
from schema.progress import times_ms

OLD_SECONDS, TOO_OLD_SECONDS = 10.0, 60.0
SAMPLE, SCANS, SCAN_COUNT = 10, 50, 1000
COMPACT = {b"listpack", b"ziplist"}
ANEW = "Build anew, as docs/running.md says."
START = "Start `viewgate project`: it builds one from Kafka's beginning."


@dataclass(slots=True)
class Asked:
    """The view under examination. mode: that requests are answered in. kafka: what was found out about it, if anything.

    record: of the live generation, else of the one that is being built. headers: of its shards. Both come with the first check.
    """

    redis: Redis
    definition: Definition
    mode: Mode
    kafka: kafka.Asked
    record: Generation | None = None
    live: bool = False
    headers: Sequence[Header] = ()

    @property
    def keys(self) -> layout.Layout:
        """Of its generation, which must be there."""
        record = self.there()
        return layout.Layout(self.definition.name, record.name, record.shards)

    def there(self) -> Generation:
        """Raises NothingThere."""
        if self.record is None:
            raise NothingThere("there is no generation")
        return self.record


VIEW: Checks[Asked] = Checks("view", redis.AWAY, (ResponseError, msgspec.MsgspecError), "Redis")


@VIEW.check(
    "generation",
    "the live generation and its record",
    warning="there is none, and requests are answered in another mode",
    wrong="there is none though requests are answered in mode view, or its record is gone",
    mend=START,
)
async def _generation(asked: Asked) -> Finding:
    generations = Generations(asked.redis, asked.definition)
    name = await generations.live()
    asked.record = await generations.read(name or FIRST)
    asked.live = name is not None and asked.record is not None
    if asked.record is not None:
        asked.headers = await RedisStore(asked.redis, asked.keys, "").headers()
    if asked.live:
        return Finding("ok", f"{name} is live")
    if name is not None:
        return Finding("wrong", f"{name} is live, but its record is gone from Redis", ANEW)
    verdict: Verdict = "wrong" if asked.mode == "view" else "warning"
    if asked.record is None:
        return Finding(verdict, "none is live, and none is being built")
    return Finding(verdict, f"none is live; {FIRST} is {asked.record.state}", "Wait until it is level; see that `viewgate project` runs.")


@VIEW.check(
    "definition",
    "the definition that it was built with, by its fingerprint",
    wrong="it is another than `VIEWGATE_VIEW` and `VIEWGATE_TOPIC_PREFIX` name: a projector refuses to write it",
    mend="Build anew, as docs/running.md says, or set both as they were.",
)
async def _definition(asked: Asked) -> Finding:
    record = asked.there()
    if record.definition == asked.definition.fingerprint:
        return Finding("ok", f"{record.definition}, as here")
    return Finding("wrong", f"built with {record.definition}, here it is {asked.definition.fingerprint}: {_differing(record, asked)}")


@VIEW.check(
    "shards",
    "the header of each shard: there, live, and of one build",
    wrong="one is missing, failed or not live: its users are not answered",
    mend=ANEW,
)
async def _shards(asked: Asked) -> Finding:
    record, headers = asked.there(), asked.headers
    expected = layout.LIVE if asked.live else layout.BUILDING
    lost = [f"{shard}" for shard, header in enumerate(headers) if header.state is None]
    other = [f"{shard} is {_text(header.state)}" for shard, header in enumerate(headers) if header.state not in {None, expected}]
    strange = [f"{shard}" for shard, header in enumerate(headers) if header.state is not None and header.build != record.build]
    findings = [
        Finding("wrong", f"{what}: {listed(shards)}")
        for what, shards in (("lost", lost), ("in another state", other), ("of another build", strange))
        if shards
    ]
    return worst(findings, f"{len(headers)} of {record.shards} {expected.decode()}")


@VIEW.check(
    "as-of",
    "up to when the view has everything",
    warning=f"that is more than {OLD_SECONDS:.0f} s ago",
    wrong=f"that is more than {TOO_OLD_SECONDS:.0f} s ago, or no projector has said so yet",
    mend="See that `viewgate project` runs and what it logs; one that has stopped says why.",
)
async def _as_of(asked: Asked) -> Finding:
    times: Any = await asked.redis.hgetall(asked.keys.progress)
    if not asked.live:
        raise NothingThere("no generation is live")
    if not times:
        return Finding("wrong", "no projector has said yet how far it is")
    partition, as_of_ms = min(times_ms(times).items(), key=lambda item: item[1])
    seconds = time.time() - as_of_ms / 1000
    verdict: Verdict = "wrong" if seconds > TOO_OLD_SECONDS else "warning" if seconds > OLD_SECONDS else "ok"
    return Finding(verdict, f"{max(0.0, seconds):,.1f} s ago, by {partition}")


@VIEW.check(
    "encoding",
    f"`OBJECT ENCODING` of up to {SAMPLE} rows",
    warning="one is a hashtable: it takes 1,015 bytes where 318 would do",
    mend="Set both listpack limits, then build anew, as docs/running.md says: a hash that was converted stays so.",
)
async def _encoding(asked: Asked) -> Finding:
    keys = await _sample(asked)
    if not keys:
        raise NothingThere("no row was found")
    encodings = [await asked.redis.object("ENCODING", key) for key in keys]
    large = [key for key, encoding in zip(keys, encodings, strict=True) if encoding is not None and encoding not in COMPACT]
    if large:
        return Finding("warning", f"{len(large)} of {len(keys)} rows are no listpack, such as {large[0]}")
    return Finding("ok", f"{len(keys)} of {len(keys)} rows are a listpack")


@VIEW.check(
    "positions",
    "the watermarks, against what Kafka still has",
    warning="Kafka no longer has the beginning: the view cannot be built from there again",
    wrong="Kafka lacks what the view needs next, or ends before it, or the topic was made anew; or there is no view and no beginning",
    mend="Fill the topics again from the source, with retention off, then build anew, as docs/running.md says.",
)
async def _positions(asked: Asked) -> Finding:
    if not asked.kafka.bounds:
        raise NothingThere("Kafka has told no offsets")
    lowest = _watermarks(asked.headers)
    judged = [_position(asked, lowest, partition, *bounds) for partition, bounds in asked.kafka.bounds.items()]
    findings = [finding for finding in judged if finding]
    return worst(findings[:5], f"Kafka has everything from {'the watermarks' if lowest else 'the beginning'} on")


def _position(asked: Asked, lowest: Mapping[str, Watermark], partition: Partition, first: int, end: int) -> Finding | None:
    stored = lowest.get(str(partition))
    topic_id = asked.kafka.ids.get(partition.topic, "")
    if stored is None and not lowest:
        return Finding("wrong", f"{partition} begins at {first}: a first view needs it from 0") if first else None
    if stored is None:
        return Finding("wrong", f"{partition} did not exist when the view was begun", ANEW)
    if stored.topic_id != topic_id and topic_id:
        return Finding("wrong", f"{partition} is of a topic that was made anew", ANEW)
    if first > stored.offset:
        return Finding("wrong", f"{partition} begins at {first}, the view needs it from {stored.offset}")
    if end < stored.offset:
        return Finding("wrong", f"{partition} ends at {end}, the view has it up to {stored.offset}", ANEW)
    return Finding("warning", f"{partition} begins at {first}: the view cannot be built from the beginning again") if first else None


def _watermarks(headers: Sequence[Header]) -> dict[str, Watermark]:
    """The lowest of each partition, over all shards."""
    lowest: dict[str, Watermark] = {}
    for header in headers:
        for partition, watermark in header.watermarks.items():
            if partition not in lowest or watermark.offset < lowest[partition].offset:
                lowest[partition] = watermark
    return lowest


def _differing(record: Generation, asked: Asked) -> str:
    fields = {f.name for f in asked.definition.fields}
    topics = {partition.rpartition(":")[0] for partition in record.start}
    sides = (
        ("it lacks field", fields - record.codes.keys()),
        ("it has field", record.codes.keys() - fields),
        ("it lacks topic", set(asked.definition.topics) - topics if topics else set()),
        ("it has topic", topics - set(asked.definition.topics)),
    )
    told = [f"{what} {listed(sorted(names))}" for what, names in sides if names]
    return "; ".join(told) or "the fields are the same, so it is a type, a kind, a `by` or a `where` that differs"


async def _sample(asked: Asked) -> list[str]:
    """Keys of a few rows, without looking through a whole Redis."""
    found: list[str] = []
    cursor = 0
    for _ in range(SCANS):
        cursor, keys = await asked.redis.scan(cursor, asked.keys.rows_pattern(), SCAN_COUNT)
        found += [key for key in map(_text, keys) if layout.Layout.row_id(key) is not None]
        if cursor == 0 or len(found) >= SAMPLE:
            break
    return found[:SAMPLE]


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
