"""Positions in a source and the watermarks kept of them: what has been applied, and how two of them compare.

Position kind `offset`: the Kafka offset. `debezium`: that too, and pairs of LSNs that tell what an at-least-once connector sends again.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

# LSNs as PostgreSQL writes them, as one number or as pairs, and transaction ids: what a CDC writer knows of its write
_OF_CDC = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}|[0-9]+|(lsn|xid|txid|tx)[:=].*", re.IGNORECASE)
_TOKEN = re.compile(r"([A-Za-z0-9._-]{1,249}):([0-9]{1,9}):([0-9]{1,18})")


class Partition(NamedTuple):
    """A Kafka partition; `str()` is its field in a shard's header."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}:{self.number}"


class Run(NamedTuple):
    """The changes that bear the highest pair of LSNs that has come in a partition: (commit before, LSN).

    start: the offset at which that pair was first seen. Whoever reads on reads from there: what was seen at the pair is not stored.
    """

    pair: tuple[int, int]
    start: int


class Watermark(NamedTuple):
    """Every record of one partition below `offset` has been applied to one shard.

    ts_ms: the source's time of the newest of them, 0 when none had one. topic_id: Kafka's id of the topic ("" when the
    broker tells none): a topic that was deleted and made anew has another. run: of position kind `debezium`, once a change has come.
    """

    offset: int
    ts_ms: int
    topic_id: str
    run: Run | None = None

    @property
    def begins(self) -> int:
        """Where reading must begin for whoever goes on from here."""
        return self.offset if self.run is None else self.run.start

    def encode(self) -> bytes:
        if self.run is not None:
            (commit, lsn), start = self.run
            return b"%d|%d|%s|%d|%d|%d" % (self.offset, self.ts_ms, self.topic_id.encode(), commit, lsn, start)
        return b"%d|%d|%s" % (self.offset, self.ts_ms, self.topic_id.encode())

    @classmethod
    def decode(cls, stored: bytes) -> "Watermark":
        """Raises ValueError for bytes that no `encode` made."""
        return _decoded(stored)

    def advanced(self, offset: int, ts_ms: int, run: Run | None = None) -> "Watermark":
        """The running maximum: never behind this one. run: the one at that offset."""
        # without `max`, which is slow: each checkpoint comes here for every shard of every partition
        if offset <= self.offset:
            offset, run = self.offset, self.run
        return Watermark(offset, ts_ms if ts_ms > self.ts_ms else self.ts_ms, self.topic_id, run)


# after a checkpoint all shards have the same watermarks
@lru_cache(1024)
def _decoded(stored: bytes) -> Watermark:
    offset, ts_ms, topic_id, *of_run = stored.decode().split("|")
    run = None
    if of_run:
        commit, lsn, start = map(int, of_run)
        run = Run((commit, lsn), start)
    return Watermark(int(offset), int(ts_ms), topic_id, run)


class MalformedToken(ValueError):
    """A text that is no token; the message says what one looks like."""


class TokenUnsupported(ValueError):
    """A token of a position kind that does not exist yet."""


@dataclass(frozen=True, slots=True)
class Token:
    """What a write returns, so that a later read can wait for it: where Kafka has put its record. `str()` is how it travels."""

    partition: Partition
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"

    def passed(self, watermark: Watermark) -> bool:
        """Whether a shard with this watermark of the partition has the write."""
        return watermark.offset > self.offset

    @classmethod
    def parse(cls, text: str) -> "Token":
        """Raises MalformedToken, TokenUnsupported."""
        found = _TOKEN.fullmatch(text)
        if found:
            return cls(Partition(found[1], int(found[2])), int(found[3]))
        if _OF_CDC.fullmatch(text):
            raise TokenUnsupported(
                f"{text!r} looks like a transaction id or an LSN of a database: nothing tells in which partition of Kafka its "
                "changes lie, so it cannot be waited for. Wait for viewgate-as-of to pass the moment of the write instead."
            )
        raise MalformedToken(f"{text[:80]!r} is no token: one is topic:partition:offset, such as users:0:42; several are joined by commas.")


def tokens(text: str) -> Sequence[Token]:
    """The tokens of a list joined by commas, of each partition the newest. Raises MalformedToken, TokenUnsupported."""
    newest: dict[Partition, Token] = {}
    for token in map(Token.parse, map(str.strip, text.split(","))):
        known = newest.get(token.partition)
        if known is None or known.offset < token.offset:
            newest[token.partition] = token
    return list(newest.values())
