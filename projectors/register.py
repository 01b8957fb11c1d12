"""Where generations are registered: their names, their records, the pointer to the live one. Each method is one atomic step."""

from typing import Any, Protocol

from redis.asyncio import Redis

from projectors.apply import reached
from schema import layout
from schema.generation import Generation

# only while no other name has come meanwhile, so that two who open at once open one
_ADD = """
if redis.call('SCARD', KEYS[1]) ~= tonumber(ARGV[1]) or redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('SADD', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[3])
return 1
"""
_REPLACE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
# the pointer never without its record, and never from another generation than was seen; the one that it leaves is retired with it
_PROMOTE = """
local stored = redis.call('GET', KEYS[1])
if not stored or cjson.decode(stored).build ~= ARGV[1] then return 0 end
local live = redis.call('GET', KEYS[2]) or ''
if live ~= ARGV[3] and live ~= ARGV[4] then return 0 end
if KEYS[3] then
  local old = redis.call('GET', KEYS[3])
  if old and cjson.decode(old).build == ARGV[5] then redis.call('SET', KEYS[3], ARGV[6]) end
end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[3])
return 1
"""


class Register(Protocol):
    """Of one view. Every method raises StoreUnavailable."""

    async def live(self) -> str | None:
        """The name that the pointer names."""
        ...

    async def names(self) -> set[str]:
        """Every name that was ever added."""
        ...

    async def read(self, name: str) -> Generation | None: ...

    async def add(self, record: Generation, known: int) -> bool:
        """Add a name and its record, if so many names are known and there is no such record. Whether it was added."""
        ...

    async def replace(self, old: Generation, new: Generation) -> bool:
        """Write a record in place of exactly this one. Whether it was there."""
        ...

    async def restore(self, record: Generation) -> None:
        """Write a record that was lost, and its name, unless there is one again."""
        ...

    async def promote(self, record: Generation, instead_of: Generation | None) -> bool:
        """Write the record and point to it, while the stored one is of its build and the pointer names it or `instead_of` (None: nothing).

        instead_of: as it is to be, retired. Whether it was done.
        """
        ...

    async def remove(self, name: str) -> None:
        """Forget a record. Its name stays used."""
        ...


class RedisRegister:
    """A Register in Redis. redis: answers bytes."""

    def __init__(self, redis: Redis, view: str) -> None:
        self._redis, self._view = redis, view
        self._names, self._live = layout.generations_key(view), layout.live_key(view)

    async def live(self) -> str | None:
        pointer: Any = await reached(self._redis.get(self._live))
        return pointer.decode() if pointer else None

    async def names(self) -> set[str]:
        stored: Any = await reached(self._redis.smembers(self._names))
        return {name.decode() for name in stored}

    async def read(self, name: str) -> Generation | None:
        stored: Any = await reached(self._redis.get(self._key(name)))
        return Generation.decode(stored) if stored else None

    async def add(self, record: Generation, known: int) -> bool:
        keys = (self._names, self._key(record.name))
        return await self._done(_ADD, keys, known, record.name, record.encode())

    async def replace(self, old: Generation, new: Generation) -> bool:
        return await self._done(_REPLACE, (self._key(old.name),), old.encode(), new.encode())

    async def restore(self, record: Generation) -> None:
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.sadd(self._names, record.name)
        pipeline.set(self._key(record.name), record.encode(), nx=True)
        await reached(pipeline.execute())

    async def promote(self, record: Generation, instead_of: Generation | None) -> bool:
        keys, arguments = [self._key(record.name), self._live], [record.build, record.encode(), record.name, ""]
        if instead_of is not None:
            keys.append(self._key(instead_of.name))
            arguments = [*arguments[:3], instead_of.name, instead_of.build, instead_of.encode()]
        return await self._done(_PROMOTE, keys, *arguments)

    async def remove(self, name: str) -> None:
        await reached(self._redis.delete(self._key(name)))

    def _key(self, name: str) -> str:
        return layout.generation_key(self._view, name)

    async def _done(self, script: str, keys: Any, *arguments: Any) -> bool:
        return bool(await reached(self._redis.eval(script, len(keys), *keys, *arguments)))
