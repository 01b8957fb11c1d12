"""What the modes with a cache keep of one row, found and erased: its entry, those of its lookup values, and leases. Reads no view."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from redis.asyncio import Redis

from loaders.cache import Entry
from projectors.apply import reached
from schema import layout
from schema.definition import Definition
from schema.loader import CACHED, Mode

# KEYS: an entry, its lease; the entry goes only if it is what it was: whoever bears the name now keeps what is kept of them
_UNLINK_IF = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('UNLINK', KEYS[1], KEYS[2]) end return 0"


class Cached:
    """Of the row of this id."""

    def __init__(self, redis: Redis, definition: Definition, row_id: str) -> None:
        self._redis, self._definition, self._id = redis, definition, row_id

    async def names(self) -> list[str]:
        """The lookup values of the row as the caches have it. Raises StoreUnavailable."""
        rows = [_decoded(await self._get(self._key(mode, "id", self._id))) for mode in CACHED]
        fields = ["id", *(f.name for f in self._definition.fields)]
        places = [fields.index(f.name) for f in self._definition.lookups]
        known = [entry.row for entry in rows if entry and entry.row and entry.definition == self._definition.fingerprint]
        return [msgspec.json.decode(row[place], type=str) for row in known for place in places]

    async def find(self, values: Iterable[str], *, scan: bool) -> dict[str, bytes]:
        """Entries by their keys, those of these lookup values that lead to the row. scan: or of any value. Raises StoreUnavailable."""
        wanted = sorted(values)
        keys = [self._key(mode, f.name, value) for mode in CACHED for f in self._definition.lookups for value in wanted]
        if scan:
            for pattern in [self._key(mode, f.name, "*") for mode in CACHED for f in self._definition.lookups]:
                keys += [key.decode() async for key in self._redis.scan_iter(pattern, count=1000)]
        stored = {key: await self._get(key) for key in dict.fromkeys(keys)}
        mine = layout.encode(self._id)
        found = {key: one for key, one in stored.items() if one and (entry := _decoded(one)) and entry.row == [mine]}
        rows = {key: await self._get(key) for key in self._rows()}
        return found | {key: one for key, one in rows.items() if one}

    async def erase(self, found: Mapping[str, bytes]) -> None:
        """What `find` found; and what is being read of the row now will not be kept. Raises StoreUnavailable."""
        for key, stored in found.items():
            answer: Any = self._redis.eval(_UNLINK_IF, 2, key, layout.lease_key(key), stored)
            await reached(answer)
        for key in self._rows():
            await reached(self._redis.unlink(key, layout.lease_key(key)))

    async def _get(self, key: str) -> bytes | None:
        stored: Any = await reached(self._redis.get(key))
        return stored if isinstance(stored, bytes) else None

    def _rows(self) -> list[str]:
        return [self._key(mode, "id", self._id) for mode in CACHED]

    def _key(self, mode: Mode, by: str, value: str) -> str:
        return layout.cache_key(self._definition.name, mode, by, value)


def _decoded(stored: bytes | None) -> Entry | None:
    try:
        return msgspec.msgpack.decode(stored, type=Entry) if stored else None
    except msgspec.DecodeError:
        return None
