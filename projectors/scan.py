"""Owes shards to the view topic as a whole, page by page of all Redis: no header says what its shard holds. Publishes nothing."""

import secrets
from collections.abc import Container, Mapping, Sequence

import structlog

from projectors.owed import Owed

log = structlog.stdlib.get_logger()


class Scan:
    """owing: the shards of the scan that is under way, and what each is believed to have stored of it. topic: as headers name it."""

    def __init__(self, owed: Owed, topic: str) -> None:
        self._owed, self._topic = owed, topic
        self._cursor, self._pages = 0, 0
        self.owing: dict[int, str] = {}
        self._shards = {_tag(header): shard for shard, header in enumerate(owed.keys.headers)}

    async def begin(self, seen: Mapping[int, int], anew: Container[int]) -> set[int]:
        """See Owed.begin. Which shards are published from now on. Those of a scan that is under way are scanned once more with these."""
        if not seen:
            return set()
        name = secrets.token_hex(4)
        begun = await self._owed.begin(seen, self._topic, name, name, anew)
        self.owing |= dict.fromkeys(begun, name)
        self._cursor, self._pages = 0, self._pages + 1
        log.info("view_owed", generation=self._owed.keys.generation, shards=len(begun), topic=self._topic)
        return begun

    def forget(self) -> None:
        """What is stored of it is not known: shards that still owe as a whole are begun again."""
        self.owing = {}

    async def step(self) -> None:
        """One page. Shards that have lost writes meanwhile are left to the next scan."""
        self._cursor, page = await self._owed.page(self._cursor)
        self._pages += 1
        found: dict[int, list[str]] = {}
        for key in page:
            # a set of ours has a tag too, and nothing after it
            shard = self._shards.get(_tag(key)) if not key.endswith("}") else None
            if shard in self.owing:
                found.setdefault(shard, []).append(key)
        await self._owe({shard: (f"{self.owing[shard].partition('.')[0]}.{self._pages}", keys) for shard, keys in found.items()})
        if self._cursor == 0:
            await self._owe({shard: ("", []) for shard in self.owing})
            self.owing = {}

    async def _owe(self, calls: Mapping[int, tuple[str, Sequence[str]]]) -> None:
        done = await self._owed.owe({shard: (self.owing[shard], new, keys) for shard, (new, keys) in calls.items()})
        for shard, (new, _) in calls.items():
            if shard in done:
                self.owing[shard] = new
            else:
                del self.owing[shard]


def _tag(key: str) -> str:
    return key[key.find("{") : key.find("}") + 1]
