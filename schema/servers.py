"""What a client of Redis tells of the servers behind it (app/pool.py, app/cluster/nodes.py). Opens nothing."""

from typing import Any, Protocol


class Client(Protocol):
    """A client of one Redis, or of a Redis Cluster."""

    connection_pool: Any


def met(client: Client) -> int:
    """How often the client has met another server than the one before: what was acknowledged may be lost then."""
    return int(getattr(client.connection_pool, "met", 0))


def run_ids(client: Client) -> frozenset[bytes] | None:
    """Of each master of a Redis Cluster that the client has met. None: there is one server, where all that is lost is lost together."""
    found: frozenset[bytes] | None = getattr(client.connection_pool, "run_ids", None)
    return found
