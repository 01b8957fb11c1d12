"""The Redis in memory against a real one: the same short histories of calls, with all that may be in one, leave the same hashes and replies."""

import random
from collections.abc import Mapping

import msgspec
import pytest
from redis.asyncio import Redis

from projectors import apply
from projectors.apply import Applied, Header, RedisStore, Reply
from projectors.calls import Advance, Call, Packing
from projectors.fold import Claim, Effects
from projectors.generations import first_header
from projectors.register import RedisRegister, Register
from schema import layout
from schema.generation import Generation
from schema.positions import Partition, Watermark
from tests.simulation.store import Cluster, MemoryRegister, MemoryStore, Shard
from tests.simulation.world import DEFINITION, SHARDS, People

HISTORIES, CALLS = 40, 25
PARTITIONS = [Partition("people", 0), Partition("ties", 0)]
BUILDS = ("aaaa", "bbbb")


def record(name: str = "g1", build: str = BUILDS[0]) -> Generation:
    start = {str(partition): 0 for partition in PARTITIONS}
    codes, prefixes = layout.codes(DEFINITION), layout.prefixes(DEFINITION)
    return Generation(name, build, DEFINITION.fingerprint, SHARDS, codes, prefixes, start, start, {})


class Calls:
    """Random calls to random shards: right ones, stale ones, of another build, sent again."""

    def __init__(self, seed: int) -> None:
        self._rng, self._packing = random.Random(seed), Packing(DEFINITION, record())
        self._stored = {(shard, partition): Watermark(0, 0, "") for shard in range(SHARDS) for partition in PARTITIONS}
        self._sent: list[Call] = []

    def next(self) -> Call:
        rng = self._rng
        if self._sent and rng.random() < 0.2:
            return rng.choice(self._sent)
        shard, build = rng.randrange(SHARDS), BUILDS[rng.random() < 0.1]
        call = self._mended(shard, build) if rng.random() < 0.15 else self._applied(shard, build)
        self._sent.append(call)
        return call

    def _applied(self, shard: int, build: str) -> Call:
        keys, packed = self._packing.shards(self._effects(), [build] * SHARDS).get(shard, ((), self._packing.nothing))
        return Call(shard, build, self._advances(shard), keys, packed)

    def _advances(self, shard: int) -> list[Advance]:
        advances = []
        for partition in self._rng.sample(PARTITIONS, self._rng.randint(1, 2)):
            expected = self._stored[shard, partition]
            if self._rng.random() < 0.15:
                expected = Watermark(self._rng.randrange(5), 0, "")
            new = expected.advanced(expected.offset + self._rng.randrange(3), self._rng.randrange(9))
            advances.append(Advance(partition, expected, new))
            self._stored[shard, partition] = new
        return advances

    def _mended(self, shard: int, build: str) -> Call:
        """Rows replaced, among them by nothing, and a claim with them."""
        prefix = self._packing.layout.rows_prefix(shard, build)
        rows = {prefix + str(key): self._row(key) for key in self._rng.sample(range(6), 2)}
        watermarks = {partition: self._stored[shard, partition] for partition in PARTITIONS}
        return self._packing.mend(shard, build, watermarks, rows, {})

    def _row(self, key: int) -> list[str]:
        row = People(key, f"n{self._rng.randrange(4)}") if self._rng.random() < 0.5 else None
        return self._packing.row(row, {"given": self._rng.randrange(2), "taken": self._rng.randrange(2)})

    def _effects(self) -> Effects:
        rng, some = self._rng, range(6)
        effects = Effects(
            {name: {rng.choice(some): rng.choice((-2, -1, 0, 1, 2, 2**63 - 1)) for _ in range(2)} for name in ("given", "taken")}
        )
        for key in rng.sample(some, 2):
            effects.profiles[key] = People(key, f"n{rng.randrange(4)}") if rng.random() < 0.6 else None
        for _ in range(2):
            effects.claims[Claim("name", f"n{rng.randrange(4)}", rng.choice(some))] = (rng.randrange(9), 1) if rng.random() < 0.6 else None
        return effects


async def told(store: RedisStore | MemoryStore, call: Call) -> Reply | str:
    """The reply; of a refusal only that it was one."""
    try:
        (reply,) = await store.apply([call])
    except Exception as refused:  # noqa: BLE001  # whatever it is, both must do it
        return type(refused).__name__
    return reply


async def in_redis(redis: Redis, keys: layout.Layout) -> list[Shard]:
    shards = [Shard() for _ in range(SHARDS)]
    names: list[bytes] = await redis.keys("*")  # type: ignore[assignment]  # this client answers bytes
    for name in names:
        key = name.decode()
        tag = key[key.index("{") : key.index("}") + 1]
        number = next(number for number, header in enumerate(keys.headers) if header.endswith(tag))
        fields: dict[bytes, bytes] = await redis.hgetall(key)  # type: ignore[assignment]
        stored = {field.decode(): value.decode() for field, value in fields.items()}
        if key == keys.headers[number]:
            shards[number].header = stored
        else:
            shards[number].hashes[key] = stored
    return shards


