"""F11: each link between two of the processes in turn is slow, cut, and without a way back."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from demo.servers import kafka
from demo.servers import redis as redis_server
from demo.servers.account import scratch
from demo.servers.process import free_port, until
from demo.servers.server import Server
from tests.chaos.conftest import OpenScene
from tests.chaos.links import Link, link_to, port_of
from tests.chaos.scene import Scene
from tests.conftest import CACHE


async def test_f11_links_gateway_and_redis(scene_with: OpenScene) -> None:
    """Between a gateway and Redis: every piece is 0.2 s late each way for four seconds, then everything is reset and refused, then
    requests get through and no answer comes back."""
    async with linked_redis() as (redis, link), scene_with(redis=redis) as scene:
        gateway = await scene.serve(VIEWGATE_REDIS_URL=through(link, scene.redis.address))
        scene.readers.urls[:] = [f"http://127.0.0.1:{scene.gateways[gateway]}/graphql"]
        await spoil(scene, link)
        assert scene.readers.seen.errors
        await scene.healed()


async def test_f11_links_projector_and_redis(scene_with: OpenScene) -> None:
    """Between the projector and Redis: every piece is 0.2 s late each way for four seconds, then everything is reset and refused, then
    calls get through and no answer comes back."""
    async with linked_redis() as (redis, link), scene_with(redis=redis) as scene:
        await replaced(scene, VIEWGATE_REDIS_URL=through(link, scene.redis.address))
        await spoil(scene, link)
        await scene.healed()


async def test_f11_links_projector_and_kafka(scene_with: OpenScene) -> None:
    """Between the projector and Kafka, while others reach Kafka: every piece is 0.2 s late each way for four seconds, then everything is
    reset and refused, then requests get through and no answer comes back."""
    with scratch() as folder:
        async with kafka.start(folder, CACHE, prefer="installed", say=print) as server:
            behind, port = free_port(), free_port()
            await listen_twice(server, behind, port)
            async with link_to(behind, port) as link, scene_with(kafka_at=server) as scene:
                await replaced(scene, VIEWGATE_KAFKA_BOOTSTRAP=f"127.0.0.1:{port}")
                await spoil(scene, link)
                await scene.healed()


async def test_f11_links_sink_and_postgresql(scene_with: OpenScene, postgres_at: Server) -> None:
    """Between the sink and PostgreSQL: every piece is 0.2 s late each way for four seconds, then everything is reset and refused, then
    statements get through and no answer comes back."""
    async with link_to(port_of(postgres_at.address)) as link, scene_with() as scene:
        await scene.end_sink()
        await scene.start_sink(VIEWGATE_POSTGRES_URL=through(link, scene.road.settings.postgres_url))
        await scene.goes_on(3)
        await spoil(scene, link)
        await scene.healed()


@asynccontextmanager
async def linked_redis() -> AsyncIterator[tuple[Server, Link]]:
    """A Redis, and a link to it that outlives the scene, whose audit comes at its end."""
    with scratch() as folder:
        async with redis_server.start(folder, CACHE, prefer="installed", say=print) as redis, link_to(port_of(redis.address)) as link:
            yield redis, link


async def spoil(scene: Scene, link: Link) -> None:
    """Slow, cut, without a way back: each for four seconds, with two seconds of peace after it."""
    for way in ("slow", "cut", "one-way"):
        link.turn(way)
        await scene.goes_on(4)
        link.turn("open")
        if way != "one-way":
            await scene.goes_on(2)
    scene.mended()
    assert link.slow > 5
    assert link.cut > 0
    assert link.held > 0
    scene.proves(f"{link.slow} pieces were late, {link.cut} connections were reset, {link.held:,} bytes of answers were held")


async def replaced(scene: Scene, **environment: str) -> None:
    """Another projector in place of the first, by the time it has applied something."""
    (first,) = scene.projectors
    first.terminate()
    await first.wait()
    await scene.project(**environment)
    await until(lambda: scene.counts("viewgate_changes_applied_total", 1), 30)


async def listen_twice(server: Server, behind: int, port: int) -> None:
    """Kafka listens at `behind` too, and tells those who come by it that it is at `port`."""
    assert server.process
    settings = Path(server.process.command.argv[-1])
    told = settings.read_text()  # noqa: ASYNC240  # a small file
    for name, where in (("listeners", behind), ("advertised.listeners", port)):
        told = re.sub(rf"^{name}=", f"{name}=BEHIND://127.0.0.1:{where},", told, flags=re.MULTILINE)
    told = told.replace("protocol.map=", "protocol.map=BEHIND:PLAINTEXT,")
    settings.write_text(told)  # noqa: ASYNC240  # the same
    await server.process.restart()


def through(link: Link, address: str) -> str:
    """The address of the link in place of what it leads to."""
    return address.replace(f":{port_of(address)}", f":{link.port}")
