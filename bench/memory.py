"""How many bytes of Redis does one user with a full profile and four counts take, and its username's claim beside it?

100,000 users, written as a projector writes them (Packing, RedisStore), and the plain way: `user:<id>`, fields by their names in
GraphQL, whole JSON values, in a Redis set as ours (hash-max-listpack-value 512) and in one as it comes (64). Counted is the growth of
used_memory, the table of keys in it, over the number of users; all into one Redis, emptied in between. What was written is read
back before it counts, and each row looked at must be one listpack (Redis 6: ziplist), or the run fails.

Two sorts of users: the demo's, with every column filled; and verbose ones, with ids of 19 digits and descriptions of 160 characters.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from bench.machine import machine
from demo import seed
from demo.servers import redis as redis_server
from demo.servers.account import scratch
from loaders.view import ViewLoader
from projectors.apply import Applied, RedisStore
from projectors.calls import Advance, Call, Packing
from projectors.fold import Claim, Effects
from projectors.generations import first_header
from schema import layout
from schema.definition import read_definition
from schema.generation import Generation
from schema.loader import Read
from schema.positions import Partition, Watermark
from schema.user import Users, UserView

CACHE = Path(__file__).parents[1] / ".cache"
GOAL_BYTES, GOAL_USERS = 320, 100_000
DEFINITION = read_definition(UserView)
FIELDS = tuple(f.name for f in DEFINITION.fields)
PARTITION = Partition("users", 0)
AT_ONCE, LOOKED_AT = 2_000, 1_000
BIO = (
    "What a user says of themselves, in as many characters as there may be: cats, maps, trains, bread, rain, jazz, tea, birds, chess, "
    "bikes, moss, clouds, and so on."
)
Person = tuple[Users, Mapping[str, int]]


class LayoutDiffers(Exception):
    """What Redis holds is not what was written, or not written as small: its size means nothing."""


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes for each user. row: its hash, key and place in the table of keys included. claim: its username's, None where there is none."""

    users: str
    layout: str
    encoding: str
    row: float
    claim: float | None


def demo_users(count: int) -> Iterator[Person]:
    """The demo's, but no column is empty: what one lacks is taken from the next that has it."""
    for number in range(1, count + 1):
        user, donor = seed.user(number), number
        while empty := {name: None for name in user.__struct_fields__ if getattr(user, name) is None}:
            donor += 1
            other = seed.user(donor)
            user = msgspec.structs.replace(user, **{name: getattr(other, name) for name in empty})
        yield user, _counts(number)


def verbose_users(count: int) -> Iterator[Person]:
    """The same with long ids and long descriptions."""
    for user, counts in demo_users(count):
        yield msgspec.structs.replace(user, user_id=user.user_id + 10**18, description=BIO), counts


def _counts(number: int) -> dict[str, int]:
    """Of one to five digits."""
    tops = {"tweet_count": 3_000, "following_count": 800, "follower_count": 5_000, "like_count": 20_000}
    return {name: number * 104_729 % top for name, top in tops.items()}


SORTS: dict[str, Callable[[int], Iterator[Person]]] = {"the demo's": demo_users, "verbose": verbose_users}


def main(
    quick: Annotated[bool, typer.Option(help="5,000 users: a look, not a judgement.")] = False,
    json: Annotated[Path | None, typer.Option(help="Where to write the figures.")] = None,
) -> None:
    """Measure what a user takes in Redis."""
    count = 5_000 if quick else GOAL_USERS
    sizes, server = asyncio.run(_measure(count))
    about = f"{server}; {machine()}"
    _show(sizes, about, count)
    if json:
        figures = {"about": about, "users": count, "sizes": [asdict(size) for size in sizes]}
        json.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=2))


async def _measure(count: int) -> tuple[list[Size], str]:
    sizes = []
    with scratch() as folder:
        async with (
            redis_server.start(folder, CACHE, prefer="installed", say=lambda _: None) as server,
            Redis.from_url(server.address) as redis,
        ):
            memory = await redis.info("memory")
            # what it has yet to write to its file is used memory too
            await redis.config_set("appendonly", "no")
            # what a server keeps for itself once it has been written to
            await ours(redis, "none", demo_users(AT_ONCE))
            for sort, people in SORTS.items():
                sizes.append(await ours(redis, sort, people(count)))
                sizes += [await plain(redis, sort, people(count), longest) for longest in (512, 64)]
            return sizes, f"{server.what} with {memory['mem_allocator']}"