@pytest.mark.parametrize("first", range(0, HISTORIES, HISTORIES // 4))
async def test_the_same_calls_leave_the_same(redis: Redis, first: int) -> None:
    applied = [await compared(redis, seed) for seed in range(first, first + HISTORIES // 4)]
    assert sum(applied) > CALLS


# what is written instead of what in apply.lua
BROKEN = {
    "a delete takes the counts too": ("redis.call('HDEL', key, unpack(effects.columns))", "redis.call('DEL', key)"),
    "a create sets counts to 0": ("redis.call('HSETNX', key, code, '0')", "redis.call('HSET', key, code, '0')"),
    "applied whatever is stored": ("if not same then return stored end", ""),
    "applied to any build": ("local same = stored[1] == ARGV[1]", "local same = true"),
    "a watermark is not compared": ("if stored[i + 1] ~= expected then same = false end", ""),
    "a watermark is not stored": ("redis.pcall('HSET', KEYS[1], unpack(moved))", "1"),
    "a row of nothing stays": ("if empty then redis.call('DEL', key) end", ""),
    "a release takes all claims": ("else redis.call('HDEL', KEYS[place], claim[1]) end", "else redis.call('DEL', KEYS[place]) end"),
    "what was added before a refusal stays": ("give_back(place); ", ""),
    "a refusal's watermarks stay": ("redis.call('HSET', KEYS[1], unpack(before))", ""),
    "a refusal leaves rows of nothing": ("if at == refused then return sweep(zeroed) end", "if at == refused then return end"),
}


@pytest.mark.parametrize("rule", BROKEN)
async def test_a_script_that_is_broken_on_purpose_differs(redis: Redis, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = BROKEN[rule]
    assert apply.SCRIPT.count(old) == 1
    by_digest, whole = apply.ways(apply.SCRIPT.replace(old, new))
    monkeypatch.setattr(apply, "BY_DIGEST", by_digest)
    monkeypatch.setattr(apply, "WHOLE", whole)
    with pytest.raises(AssertionError, match="seed"):
        await all_compared(redis)


async def all_compared(redis: Redis) -> None:
    for seed in range(HISTORIES):
        await compared(redis, seed)


async def compared(redis: Redis, seed: int) -> int:
    """One history in both; how many of its calls were carried out. Raises AssertionError, which names the seed."""
    await redis.flushall()
    keys = layout.Layout(DEFINITION.name, "g1", SHARDS)
    real, memory = RedisStore.of(redis, DEFINITION, record()), MemoryStore(Cluster(), record(), Packing(DEFINITION, record()).marker)
    headers: Mapping[int, Header] = dict.fromkeys(range(SHARDS), first_header(record(), BUILDS[0]))
    for store in (real, memory):
        await store.open(headers)
        # a second opening changes nothing, and what is finished is of one build
        await store.open(dict.fromkeys(range(SHARDS), first_header(record(), BUILDS[1])))
        await store.finish({0: BUILDS[0], 1: BUILDS[1]})
    calls, applied = Calls(seed), 0
    for _ in range(CALLS):
        call = calls.next()
        replies = [await told(store, call) for store in (real, memory)]
        assert replies[0] == replies[1], f"seed {seed}"
        applied += isinstance(replies[0], Applied)
    assert await in_redis(redis, keys) == [memory.cluster.shard("g1", number) for number in range(SHARDS)], f"seed {seed}"
    assert await real.headers() == await memory.headers(), f"seed {seed}"
    return applied


async def test_the_same_steps_leave_the_same_register(redis: Redis) -> None:
    names = ("g1", "g2", "g3")
    for seed in range(30):
        await redis.flushall()
        rng, real, memory = random.Random(seed), RedisRegister(redis, DEFINITION.name), MemoryRegister(Cluster())
        for _ in range(30):
            step = rng.choice(("add", "replace", "restore", "promote", "promote", "remove"))
            some, other = record(rng.choice(names), rng.choice(BUILDS)), rng.choice((None, record(rng.choice(names), rng.choice(BUILDS))))
            known = rng.randrange(4)
            answers = [await taken(register, step, some, other, known) for register in (real, memory)]
            assert answers[0] == answers[1], f"seed {seed}: {step}"
            assert (await real.live(), await real.names()) == (await memory.live(), await memory.names()), f"seed {seed}: {step}"
            assert [await real.read(name) for name in names] == [await memory.read(name) for name in names], f"seed {seed}: {step}"


async def taken(register: Register, step: str, some: Generation, other: Generation | None, known: int) -> bool | None:
    if step == "add":
        return await register.add(some, known)
    if step == "replace":
        return await register.replace(await register.read(some.name) or some, msgspec.structs.replace(some, rate=known))
    if step == "promote":
        return await register.promote(some, other if other and other.name != some.name else None)
    await (register.restore(some) if step == "restore" else register.remove(some.name))
    return None
