"""The Node packages of the peers, from their lock, in the cache."""

import re
import shutil
from pathlib import Path

from bench.peers.installed import installed
from bench.peers.program import CACHE, ROOT
from demo.servers.process import ServerError, run
from demo.servers.server import MissingError, Say

PACKAGE = Path(__file__).with_name("node")
HOME = CACHE / "bench-node"
# crc32 came with it
OLDEST = (20, 15)


async def prepare(say: Say) -> Path:
    """The folder of the program with its packages; installed anew when it has changed. Raises MissingError."""
    await _check_node()
    files = b"".join(path.read_bytes() for path in sorted(PACKAGE.iterdir()))
    await installed(HOME, files, f"the packages of {PACKAGE.relative_to(ROOT)}", _make, say)
    return HOME


async def _make() -> None:
    shutil.rmtree(HOME, ignore_errors=True)
    shutil.copytree(PACKAGE, HOME)
    try:
        await run("npm", "ci", "--prefix", str(HOME), "--cache", str(CACHE / "npm"), seconds=300)
    except ServerError as error:
        raise MissingError(f"the peers of Node cannot be installed: is the package registry within reach? {error}") from error


async def _check_node() -> None:
    needed = f"Node.js {OLDEST[0]}.{OLDEST[1]} or newer"
    if not (shutil.which("node") and shutil.which("npm")):
        raise MissingError(f"there is no node, or no npm, on PATH; install {needed}")
    found = re.match(r"v(\d+)\.(\d+)", await run("node", "--version"))
    if found is None or (int(found[1]), int(found[2])) < OLDEST:
        raise MissingError(f"this Node.js is {found[0] if found else 'unknown'}; install {needed}")
