"""The production loop over a broker and a Redis in memory, what may happen to it, and the plain count that it is held against."""

import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from projectors.apply import StoreUnavailable
from projectors.building import Build, LostShards, WholeBuild
from projectors.calls import Packing
from projectors.generations import FED, GenerationDropped, Generations, ShardLost, level
from projectors.projector import Projector
from projectors.reading import SourceChanged
from projectors.repair import LogBase, Repair
from projectors.stored import is_judged
from schema import layout
from schema.definition import read_definition
from schema.fields import Column, Count, Row
from schema.generation import Generation
from schema.positions import Partition, Watermark
from tests.faults.memory import Buried, HandClock, MemoryLog, Rounds, Tally, Topics
from tests.faults.mending import MemoryTail
from tests.simulation.connector import Connector
from tests.simulation.store import Cluster, MemoryRegister, MemoryShards, MemoryStore, Pause, Shard, go_on

SHARDS, PARTITIONS, IDS = 3, 2, 6
CHECKPOINT_SECONDS = 5.0
# rounds of every projector within which everything is level again, whatever has happened
HEALED_WITHIN = 250


class People(Row, topic="people", key="person_id"):
    person_id: int
    name: str


class Ties(Row, topic="ties", key="tie_id", position="debezium"):
    tie_id: int
    giver: int
    taker: int


@dataclass
class PersonView:
    """A person, as small as a view can be that has all kinds of effects."""

    id: str
    name: Annotated[str, Column(People, "The name.", lookup=True)]
    given: Annotated[int, Count(Ties, by="giver", description="Given.")]
    taken: Annotated[int, Count(Ties, by="taker", description="Taken.")]


DEFINITION = read_definition(type("PersonView", (PersonView,), {"__doc__": PersonView.__doc__}))
Change = tuple[int, Row | None, Row | None]
# id → name or None, given, taken
People_ = dict[str, tuple[str | None, int, int]]


class Violation(AssertionError):
    """The view is not what the changes below its watermarks amount to, or does not become level."""


class Crashed(Exception):
    """The projector ended here."""


@dataclass(slots=True)
class Owner:
    """A projector with what it was given."""

    projector: Projector
    build: Build
    log: MemoryLog
    store: MemoryStore
    clock: HandClock
    generation: str

    @property
    def has_all(self) -> bool:
        """Whether every partition is its own, and stays so."""
        return len(self.log.mine) == len(self.log.topics.ends) and not self.log.revoked

    async def run(self, rounds: int) -> None:
        """So many rounds of the production loop, a checkpoint due in the last."""
        await self.projector.run(Rounds(rounds))


