"""The Python environment of the peers, from requirements/bench.txt, apart from ours: Quix Streams wants an older client of Kafka."""

import shutil
import sys

from bench.peers.installed import installed
from bench.peers.program import CACHE, ROOT
from demo.servers.process import ServerError, run
from demo.servers.server import MissingError, Say

LOCK = ROOT / "requirements" / "bench.txt"
HOME = CACHE / "bench-venv"
PYTHON = HOME / "bin" / "python"
INSTALL_SECONDS = 600


async def prepare(module: str, say: Say) -> None:
    """Make the environment, or make it anew when its lock has changed; then try to import the peer. Raises MissingError."""
    await installed(HOME, LOCK.read_bytes(), str(LOCK.relative_to(ROOT)), _make, say)
    try:
        await run(str(PYTHON), "-c", f"import {module}")
    except ServerError as error:
        version = ".".join(map(str, sys.version_info[:2]))
        raise MissingError(f"{module} cannot be had for Python {version}: run the bench with Python 3.11 or 3.12. {error}") from error


async def _make() -> None:
    shutil.rmtree(HOME, ignore_errors=True)
    try:
        await run(sys.executable, "-m", "venv", str(HOME), seconds=INSTALL_SECONDS)
        pip = (str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "-q", "--require-hashes", "-r", str(LOCK))
        await run(*pip, seconds=INSTALL_SECONDS)
    except ServerError as error:
        raise MissingError(f"{LOCK.name} cannot be installed: is the package index within reach? {error}") from error


def command(module: str, *arguments: str) -> tuple[str, ...]:
    """That runs a module of this house in that environment."""
    return "env", f"PYTHONPATH={ROOT}", "PYTHONWARNINGS=ignore", str(PYTHON), "-m", module, *arguments
