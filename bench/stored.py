"""Reads the counts of every user out of Redis, for the proof that a contender's answers are right. Times nothing."""

from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis

from bench.events import Counts

# one round trip for thousands of hashes: KEYS none; ARGV cursor, pattern, the two fields
_PAGE = """
local page = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', 5000)
local found = {page[1]}
for _, key in ipairs(page[2]) do
  local counts = redis.call('HMGET', key, ARGV[3], ARGV[4])
  found[#found + 1] = {key, counts[1], counts[2]}
end
return found
"""


async def stored_counts(url: str, pattern: str, fields: tuple[str, str], user_of: Callable[[str], str]) -> Counts:
    """Every hash whose key matches: its user's counts, without users that have none. fields: following, followers."""
    found: dict[int, tuple[int, int]] = {}
    async with Redis.from_url(url, socket_timeout=60) as redis:
        page = redis.register_script(_PAGE)
        cursor = b"0"
        while True:
            answer: Any = await page(args=[cursor, pattern, *fields])
            cursor = answer[0]
            for key, following, followers in answer[1:]:
                found[int(user_of(key.decode()))] = (int(following or 0), int(followers or 0))
            if cursor == b"0":
                return {user: pair for user, pair in found.items() if pair != (0, 0)}
