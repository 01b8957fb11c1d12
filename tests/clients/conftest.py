"""The package of examples/clients, installed and built once; gateways that its programs ask."""

import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from app.server import application, gateway
from app.settings import Settings
from app.telemetry import GatewayMetrics
from demo.servers.server import Server
from schema.loader import Loader
from tests.clients.running import run, served
from tests.request.arranged import DEFINITION

HOUSE = Path(__file__).parents[2]
EXAMPLES = HOUSE / "examples" / "clients"
AUDITS = Path(__file__).parent / "audits"
NPM_CACHE = HOUSE / ".cache" / "npm"
MADE = shutil.ignore_patterns("node_modules", "dist", "generated", "__generated__")
TRIES = 3
OLDEST_NODE = 18

Serve = Callable[..., Awaitable[str]]


@pytest.fixture(scope="session")
def node() -> None:
    """Skips on a laptop without Node.js, fails under CI=true."""
    lacking = _lacking()
    if lacking:
        sentence = f"needs Node.js {OLDEST_NODE} or newer with npm, packages nodejs and npm: {lacking}"
        pytest.fail(sentence) if os.environ.get("CI") == "true" else pytest.skip(sentence)


@pytest.fixture(scope="session")
async def package(node: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    """A copy of the package, beside the schema as in the checkout: installed, generated, built."""
    house = tmp_path_factory.mktemp("clients")
    folder = _copy(EXAMPLES, house)
    await _install(folder)
    for script in ("codegen", "build"):
        ran = await run("npm", "run", script, folder=folder)
        assert ran.code == 0, ran.said
    yield folder
    # not one of the three last runs that pytest keeps: it is hundreds of megabytes
    shutil.rmtree(house)


@pytest.fixture(scope="session")
async def audits(node: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the audits of GraphQL over HTTP, installed."""
    folder = Path(shutil.copytree(AUDITS, tmp_path_factory.mktemp("audits") / "audits", ignore=MADE))
    await _install(folder)
    return folder


@pytest.fixture
def changed(package: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy to be spoilt: what is installed is shared, what is generated is not there yet."""
    folder = _copy(package, tmp_path)
    (folder / "node_modules").symlink_to(package / "node_modules")
    yield folder
    (folder / "node_modules").unlink()


@pytest.fixture
async def serve(redis_at: Server, users_at: str) -> AsyncIterator[Serve]:
    """The URL of a gateway over the two servers, settings given by name."""
    async with AsyncExitStack() as opened:

        async def serve_one(**given: Any) -> str:
            settings = Settings(**{"redis_url": redis_at.address, "postgres_url": users_at, "allow_mode_header": True, **given})
            return await opened.enter_async_context(served(await opened.enter_async_context(gateway(settings, DEFINITION))))

        yield serve_one


@pytest.fixture
async def serve_over() -> AsyncIterator[Serve]:
    """The URL of a gateway whose view is a loader that is given."""
    async with AsyncExitStack() as opened:

        async def serve_one(loader: Loader, **given: Any) -> str:
            return await opened.enter_async_context(served(application(Settings(**given), DEFINITION, {"view": loader}, GatewayMetrics())))

        yield serve_one


def _lacking() -> str:
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} not on PATH"
    version = subprocess.run(("node", "--version"), capture_output=True, text=True, check=True).stdout.strip()
    found = re.match(r"v(\d+)\.", version)
    return "" if found and int(found[1]) >= OLDEST_NODE else f"this is {version}"


def _copy(package: Path, house: Path) -> Path:
    shutil.copy(HOUSE / "schema.graphql", house)
    return Path(shutil.copytree(package, house / "examples" / "clients", ignore=MADE))


async def _install(folder: Path) -> None:
    for attempt in range(1, TRIES + 1):
        ran = await run("npm", "ci", "--cache", str(NPM_CACHE), folder=folder, seconds=150)
        if ran.code == 0:
            return
        assert attempt < TRIES, f"npm ci failed {TRIES} times; is the package registry reachable?\n{ran.said}"
