"""A Redis as a machine leaves it that loses power: with fsync every second, its append-only file may lack the last second."""

from collections.abc import Mapping
from pathlib import Path

from demo.servers.process import Process


def synced(redis: Process) -> Mapping[Path, int]:
    """The sizes that its files have by now, in bytes."""
    argv = redis.command.argv
    data = Path(argv[argv.index("--dir") + 1])
    return {path: path.stat().st_size for path in (data / "appendonlydir").glob("*.incr.aof")}


def cut_back(sizes: Mapping[Path, int]) -> int:
    """Of a Redis that was killed: leave its files no longer than they were. How many bytes are gone."""
    gone = 0
    # one that was rewritten meanwhile lies on the disk as a whole, in another file
    for path, size in ((path, size) for path, size in sizes.items() if path.exists()):
        gone += path.stat().st_size - size
        with path.open("r+b") as file:
            file.truncate(size)
    return gone