async def ours(redis: Redis, sort: str, people: Iterator[Person]) -> Size:
    """Written as a projector does, into a Redis that is emptied first. Raises LayoutDiffers."""
    await redis.flushall()
    record = live_generation()
    everyone = list(people)
    writer = Writer(redis, record)
    await writer.open()
    empty = await used(redis)
    await writer.write(
        Effects({name: {u.user_id: c[name] for u, c in everyone} for name in _counts(0)}, {u.user_id: u for u, _ in everyone})
    )
    rows = await used(redis)
    await writer.write(
        Effects(claims={Claim("username", u.username, u.user_id): (1_577_836_800_000, n) for n, (u, _) in enumerate(everyone)})
    )
    claims = await used(redis)
    await _check(redis, record, everyone)
    keys = [writer.row_key(user) for user, _ in everyone]
    encoding = await encoded(redis, keys[:: max(1, len(keys) // LOOKED_AT)])
    if encoding != await compact(redis):
        raise LayoutDiffers(f"rows are kept as {encoding}: one has a value longer than hash-max-listpack-value")
    return Size(sort, "viewgate", encoding, (rows - empty) / len(everyone), (claims - rows) / len(everyone))


def live_generation() -> Generation:
    """The record of a generation that readers believe in."""
    return Generation(
        name="g1",
        build="c0de",
        definition=DEFINITION.fingerprint,
        shards=layout.SHARDS,
        codes=layout.codes(DEFINITION),
        prefixes=layout.prefixes(DEFINITION),
        start={str(PARTITION): 0},
        level={},
        topic_ids={},
        state="live",
    )


class Writer:
    """Effects into a generation, through the production code."""

    def __init__(self, redis: Redis, record: Generation) -> None:
        self._redis, self._record, self._packing = redis, record, Packing(DEFINITION, record)
        self._store = RedisStore.of(redis, DEFINITION, record)
        self._marks = dict.fromkeys(range(record.shards), Watermark(0, 0, ""))

    def row_key(self, user: Users) -> str:
        keys = self._packing.layout
        return keys.rows_prefix(keys.shard(str(user.user_id)), self._record.build) + str(user.user_id)

    async def open(self) -> None:
        """Headers, and what readers look for."""
        header = first_header(self._record, self._record.build)._replace(state=layout.LIVE)
        await self._store.open(dict.fromkeys(range(self._record.shards), header))
        await self._redis.set(layout.generation_key(DEFINITION.name, self._record.name), self._record.encode())
        await self._redis.set(layout.live_key(DEFINITION.name), self._record.name)

    async def write(self, effects: Effects) -> None:
        for part in _parts(effects):
            calls = []
            for shard, (keys, packed) in self._packing.shards(part, [self._record.build] * self._record.shards).items():
                old = self._marks[shard]
                self._marks[shard] = old.advanced(old.offset + 1, 0)
                calls.append(Call(shard, self._record.build, [Advance(PARTITION, old, self._marks[shard])], keys, packed))
            if any(reply != Applied() for reply in await self._store.apply(calls)):
                raise LayoutDiffers("Redis refused to write a user")


def _parts(effects: Effects) -> Iterator[Effects]:
    """Batches, such as a projector's."""
    keys = list(dict.fromkeys([*effects.profiles, *(key for deltas in effects.counts.values() for key in deltas)]))
    claims = list(effects.claims.items())
    for start in range(0, max(len(keys), len(claims)), AT_ONCE):
        part = keys[start : start + AT_ONCE]
        counts = {name: {key: deltas[key] for key in part if key in deltas} for name, deltas in effects.counts.items()}
        yield Effects(
            counts, {key: effects.profiles[key] for key in part if key in effects.profiles}, dict(claims[start : start + AT_ONCE])
        )


async def plain(redis: Redis, sort: str, people: Iterator[Person], longest: int) -> Size:
    """As one would write it without thinking of bytes. longest: hash-max-listpack-value. Raises LayoutDiffers."""
    await redis.flushall()
    await _set_longest(redis, longest)
    everyone = list(people)
    empty = await used(redis)
    for start in range(0, len(everyone), AT_ONCE):
        pipeline = redis.pipeline(transaction=False)
        for person in everyone[start : start + AT_ONCE]:
            pipeline.hset(f"user:{person[0].user_id}", mapping=_as_plain(person))
        await pipeline.execute()
    rows = await used(redis)
    some = everyone[:: max(1, len(everyone) // LOOKED_AT)]
    for person in some:
        if await redis.hgetall(f"user:{person[0].user_id}") != {k.encode(): v for k, v in _as_plain(person).items()}:
            raise LayoutDiffers(f"plain user {person[0].user_id} is not as it was written")
    encoding = await encoded(redis, [f"user:{user.user_id}" for user, _ in some])
    await _set_longest(redis, 512)
    return Size(sort, f"plain, values up to {longest} B compact", encoding, (rows - empty) / len(everyone), None)


def _as_plain(person: Person) -> dict[Any, bytes]:
    user, counts = person
    values = {**msgspec.structs.asdict(user), **counts}
    return {f.camel: layout.encode(values[f.name]) for f in DEFINITION.fields}


async def _set_longest(redis: Redis, longest: int) -> None:
    name = "hash-max-listpack-value" if await compact(redis) == "listpack" else "hash-max-ziplist-value"
    await redis.config_set(name, longest)


async def _check(redis: Redis, record: Generation, everyone: Sequence[Person]) -> None:
    """Every user by the loader. Raises LayoutDiffers."""
    loader = ViewLoader(redis, DEFINITION)
    for start in range(0, len(everyone), AT_ONCE):
        part = everyone[start : start + AT_ONCE]
        by_id = await loader.load([Read("id", str(user.user_id), FIELDS) for user, _ in part])
        by_name = await loader.load([Read("username", user.username, ("id",)) for user, _ in part])
        for (user, counts), row, found in zip(part, by_id.rows, by_name.rows, strict=True):
            values = {**msgspec.structs.asdict(user), **counts}
            if row != [layout.encode(values[name]) for name in FIELDS] or found != [layout.encode(str(user.user_id))]:
                raise LayoutDiffers(f"user {user.user_id} of {record.name} is not as it was written")


async def used(redis: Redis) -> int:
    """Bytes. The buffers of connections would count too, so these are closed first."""
    await redis.connection_pool.disconnect()
    return int((await redis.info("memory"))["used_memory"])


async def compact(redis: Redis) -> str:
    """What this Redis calls a hash that is one piece of memory."""
    return "ziplist" if str((await redis.info("server"))["redis_version"]).startswith("6.") else "listpack"


async def encoded(redis: Redis, keys: Sequence[str]) -> str:
    """How these are kept; the most wasteful way, if there are two."""
    pipeline = redis.pipeline(transaction=False)
    for key in keys:
        pipeline.object("ENCODING", key)
    return str(min(found.decode() for found in await pipeline.execute()))


def _show(sizes: list[Size], about: str, count: int) -> None:
    console = Console(width=140)
    console.print(f"\n{about}")
    table = Table(title=f"Bytes of Redis for each of {count:,} users with a full profile and four counts", title_justify="left")
    for heading in ("users", "layout", "kept as"):
        table.add_column(heading)
    for heading in ("hash", "against viewgate's", "claim of its username"):
        table.add_column(heading, justify="right")
    ours_of = {size.users: size.row for size in sizes if size.claim is not None}
    for size in sizes:
        claim = "" if size.claim is None else f"{size.claim:.0f}"
        table.add_row(size.users, size.layout, size.encoding, f"{size.row:.0f}", f"{size.row / ours_of[size.users]:.2f} x", claim)
    console.print(table)
    told = "not judged by so few" if count < GOAL_USERS else "met" if ours_of["the demo's"] <= GOAL_BYTES else "MISSED"
    console.print(f"- Goal: at most {GOAL_BYTES} B for a full hash of the demo's users: {told}.", highlight=False)
    console.print("- Headers are not in it: 256 of them, whatever the number of users.", highlight=False)


if __name__ == "__main__":
    typer.run(main)
