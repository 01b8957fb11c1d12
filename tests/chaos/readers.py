"""Frontends that ask a gateway all the while, in open loop, and judge each answer. They change nothing."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import Any

import httpx

from demo.servers.process import NotReadyError
from tests.chaos.history import History, Verdict

QUERY = "query($id: ID!) { user(id: $id) { username name tweetCount followingCount followerCount likeCount } }"
NAMES = {
    "username": "username",
    "name": "name",
    "tweetCount": "tweet_count",
    "followingCount": "following_count",
    "followerCount": "follower_count",
    "likeCount": "like_count",
}
SECONDS = 5.0
SHOWN = 5


@dataclass(slots=True)
class Seen:
    """What readers saw. errors: how many by code. oldest_ms: the greatest age that an answer told. bad: the first that were not right.

    level_ms: the latest as-of since an answer failed. lead_ms: how far the last as-of lay ahead of the readers' own clock.
    """

    asked: int = 0
    answered: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    oldest_ms: float = 0.0
    older: int = 0
    wrong: int = 0
    bad: list[str] = field(default_factory=list)
    level_ms: float = 0.0
    lead_ms: float = 0.0

    @property
    def failed(self) -> int:
        return sum(self.errors.values())


class Readers:
    """`rate` reads a second, of users drawn at random; `urls` in turn, for there may be several gateways.

    seen: where they write what they see.
    by_clock: whether an answer's as-of means something, which it does not where the projector's clock is wrong.
    """

    def __init__(self, urls: Sequence[str], history: History, users: int, seen: Seen, rate: float = 50.0, seed: int = 1) -> None:
        self.urls, self.seen, self.by_clock = list(urls), seen, True
        self._history, self._users, self._rate, self._rng = history, users, rate, random.Random(seed)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """They read until the block ends, and what they have asked by then is answered."""
        stop = asyncio.Event()
        async with httpx.AsyncClient(trust_env=False, timeout=SECONDS, limits=httpx.Limits(max_connections=200)) as client:
            running = asyncio.create_task(self._run(client, stop))
            try:
                yield
            finally:
                stop.set()
                await asyncio.wait([running])
            running.result()

    async def level(self, since_ms: float) -> None:
        """Raises NotReadyError until an answer has everything up to this moment (Unix ms), and none has failed after it."""
        if self.seen.level_ms < since_ms:
            raise NotReadyError(f"no answer is as of the moment yet: {self.seen}")

    async def leads(self, by_ms: float) -> None:
        """Raises NotReadyError until an as-of lies so far ahead, give or take ten seconds."""
        if abs(self.seen.lead_ms - by_ms) > 10_000:
            raise NotReadyError(f"the last answer's as-of is {self.seen.lead_ms} ms ahead")

    async def _run(self, client: httpx.AsyncClient, stop: asyncio.Event) -> None:
        began = time.monotonic()
        async with asyncio.TaskGroup() as under_way:
            for number in count():
                if stop.is_set():
                    return
                due = began + number / self._rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                under_way.create_task(self._read(client, self.urls[number % len(self.urls)]))

    async def _read(self, client: httpx.AsyncClient, url: str) -> None:
        user = str(self._rng.randrange(self._users))
        self.seen.asked += 1
        try:
            answer = await client.post(url, json={"query": QUERY, "variables": {"id": user}})
            told = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            return self._fail(type(error).__name__)
        if told.get("errors") or not isinstance(told.get("data"), dict):
            return self._fail(_code(told))
        return self._take(user, told["data"]["user"], answer.headers)

    def _fail(self, code: str) -> None:
        self.seen.errors[code] = self.seen.errors.get(code, 0) + 1
        self.seen.level_ms = 0.0

    def _take(self, user: str, row: dict[str, Any] | None, headers: httpx.Headers) -> None:
        received = now_ms()
        as_of = datetime.fromisoformat(headers["viewgate-as-of"]).timestamp() * 1000 if "viewgate-as-of" in headers else 0.0
        by_view = headers["viewgate-mode"] == "view" and "viewgate-fallback" not in headers
        fields = None if row is None else {NAMES[name]: value for name, value in row.items()}
        # what the source database has is not told by the log, nor is its as-of
        verdict = self._history.judge(user, fields, as_of if by_view and self.by_clock else 0.0, received)
        self.seen.answered += 1
        self.seen.lead_ms = as_of - received
        if as_of and self.by_clock:
            self.seen.oldest_ms = max(self.seen.oldest_ms, received - as_of)
        if by_view and self.seen.level_ms < as_of <= received:
            self.seen.level_ms = as_of
        if verdict is not Verdict.RIGHT:
            self._blame(verdict, f"{verdict.name}: user {user} was {fields}, as of {received - as_of:.0f} ms ago: {dict(headers)}")

    def _blame(self, verdict: Verdict, told: str) -> None:
        self.seen.wrong += verdict is Verdict.WRONG
        self.seen.older += verdict is Verdict.OLDER
        self.seen.bad = [*self.seen.bad, told][:SHOWN]


def now_ms() -> float:
    """Unix ms, of the clock that changes bear too."""
    return time.time_ns() / 1e6


def _code(told: dict[str, Any]) -> str:
    errors = told.get("errors") or [{}]
    return str(errors[0].get("extensions", {}).get("code", errors[0].get("message", "no code")))
