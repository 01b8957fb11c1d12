"""What each server has done until now, read off the servers themselves; what a stretch cost is the difference of two such readings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.compare.residence import Residence
from bench.compare.results import Effort, Memory
from bench.compare.stack import Compared
from bench.machine import cpu_seconds
from demo.servers.process import Process, children
from schema import layout
from schema.loader import CACHED, Mode

SAMPLED = 500
_STATISTICS = "SELECT xact_commit + xact_rollback, tup_returned FROM pg_stat_database WHERE datname = current_database()"

Reading = Mapping[str, float | None]


async def servers(made: Compared) -> Reading:
    """Of Redis and PostgreSQL. PostgreSQL counts what a connection did when that ends: read it when the gateway has ended."""
    await made.pool.expire_connections()
    queries, rows = await made.pool.fetchrow(_STATISTICS)  # type: ignore[misc]  # there is always one row
    stats: Mapping[str, Any] = await made.redis.info("stats")
    return {
        "postgres_queries": float(queries),
        "postgres_rows": float(rows),
        "redis_commands": float(stats["total_commands_processed"]),
        "redis_bytes": float(stats["total_net_input_bytes"] + stats["total_net_output_bytes"]),
        "redis_cpu": _cpu(made.servers.redis.process),
        "postgres_cpu": _cpu(made.postgres),
    }


def ours(made: Compared, running: Residence) -> Reading:
    """Of the gateway, and of what keeps its mode right: with what captures the changes, where that is how they come."""
    keepers = [running.keeper, *(made.always if made.captured else ())] if running.keeper else []
    used = [_cpu(keeper) for keeper in keepers]
    return {"gateway_cpu": _cpu(running.gateway), "projector_cpu": None if None in used else sum(filter(None, used))}


def effort(mode: Mode, kind: str, seconds: float, reads: int, changes: int, before: Reading, after: Reading) -> Effort:
    """Of a stretch between two readings."""

    def used(name: str) -> float | None:
        first, last = before.get(name), after.get(name)
        return None if first is None or last is None else max(0.0, last - first)

    whole = {name: None if (found := used(name)) is None else round(found) for name in before if not name.endswith("_cpu")}
    cpu = {name: used(name) for name in before if name.endswith("_cpu")}
    return Effort(mode=mode, kind=kind, seconds=seconds, reads=reads, changes=changes, **whole, **cpu)  # type: ignore[arg-type]  # by name


async def memory(made: Compared, mode: Mode) -> Memory:
    """What lies in Redis for a mode: the bytes of a sample, times all."""
    name = made.definition.name
    patterns = {"view": f"{name.lower()}:g*"} | {one: layout.cache_key(name, one, "*", "*") for one in CACHED}
    if mode not in patterns:
        return Memory(mode=mode, rows=0, redis_bytes=0)
    keys = [key async for key in made.redis.scan_iter(patterns[mode], count=1_000)]
    sample = keys[:: max(1, len(keys) // SAMPLED)]
    sizes = [int(await made.redis.memory_usage(key) or 0) for key in sample]
    rows = made.scenario.users if mode == "view" else len(keys)
    return Memory(mode=mode, rows=rows, redis_bytes=round(sum(sizes) / max(1, len(sizes)) * len(keys)))


def _cpu(process: Process | None) -> float | None:
    """With its children, those that have ended included; None: it is not ours, or this is no Linux."""
    if process is None or not Path("/proc/self/stat").exists():
        return None
    return sum(map(cpu_seconds, [process.pid, *children(process.pid)]))
