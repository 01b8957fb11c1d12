"""Which transactions rows from SQL have in them, so that the log's changes of these are not added once more. Data only, no I/O."""

from typing import NamedTuple, Self

# ids of transactions have 64 bits, of which a connector tells the lower 32
WRAP = 2**32


class Seen(NamedTuple):
    """What a snapshot of PostgreSQL has seen, in its own words.

    lsn: where its log was just after the snapshot was taken, as a number: whatever was committed behind that was not seen. xmax: so was
    no transaction with this id or a higher one. running: ids below xmax of those that had not ended.
    """

    lsn: int
    xmax: int
    running: frozenset[int]

    @classmethod
    def of(cls, lsn: int, snapshot: str) -> Self:
        """snapshot: the text of PostgreSQL's `pg_snapshot`, xmin:xmax:running,…"""
        _, xmax, running = snapshot.split(":")
        return cls(lsn, int(xmax), frozenset(map(int, filter(None, running.split(",")))))

    def has(self, commit: int, tx_id: int) -> bool:
        """Whether the rows have a transaction that was committed. commit: LSN of the commit before its own. tx_id: its lower 32 bits.

        What was committed below the LSN has an id near xmax. Behind it, 32 bits may have gone round, so that an id seems to be a lower one.
        """
        whole = widened(tx_id, self.xmax)
        return commit < self.lsn and whole < self.xmax and whole not in self.running

    def encode(self) -> bytes:
        return b"%d|%d|%s" % (self.lsn, self.xmax, ",".join(map(str, sorted(self.running))).encode())

    @classmethod
    def decode(cls, stored: bytes) -> Self:
        """Raises ValueError for bytes that no `encode` made."""
        lsn, xmax, running = stored.decode().split("|")
        return cls.of(int(lsn), f":{xmax}:{running}")


def widened(tx_id: int, near: int) -> int:
    """The id of 64 bits with these lower 32 that is nearest to another."""
    return near + (tx_id - near + WRAP // 2) % WRAP - WRAP // 2