class World:
    """Everything there is. Each public coroutine is something that may happen."""

    def __init__(self) -> None:
        self.topics = Topics(DEFINITION, PARTITIONS)
        self.connector = Connector(self.topics)
        self.cluster = Cluster()
        self.rows: dict[type[Row], dict[int, Row]] = {People: {}, Ties: {}}
        self.changes: dict[Partition, list[Change]] = {partition: [] for partition in self.topics.partitions}
        # a connector's snapshot, if one was taken: its rows, and where they begin
        self.snapshot: dict[Partition, list[Change]] = {}
        self.snapshot_at: dict[Partition, int] = {}
        self.from_snapshot: set[str] = set()
        # generations that only a person can go on with
        self.stopped: set[str] = set()
        self.clock = HandClock()
        self.generations = Generations(None, DEFINITION, MemoryRegister(self.cluster), self.clock)
        self.owners: list[Owner] = []
        self.told: list[str] = []

    def change(self, rng: random.Random) -> None:
        """One row comes, changes or goes."""
        row: Row = (
            People(rng.randrange(IDS), f"n{rng.randrange(8)}")
            if rng.random() < 0.4
            else Ties(rng.randrange(12), rng.randrange(IDS), rng.randrange(IDS))
        )
        kind, key = type(row), getattr(row, type(row).source.key)
        before = self.rows[kind].get(key)
        after = None if before is not None and rng.random() < 0.4 else row
        if after is None:
            del self.rows[kind][key]
        else:
            self.rows[kind][key] = row
        op = "d" if after is None else "u" if before else "c"
        partition = self.connector.send(op, before, after, rng)
        self.changes[partition].append((self.topics.records[partition][-1].offset, before, after))

    async def open(self, *, by_itself: bool) -> None:
        """A generation from the beginning of the topics, or from the snapshot, for the changes before it do not go together with it."""
        bounds = {partition: (0, end) for partition, end in self.topics.ends.items()}
        start, origin = dict.fromkeys(bounds, 0), "beginning"
        if self.snapshot_at:
            start, origin = self.snapshot_at, "snapshot"
        add = self.generations.add
        record = await add(self.store, bounds, self.topics.ids, start, origin, by_itself=by_itself, shards=SHARDS)  # type: ignore[arg-type]  # one of the words
        if record is not None and self.snapshot_at:
            self.from_snapshot.add(record.name)

    def take_snapshot(self) -> None:
        """A connector with a new slot sends every row once more, and then goes on with changes."""
        self.snapshot, self.snapshot_at = {partition: [] for partition in self.topics.partitions}, dict(self.topics.ends)
        self.connector.begin_anew()
        for rows in self.rows.values():
            for row in rows.values():
                partition = self.connector.send_snapshot_row(row)
                self.snapshot[partition].append((self.topics.records[partition][-1].offset, None, row))

    def store(self, record: Generation, pause: Pause = go_on) -> MemoryStore:
        return MemoryStore(self.cluster, record, record.codes[DEFINITION.columns[0].name], pause)

    async def begin(self, record: Generation, limit: int, *, lost: bool = False) -> Owner:
        """A projector that starts now, with all partitions."""
        store = self.store(record)
        record = await self.generations.opened(record, store)
        ends = {str(partition): end for partition, end in self.topics.ends.items()}
        build: Build = LostShards(self.generations, store, record, ends, None) if lost else WholeBuild(self.generations, store, record)
        log = MemoryLog(self.topics, limit, wait_seconds=0, assigned=list(self.topics.partitions))
        clock = HandClock(self.clock.seconds)
        projector = Projector(DEFINITION, build, log, store, Buried(), Tally(), clock, CHECKPOINT_SECONDS)
        owner = Owner(projector, build, log, store, clock, record.name)
        self.owners = [*self.owners, owner][-6:]
        return owner

    async def fed(self) -> list[Generation]:
        return [record for record in await self.generations.all() if record.state in {*FED, "opening"}]

    async def step(self, owner: Owner, rounds: int = 2, pause: Pause = go_on) -> bool:
        """Some rounds of one projector; whether it is still there afterwards."""
        owner.clock.seconds += CHECKPOINT_SECONDS
        owner.store.pause = pause
        try:
            await owner.run(rounds)
        except SourceChanged:
            self.stopped.add(owner.generation)
            self.owners = [other for other in self.owners if other is not owner]
            return False
        except (Crashed, GenerationDropped, ShardLost) as ended:
            self.told.append(f"{owner.generation}: {type(ended).__name__}")
            self.owners = [other for other in self.owners if other is not owner]
            return False
        finally:
            owner.store.pause = go_on
        return True

    async def mend(self, record: Generation, rng: random.Random, pause: Pause) -> None:
        """Somebody else has written to some rows; they are put right while projectors go on."""
        store = self.store(record, pause)
        packing = Packing(DEFINITION, record)
        damaged = []
        for number, header in enumerate(await self.store(record).headers()):
            if is_judged(record, header):
                damaged += self._damage(record, number, header.build or "", rng)
        if damaged:
            tail = MemoryTail(self.topics)
            repair = Repair(DEFINITION, record, store, MemoryShards(self.cluster, record, packing), LogBase(record), tail, tail.clock)
            await repair.run(damaged)

    def _damage(self, record: Generation, number: int, build: str, rng: random.Random) -> list[str]:
        """Ids of rows of this shard that are not there now, or not as they were."""
        shard, codes = self.cluster.shard(record.name, number), layout.codes(DEFINITION)
        prefix = layout.Layout(DEFINITION.name, record.name, SHARDS).rows_prefix(number, build)
        damaged = []
        for key in [key for key in shard.hashes if key.startswith(prefix) and rng.random() < 0.5]:
            damaged.append(key.removeprefix(prefix))
            if rng.random() < 0.3:
                del shard.hashes[key]
            else:
                shard.hashes[key][codes[rng.choice(("name", "given", "taken"))]] = str(rng.randrange(100))
        return damaged

    async def promote(self, record: Generation) -> bool:
        """As `viewgate promote` does: only what is level. Whether it was done."""
        headers = await self.store(record).headers()
        ends = {str(partition): end for partition, end in self.topics.ends.items()}
        whole = all(header.state in {layout.LIVE, layout.BUILDING} for header in headers)
        if not whole or not level(record, headers, ends) or any(not header.build for header in headers):
            return False
        return await self.generations.promote(record, self.store(record), headers) is not None

    async def drop(self, record: Generation) -> None:
        """As `viewgate drop` does."""
        if await self.generations.live() == record.name:
            return
        await self.generations.mark_dropping(record)
        for number in range(record.shards):
            self.cluster.shard(record.name, number).header = {}
        for number in range(record.shards):
            self.cluster.shard(record.name, number).hashes = {}
        await self.generations.register.remove(record.name)

    async def heal(self, limit: int = 7) -> int:
        """Let everything be repaired as app/worker.py does it; after how many rounds all is level. Raises Violation."""
        kept: dict[tuple[str, bool], Owner] = {}
        for rounds in range(HEALED_WITHIN):
            records = await self._kept()
            if not records:
                kept.clear()
                await self.open(by_itself=not await self.generations.all())
                records = await self._kept()
            for record in records:
                whole = kept.get((record.name, False)) or await self._taken_over(record, limit)
                kept[record.name, False] = whole
                if whole.projector.lost and record.state != "building" and (record.name, True) not in kept:
                    kept[record.name, True] = await self.begin(record, limit, lost=True)
            for part, owner in list(kept.items()):
                if not await self.step(owner, 1) or owner.build.finished:
                    del kept[part]
            live = await self.generations.live()
            if self.stopped and (live is None or live in self.stopped) and (anew := await self._kept()):
                # a person has built anew
                await self.promote(anew[-1])
            if await self._is_level(kept):
                return rounds
        raise Violation(f"not level after {HEALED_WITHIN} rounds: {await self._state(kept)}")

    async def _state(self, kept: Mapping[tuple[str, bool], Owner]) -> str:
        """What keeps it from being level."""
        told = [f"live {await self.generations.live()}, ends {[str(end) for end in self.topics.ends.values()]}", *self.told[-4:]]
        for record in await self.generations.all():
            headers = await self.store(record).headers()
            low = [min((w.offset for w in header.watermarks.values()), default=None) for header in headers]
            owner = kept.get((record.name, False))
            told.append(
                f"{record.name} {record.state} by itself {record.by_itself} build {record.build}, shards {[(h.state, h.build) for h in headers]} {low}, "
                f"lost {owner and owner.projector.lost}, reads {owner and sorted((str(r.partition), r.next) for r in owner.projector._readings.values())} "
                f"untaken {owner and owner.projector._untaken}, {[{p: w.offset for p, w in h.watermarks.items()} for h in headers]}, at {owner and owner.log.at}, also the lost: {(record.name, True) in kept}"
            )
        return "\n".join(told)

    async def _kept(self) -> list[Generation]:
        return [record for record in await self.fed() if record.name not in self.stopped]

    async def _taken_over(self, record: Generation, limit: int) -> Owner:
        """One that is there goes on with what it remembers; else one starts."""
        there = [o for o in self.owners if o.generation == record.name and isinstance(o.build, WholeBuild) and o.has_all]
        return there[-1] if there else await self.begin(record, limit)

    async def _is_level(self, kept: Mapping[tuple[str, bool], Owner]) -> bool:
        records = await self._kept()
        live = await self.generations.live()
        ends = {str(partition): end for partition, end in self.topics.ends.items()}
        for record in records:
            headers = await self.store(record).headers()
            # some shards of one whose promotion was cut off are ready to be seen
            wanted = {layout.LIVE} if record.state in {"live", "retired"} else {layout.LIVE, layout.BUILDING}
            owner = kept.get((record.name, False))
            if owner is None or owner.projector.lost or (record.name, True) in kept:
                return False
            if any(header.state not in wanted for header in headers) or not level(record, headers, ends):
                return False
        return live in {record.name for record in records}

    def check(self) -> None:
        """Every shard of every generation is what the changes below its watermarks amount to. Raises Violation."""
        for node in self.cluster.nodes:
            for (generation, number), shard in node.shards.items():
                if shard.header:
                    self._check_shard(generation, number, shard)

    def _check_shard(self, generation: str, number: int, shard: Shard) -> None:
        keys = layout.Layout(DEFINITION.name, generation, SHARDS)
        watermarks = {p: Watermark.decode(text.encode()).offset for p, text in shard.header.items() if p not in {"state", "build"}}
        if (generation, number, shard.header["build"]) in self.cluster.gone:
            raise Violation(f"{generation} shard {number} is built again under the build that readers remember")
        self._check_seen(generation, number, shard, watermarks)
        people = self.counted(watermarks, is_from_snapshot=generation in self.from_snapshot)
        mine = {key: row for key, row in people.items() if keys.shard(key) == number and row != (None, 0, 0)}
        found = dict(_rows(shard, keys.rows_prefix(number, shard.header["build"])))
        if mine != found:
            raise Violation(f"{generation} shard {number}: counted {mine}, found {found}")
        (lookup,) = DEFINITION.lookups
        claims = keys.claims_prefix(number, shard.header["build"], lookup)
        claimed = {(key.removeprefix(claims), row_id) for key, ids in shard.hashes.items() if key.startswith(claims) for row_id in ids}
        bear = {(name, key) for key, (name, _, _) in people.items() if name is not None and keys.shard(name) == number}
        if claimed != bear:
            raise Violation(f"{generation} shard {number}: borne {bear}, claimed {claimed}")

    def _check_seen(self, generation: str, number: int, shard: Shard, watermarks: Mapping[str, int]) -> None:
        """What readers believe was level once."""
        stored = self.cluster.nodes[0].records.get(generation)
        if stored and shard.header["state"] == "live":
            for partition, offset in Generation.decode(stored).level.items():
                if watermarks[partition] < offset:
                    raise Violation(f"{generation} shard {number} is live at {partition}:{watermarks[partition]}, level at {offset}")

    def counted(self, below: Mapping[str, int] | None = None, *, is_from_snapshot: bool = False) -> People_:
        """Row by row, the slow way. below: offsets by partition; None: everything. is_from_snapshot: its rows and what came after."""
        found: dict[str, list[object]] = {}

        def row(key: int) -> list[object]:
            return found.setdefault(str(key), [None, 0, 0])

        for partition, told in self.changes.items():
            changes = told
            if is_from_snapshot:
                changes = [*self.snapshot[partition], *(change for change in told if change[0] >= self.snapshot_at[partition])]
            for offset, before, after in changes:
                if below is not None and offset >= below.get(str(partition), 0):
                    break
                for side, sign in ((before, -1), (after, 1)):
                    if isinstance(side, Ties):
                        row(side.giver)[1] += sign  # type: ignore[operator]  # a list of what is a number there
                        row(side.taker)[2] += sign  # type: ignore[operator]
                person = after if after is not None else before
                if isinstance(person, People):
                    row(person.person_id)[0] = person.name if after is not None else None
        return {key: (name, given, taken) for key, (name, given, taken) in found.items()}  # type: ignore[misc]

    async def exact(self) -> None:
        """The live generation is the count of everything. Raises Violation."""
        name = await self.generations.live()
        expected = {key: row for key, row in self.counted().items() if row != (None, 0, 0)}
        found: People_ = {}
        for number in range(SHARDS):
            shard = self.cluster.shard(name or "", number)
            prefix = layout.Layout(DEFINITION.name, name or "", SHARDS).rows_prefix(number, shard.header["build"])
            found |= dict(_rows(shard, prefix))
        if found != expected:
            raise Violation(f"live {name}: counted {expected}, found {found}")
        by_hand = {kind: {getattr(row, kind.source.key) for row in rows.values()} for kind, rows in self.rows.items()}
        if {int(key) for key, (person, _, _) in expected.items() if person is not None} != by_hand[People]:
            raise AssertionError("the count itself is wrong")


def _rows(shard: Shard, prefix: str) -> Iterator[tuple[str, tuple[str | None, int, int]]]:
    codes = layout.codes(DEFINITION)
    for key, stored in shard.hashes.items():
        if key.startswith(prefix):
            name = stored.get(codes["name"])
            counts = [stored.get(codes["given"]), stored.get(codes["taken"])]
            if name is not None and None in counts:
                raise Violation(f"{key} has a profile and lacks a count: {stored}")
            given, taken = (int(count or 0) for count in counts)
            yield key.removeprefix(prefix), (None if name is None else name.strip('"'), given, taken)


def at_pause(number: int, happens: Callable[[], Awaitable[None]]) -> Pause:
    """Something that happens at the pause of that number."""
    left = number

    async def pause(_: str) -> None:
        nonlocal left
        left -= 1
        await (happens() if left == 0 else go_on(_))

    return pause


async def crash() -> None:
    raise Crashed


async def away() -> None:
    raise StoreUnavailable("on purpose")
