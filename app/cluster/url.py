"""A URL that names a Redis Cluster: redis+cluster://, by TLS rediss+cluster://. Opens nothing."""

import re
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio.connection import parse_url

Address = tuple[str, int]
SCHEMES = ("redis+cluster://", "rediss+cluster://")
PORT = 6379


def names_cluster(url: str) -> bool:
    return url.startswith(SCHEMES)


def parse_cluster_url(url: str) -> tuple[list[Address], dict[str, Any]]:
    """The nodes that a URL names, at least one, and the options of every connection. Raises ValueError."""
    scheme, _, rest = url.partition("+cluster://")
    found = re.match(r"(?:([^/?#]*)@)?([^/?#@]*)(.*)", rest)
    who, hosts, tail = found.groups() if found else (None, "", "")
    options: dict[str, Any] = {}
    nodes: list[Address] = []
    for host in hosts.split(","):
        one = f"{scheme}://{f'{who}@' if who else ''}{host}{tail}"
        options = dict(parse_url(one))
        if options.pop("db", 0) or urlsplit(one).path not in {"", "/", "/0"}:
            raise ValueError("a Redis Cluster has no other database than 0: leave out what follows the last host")
        nodes.append((str(options.pop("host", "")), int(options.pop("port", PORT))))
        if not nodes[-1][0]:
            raise ValueError("must name its nodes as host:port, several separated by commas")
    return nodes, options
