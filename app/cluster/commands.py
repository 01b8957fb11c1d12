"""What a command means for a Redis Cluster: which key says where it goes, or how it is asked of every master. Sends nothing."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Joined = Callable[[list[Any]], Any]

# asked of every master, and how their answers are one
EVERYWHERE: Mapping[str, Joined] = {
    "PING": all,
    "DBSIZE": sum,
    "FLUSHALL": all,
    "SCRIPT LOAD": lambda digests: digests[0],
    "KEYS": lambda found: [key for keys in found for key in keys],
}
# of several keys, each on a slot of its own: what is asked of each, and how the answers are one
SPLIT: Mapping[str, tuple[str, Joined]] = {
    "MGET": ("GET", list),
    "UNLINK": ("UNLINK", sum),
    "DEL": ("DEL", sum),
}
# of one server; a cluster has several
OF_ONE = {"BGSAVE", "CONFIG GET", "CONFIG SET", "INFO", "TIME", "WAIT"}


def key_of(args: Sequence[Any]) -> bytes | str:
    """The first key that a command names. Raises TypeError where it names none."""
    name = str(args[0]).upper()
    if name in OF_ONE:
        raise TypeError(f"{name} is for one server, and a Redis Cluster has several: ask one of its masters")
    place = 3 if name.startswith("EVAL") else 2 if name == "OBJECT" else 1
    if len(args) <= place:
        raise TypeError(f"{name} names no key, so nothing says which master of the Redis Cluster to ask")
    key: bytes | str = args[place]
    return key
