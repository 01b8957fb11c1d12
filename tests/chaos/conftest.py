"""The twenty-eight faults: a few of them run in every `make test`, all of them in `make faults`."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from demo.servers import kafka
from demo.servers import postgres as postgres_servers
from demo.servers import redis as redis_server
from demo.servers.account import scratch
from demo.servers.connect import Connect
from demo.servers.server import Server
from tests.chaos import records
from tests.chaos.capturing import CapturedScene, open_captured_scene
from tests.chaos.records import Outcome
from tests.chaos.scene import Scene, open_scene
from tests.conftest import CACHE

ALWAYS = {"f1", "f2", "f4", "f6", "f12", "f14", "f18"}
OpenScene = Callable[..., AbstractAsyncContextManager[Scene]]
OpenCapturedScene = Callable[..., AbstractAsyncContextManager[CapturedScene]]
# set by `make faults`: "left" for those that have not passed yet with this code, "fresh" for every one
ASKED = os.environ.get("FAULTS", "")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if (name := fault(item)) and not _wanted(name)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if ASKED and records.kept():
        records.write_page()


def fault(item: pytest.Item) -> str:
    """Such as f4_redis_killed; "" for a test that is no fault."""
    name = item.name.removeprefix("test_")
    return name if item.path.parent == Path(__file__).parent and name[:1] == "f" and name[1:2].isdigit() else ""


def _wanted(name: str) -> bool:
    if not ASKED:
        return name.partition("_")[0] in ALWAYS
    return ASKED == "fresh" or not records.passed(name)


@pytest.fixture
def outcome(request: pytest.FixtureRequest) -> Outcome:
    """Of the fault that the test is named as, told by its docstring."""
    return Outcome(fault(request.node), " ".join((request.function.__doc__ or "").split()))


@pytest.fixture
def scene_with(outcome: Outcome, apache_kafka_at: Server, postgres_at: Server, tmp_path: Path) -> OpenScene:
    """Opens the test's scene. Its arguments name the servers that are the scene's own, to be damaged: "kafka", "postgres".

    Redis always is. redis, kafka_at, postgres: one that the test has started itself. Others: see `open_scene`.
    """

    @asynccontextmanager
    async def opened(
        *own: str, redis: Server | None = None, kafka_at: Server | None = None, postgres: Server | None = None, **options: Any
    ) -> AsyncIterator[Scene]:
        async with AsyncExitStack() as stack:
            folder = stack.enter_context(scratch())
            if redis is None:
                redis = await stack.enter_async_context(redis_server.start(folder, CACHE, prefer="installed", say=print))
            if "kafka" in own:
                kafka_at = await stack.enter_async_context(kafka.start(folder, CACHE, prefer="installed", say=print))
            postgres_server = postgres or postgres_at
            if "postgres" in own:
                postgres_server = await stack.enter_async_context(postgres_servers.start(folder, CACHE, prefer="installed", say=print))
            scene = open_scene(outcome, kafka_at or apache_kafka_at, redis, postgres_server, tmp_path, **options)
            yield await stack.enter_async_context(scene)

    return opened


@pytest.fixture
def captured_scene(outcome: Outcome, apache_kafka_at: Server, postgres_at: Server, tmp_path: Path) -> OpenCapturedScene:
    """Opens the test's scene behind this worker of Kafka Connect; Redis is its own. Others: see `open_captured_scene`."""

    @asynccontextmanager
    async def opened(worker: Connect, **options: Any) -> AsyncIterator[CapturedScene]:
        with scratch() as folder:
            async with (
                redis_server.start(folder, CACHE, prefer="installed", say=print) as redis,
                open_captured_scene(outcome, worker, apache_kafka_at, redis, postgres_at, tmp_path, **options) as scene,
            ):
                yield scene

    return opened
