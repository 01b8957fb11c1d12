"""Checks of a Redis: the view's, and cache-aside's where that is another one. What lies in it is view.py's."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.doctor.checks import CLOCK_MEND, Check, Checks, Finding, Unreadable, Verdict, address, clock
from projectors.apply import EvictionAllowed, StoreUnavailable, check_eviction
from schema.layout import SLOTS

AWAY: tuple[type[Exception], ...] = (RedisConnectionError, RedisTimeoutError, StoreUnavailable)
REFUSALS: tuple[type[Exception], ...] = (ResponseError,)
OLDEST = (6, 2)
SLOW_PING_SECONDS = 0.005
FULL = 0.8
# the shortest that every picture URL of a profile fits in, with room
LISTPACK_BYTES = 512
WRITES = ("rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status")
LOOK_THERE = "Look for it where this Redis is managed, or let its user run {command}."


@dataclass(slots=True)
class Asked:
    """A Redis under examination. redis: answers bytes. fields: how many a hash of the view has. The rest comes with its first answer."""

    redis: Redis
    url: str
    fields: int
    info: Mapping[str, Any] | None = None
    config: Mapping[str, str] | None = None

    def told(self, name: str) -> Any:
        """A line of INFO. Raises Unreadable."""
        if self.info is None:
            raise Unreadable(f"INFO is forbidden, so {name} could not be read", LOOK_THERE.format(command="INFO"))
        return self.info.get(name)

    def set_to(self, *names: str) -> tuple[str, str]:
        """The first of these settings that this Redis has, and its value. Raises Unreadable."""
        if self.config is None:
            raise Unreadable(f"CONFIG GET is forbidden, so {names[0]} could not be read", LOOK_THERE.format(command="CONFIG GET"))
        for name in names:
            if name in self.config:
                return name, self.config[name]
        raise Unreadable(f"this Redis has no setting {names[0]}", "Look in its documentation for what keeps small hashes compact.")


@dataclass(frozen=True, slots=True)
class Brand:
    """What a Redis calls itself."""

    name: str
    version: str
    numbers: tuple[int, ...] = field(default=())

    @classmethod
    def of(cls, asked: Asked) -> "Brand":
        valkey = asked.told("valkey_version")
        compatible = str(asked.told("redis_version") or "0")
        numbers = tuple(int(part) for part in compatible.split(".") if part.isdigit())
        return cls("Valkey" if valkey else "Redis", str(valkey or compatible), numbers)


VIEW: Checks[Asked] = Checks("Redis", AWAY, REFUSALS)
CACHE: Checks[Asked] = Checks("Redis of the cache", AWAY, REFUSALS)


@VIEW.check(
    "answers",
    "PING, with the user and the password of the URL",
    wrong="it cannot be reached, is loading its file, or refuses the password",
    mend="Start it, or correct `VIEWGATE_REDIS_URL` (of the cache: `VIEWGATE_CACHE_REDIS_URL`).",
)
async def _answers(asked: Asked) -> Finding:
    await _ping(asked.redis)
    asked.info = await _info(asked.redis)
    asked.config = await _config(asked.redis)
    return Finding("ok", address(asked.url))


@VIEW.check(
    "version",
    "the version, by INFO; Valkey is known",
    wrong=f"it is older than {'.'.join(map(str, OLDEST))}",
    mend="Install Redis 7 or newer, or Valkey.",
)
async def _version(asked: Asked) -> Finding:
    brand = Brand.of(asked)
    return Finding("ok" if brand.numbers >= OLDEST else "wrong", f"{brand.name} {brand.version}")


@VIEW.check(
    "latency",
    "the best of five PINGs",
    warning=f"it takes more than {SLOW_PING_SECONDS * 1000:.0f} ms",
    mend="Bring gateway and Redis nearer to each other, or look for slow commands: `SLOWLOG GET`.",
)
async def _latency(asked: Asked) -> Finding:
    best = min([await _ping(asked.redis) for _ in range(5)])
    return Finding("ok" if best <= SLOW_PING_SECONDS else "warning", f"{best * 1000:.2f} ms")


@VIEW.check(
    "role",
    "primary or replica",
    wrong="it is a replica, which takes no writes",
    mend="Point `VIEWGATE_REDIS_URL` at the primary.",
)
async def _role(asked: Asked) -> Finding:
    role = str(asked.told("role"))
    if role in {"slave", "replica"}:
        return Finding("wrong", f"a replica of {asked.told('master_host')}:{asked.told('master_port')}, and readers see what is older")
    return Finding("ok", f"the primary, with {asked.told('connected_slaves') or 0} replicas")


@VIEW.check(
    "cluster mode",
    "`cluster-enabled`; of a Redis Cluster, its state",
    warning="`cluster-require-full-coverage` is yes: while one master is away, the others do not answer either",
    wrong="the state of the cluster is not ok",
    mend="`CONFIG SET cluster-require-full-coverage no` on each node, and the same in redis.conf.",
)
async def _cluster(asked: Asked) -> Finding:
    if not asked.told("cluster_enabled"):
        return Finding("ok", "off")
    state: Any = await asked.redis.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]  # redis-py left it untyped
    if state["cluster_state"] != "ok":
        ok = f"{state['cluster_slots_ok']} of {SLOTS} slots are served"
        return Finding("wrong", f"on, and its state is {state['cluster_state']}: {ok}", "See what `redis-cli --cluster check` says.")
    _, needed = asked.set_to("cluster-require-full-coverage")
    found = f"on, {state['cluster_size']} masters"
    return Finding("ok", found) if needed == "no" else Finding("warning", f"{found}; cluster-require-full-coverage is {needed}")


@VIEW.check(
    "eviction",
    "`maxmemory-policy`",
    wrong="it is not `noeviction`: an evicted hash is a lost one, and a projector refuses to start",
    mend="`CONFIG SET maxmemory-policy noeviction`, and the same in redis.conf.",
)
async def _eviction(asked: Asked) -> Finding:
    asked.told("maxmemory_policy")
    try:
        await check_eviction(asked.redis)
    except EvictionAllowed:
        return Finding("wrong", f"maxmemory-policy is {asked.told('maxmemory_policy')}: it drops users when it is full")
    return Finding("ok", "noeviction")


@VIEW.check(
    "memory limit",
    "`maxmemory`",
    warning="there is none: Redis grows until the system ends it",
    mend="`CONFIG SET maxmemory 4gb`, or what this machine can spare, and the same in redis.conf.",
)
async def _limit(asked: Asked) -> Finding:
    most = int(asked.told("maxmemory") or 0)
    return Finding("ok", _mb(most)) if most else Finding("warning", "maxmemory is 0: no limit")


@VIEW.check(
    "memory",
    "memory in use, against `maxmemory`",
    warning=f"it is above {FULL:.0%}",
    wrong="it is full: writes are refused, and the view stands still",
    mend="Raise `maxmemory`, or move what else lies in this Redis to another.",
)
async def _memory(asked: Asked) -> Finding:
    used, most = int(asked.told("used_memory") or 0), int(asked.told("maxmemory") or 0)
    if not most:
        return Finding("ok", f"{_mb(used)} in use")
    verdict: Verdict = "wrong" if used >= most else "warning" if used > FULL * most else "ok"
    return Finding(verdict, f"{_mb(used)} of {_mb(most)} in use, {used / most:.0%}")


@VIEW.check(
    "listpack value",
    "`hash-max-listpack-value`, before Redis 7 `hash-max-ziplist-value`",
    warning=f"it is below {LISTPACK_BYTES}: one longer value, such as a picture's URL, takes a user from 318 to 1,015 bytes",
    mend=f"`CONFIG SET hash-max-listpack-value {LISTPACK_BYTES}`, and the same in redis.conf; hashes written before stay as they are.",
)
async def _value(asked: Asked) -> Finding:
    name, value = asked.set_to("hash-max-listpack-value", "hash-max-ziplist-value")
    if int(value) >= LISTPACK_BYTES:
        return Finding("ok", f"{name} is {value}")
    found = f"{name} is {value}: a user with one longer value takes 1,015 bytes instead of 318"
    return Finding("warning", found, _raise(name, LISTPACK_BYTES))


@VIEW.check(
    "listpack entries",
    "`hash-max-listpack-entries`, before Redis 7 `hash-max-ziplist-entries`",
    warning="it is below the number of the view's fields: every hash is of the large kind",
    mend="`CONFIG SET hash-max-listpack-entries 128`, and the same in redis.conf; hashes written before stay as they are.",
)
async def _entries(asked: Asked) -> Finding:
    name, entries = asked.set_to("hash-max-listpack-entries", "hash-max-ziplist-entries")
    if int(entries) >= asked.fields:
        return Finding("ok", f"{name} is {entries}, the view has {asked.fields} fields")
    return Finding("warning", f"{name} is {entries}, but the view has {asked.fields} fields", _raise(name, max(128, asked.fields)))


@VIEW.check(
    "persistence",
    "`appendonly` and `save`, and whether the last write of either went well",
    warning="there is neither: after a restart the view is built again from Kafka's beginning",
    wrong="the last one failed: Redis may refuse writes",
    mend="`CONFIG SET appendonly yes`, and the same in redis.conf.",
)
async def _persistence(asked: Asked) -> Finding:
    failed = [
        name for name in ("rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status") if asked.told(name) == "err"
    ]
    if failed:
        mend = "Look for the reason in its log: a full disk, or a folder it cannot write to."
        return Finding("wrong", f"{', '.join(failed)}: err", mend)
    if asked.told("aof_enabled"):
        return Finding("ok", "append-only file")
    _, save = asked.set_to("save")
    return Finding("ok", f"snapshots, save {save}") if save else Finding("warning", "neither append-only file nor snapshots")


@VIEW.check("clock", "TIME, against ours", warning="it differs by more than 1 s", wrong="it differs by more than 10 s", mend=CLOCK_MEND)
async def _clock(asked: Asked) -> Finding:
    before = time.time()
    seconds, micros = await asked.redis.time()
    return clock(seconds + micros / 1e6 - (before + time.time()) / 2)


@CACHE.check(
    "eviction",
    "`maxmemory-policy`; only of a Redis of the cache's own",
    warning="it is `noeviction` though `maxmemory` is set: once full, it takes no new rows",
    mend="`CONFIG SET maxmemory-policy allkeys-lfu`, and the same in redis.conf.",
)
async def _cache_eviction(asked: Asked) -> Finding:
    policy = str(asked.told("maxmemory_policy"))
    full = policy == "noeviction" and int(asked.told("maxmemory") or 0) > 0
    return Finding("warning" if full else "ok", policy)


def _shared(*names: str) -> list[Check[Asked]]:
    return [check for check in VIEW.checks if check.name in names]


CACHE.checks[:] = [*_shared("answers", "version", "latency", "role"), *CACHE.checks, *_shared("memory", "clock")]


async def _ping(redis: Redis) -> float:
    began = time.perf_counter()
    await redis.ping()
    return time.perf_counter() - began


async def _info(redis: Redis) -> Mapping[str, Any] | None:
    try:
        found: Mapping[str, Any] = await redis.info()
    except ResponseError as refused:
        _check_forbidden(refused)
        return None
    return found


async def _config(redis: Redis) -> Mapping[str, str] | None:
    try:
        found = {**await redis.config_get("hash-max-*"), **await redis.config_get("save"), **await redis.config_get("cluster-r*")}
    except ResponseError as refused:
        _check_forbidden(refused)
        return None
    return {_text(name): _text(value) for name, value in found.items() if name is not None and value is not None}


def _check_forbidden(refused: ResponseError) -> None:
    """Raises it where it is anything else: an ACL forbids, a managed Redis does not know the command."""
    if not isinstance(refused, NoPermissionError) and "unknown command" not in str(refused).lower():
        raise refused


def _raise(name: str, value: int) -> str:
    return f"`CONFIG SET {name} {value}`, and the same in redis.conf; hashes written before stay as they are."


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _mb(size: int) -> str:
    return f"{size / 2**20:,.0f} MB"
