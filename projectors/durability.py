"""Whether Redis can still forget the pointer to the live generation: what it left would be pointed to again, after it was dropped."""

import asyncio
import time

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from projectors.apply import reached
from projectors.exchange import server_of

WAIT_MS = 5000
SAVE_SECONDS = 600.0
# an append-only file is written to the disk each second
EVERYSEC_SECONDS = 2.0


class NotDurable(Exception):
    """A failover or a restart may undo the switch; the message says what to do."""


async def confirm(redis: Redis, pointer: str) -> None:
    """Return when replicas and disk, where there are any, have the pointer as it is. Raises NotDurable, StoreUnavailable."""
    server = await reached(server_of(redis, pointer))
    replication = await reached(server.info("replication"))
    replicas = int(replication.get("connected_slaves", 0))
    if replicas:
        pipeline = server.pipeline(transaction=False)
        # WAIT is about the writes of its own connection
        pipeline.eval("local name = redis.call('GET', KEYS[1]); if name then redis.call('SET', KEYS[1], name) end", 1, pointer)
        pipeline.execute_command("WAIT", replicas, WAIT_MS)
        *_, acknowledged = await reached(pipeline.execute())
        if int(acknowledged) < replicas:
            raise NotDurable(f"only {acknowledged} of {replicas} replicas have the pointer: wait until they have caught up, and try again.")
    await _on_disk(server)


async def _on_disk(redis: Redis) -> None:
    persistence = await reached(redis.info("persistence"))
    if int(persistence.get("aof_enabled", 0)):
        await asyncio.sleep(EVERYSEC_SECONDS)
    elif await _snapshots(redis):
        await _save(redis)


async def _snapshots(redis: Redis) -> bool:
    try:
        return bool((await reached(redis.config_get("save"))).get("save"))
    except ResponseError:
        # a managed Redis tells nobody; it has replicas
        return False


async def _save(redis: Redis) -> None:
    """A restart from an older file would bring an older pointer."""
    began = time.monotonic()
    before = await reached(redis.lastsave())
    try:
        await reached(redis.bgsave())
    except ResponseError as running:
        raise NotDurable(f"Redis cannot save just now ({running}): try again.") from running
    while await reached(redis.lastsave()) == before:
        if time.monotonic() - began > SAVE_SECONDS:
            raise NotDurable(f"Redis has not saved within {SAVE_SECONDS:.0f} s: see its log, and try again.")
        await asyncio.sleep(0.2)
