"""Read your writes: what a shard must have before a row of it is read, and the polls of those who wait. Reads headers only."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from loaders.live import Live
from loaders.sending import Command, Send
from schema import layout
from schema.loader import BadAfter, NotYet
from schema.positions import Token, Watermark

POLL_SECONDS = 0.005

Header = Sequence[bytes | None]


class Behind(Exception):
    """shards: that have not got a write which the answer must have. builds: of shards that were built again meanwhile."""

    def __init__(self, shards: Sequence[int], builds: Mapping[int, str]) -> None:
        self.shards, self.builds = shards, builds


class Guard:
    """The writes that an answer from one generation must have. Raises BadAfter where it does not read what a token names.

    `command` goes ahead of a shard's rows, on their connection: what the header has, the rows show.
    """

    def __init__(self, live: Live, after: Sequence[Token]) -> None:
        unread = next((token for token in after if str(token.partition) not in live.record.start), None)
        if unread is not None:
            read = ", ".join(sorted({partition.rpartition(":")[0] for partition in live.record.start}))
            raise BadAfter(
                f"Token {unread} names a partition that generation {live.record.name} does not read (it reads {read or 'none'}): "
                "send a token as its write returned it."
            )
        self._live, self._after = live, after
        self._fields = (layout.STATE.decode(), layout.BUILD.decode(), *(str(token.partition) for token in after))

    def command(self, shard: int) -> Command:
        """Answered with a Header: state, build, and a watermark of each token's partition."""
        return ("HMGET", self._live.layout.headers[shard], *self._fields)

    def check(self, shards: Sequence[int], headers: Sequence[Header]) -> None:
        """Raises Behind, ViewNotReady."""
        found = {shard: self._live.build(shard, *header[:2]) for shard, header in zip(shards, headers, strict=True)}
        builds = {shard: build for shard, build in found.items() if build != self._live.builds[shard]}
        behind = [shard for shard, header in zip(shards, headers, strict=True) if self._lacks(header)]
        if builds or behind:
            raise Behind(behind, builds)

    def must_wait(self, shards: Sequence[int], headers: Sequence[Header]) -> bool:
        """Whether these shards are as they were, and one still lacks a write."""
        live = self._live
        same = all(
            header[0] in live.readable and header[1] == live.builds[shard].encode() for shard, header in zip(shards, headers, strict=True)
        )
        return same and any(map(self._lacks, headers))

    def not_yet(self, headers: Sequence[Header], seconds: float) -> NotYet:
        """What to tell one who has waited so long."""
        token, reached = min((lack for header in headers for lack in self._lacks(header)), key=lambda lack: lack[1] - lack[0].offset)
        return NotYet(
            f"After {seconds:g} s the view still has {token.partition} only below offset {reached}, and your write is at {token.offset}: "
            f"try again with the same token. `viewgate lag` shows how far generation {self._live.record.name} is."
        )

    def _lacks(self, header: Header) -> list[tuple[Token, int]]:
        """Each write that the shard has not got, and the offset below which it has everything."""
        pairs = [(token, _reached(stored)) for token, stored in zip(self._after, header[2:], strict=True)]
        return [(token, watermark.offset) for token, watermark in pairs if not token.passed(watermark)]


class Polls:
    """Commands that are asked again and again until something is so: those of one moment in one pipeline, equal ones once."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._wanted: dict[Command, None] = {}
        self._round: asyncio.Task[dict[Command, Any]] | None = None

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The replies, a moment from now. Raises what sending raises."""
        self._wanted |= dict.fromkeys(commands)
        if self._round is None:
            self._round = asyncio.create_task(self._run())
            # seen, even if everybody who waited was cancelled
            self._round.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        found = await asyncio.shield(self._round)
        return [found[command] for command in commands]

    async def _run(self) -> dict[Command, Any]:
        await asyncio.sleep(POLL_SECONDS)
        wanted, self._wanted, self._round = list(self._wanted), {}, None
        return dict(zip(wanted, await self._send(wanted), strict=True))


def _reached(stored: bytes | None) -> Watermark:
    return Watermark(0, 0, "") if stored is None else Watermark.decode(stored)
