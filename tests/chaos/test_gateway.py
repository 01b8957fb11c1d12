"""Faults around the gateway: its end under load, clients that are slow, a loop that stands still, a cache that is cold."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from demo.servers.process import until
from tests.chaos.conftest import OpenScene
from tests.chaos.links import link_to
from tests.chaos.readers import QUERY
from tests.chaos.scene import USERS, metric

AT_ONCE = 500
SLOW = 300
MISSES = 'viewgate_cache_reads_total{mode="cache-aside",outcome="miss"}'


async def test_f22_cold_cache_five_hundred_at_once(scene_with: OpenScene) -> None:
    """Mode cache-aside with nothing in its cache: 500 requests for one user, and then 500 for all of them, arrive at once."""
    async with scene_with() as scene:
        await scene.goes_on(2)
        await scene.writer.flush()
        port = scene.gateways[await scene.serve(VIEWGATE_MODE="cache-aside", VIEWGATE_POSTGRES_CONNECTIONS="4")]
        one = await _asked_at_once(port, ["7"] * AT_ONCE)
        misses = await metric(port, MISSES)
        every = await _asked_at_once(port, [str(number % USERS) for number in range(AT_ONCE)])
        all_misses = await metric(port, MISSES) - misses
        scene.mended()
        assert (set(one), set(every)) == ({200}, {200})
        assert misses == 1
        assert all_misses <= USERS
        scene.proves(
            f"{AT_ONCE} requests for one cold user asked PostgreSQL {misses:.0f} time, {AT_ONCE} for {USERS} users {all_misses:.0f} times, "
            "by 4 connections; each was answered"
        )
        await scene.healed()


async def test_f23_gateway_told_to_end_under_load(scene_with: OpenScene) -> None:
    """A gateway gets SIGTERM while readers keep their connections to it, and new ones go to another: three times in turn."""
    async with scene_with() as scene:
        (old,) = scene.gateways
        async with link_to(scene.gateways[old]) as service:
            scene.readers.urls[:] = [f"http://127.0.0.1:{service.port}/graphql"]
            await scene.goes_on(2)
            failed, asked = scene.readers.seen.failed, scene.readers.seen.asked
            for _ in range(3):
                new = await scene.serve()
                service.target = scene.gateways[new]
                old.terminate()
                async with asyncio.timeout(20):
                    assert await old.wait() == 0
                await scene.goes_on(1)
                old = new
            scene.mended()
            assert scene.readers.seen.failed == failed, scene.readers.seen.errors
            scene.proves(f"three gateways ended in turn; of {scene.readers.seen.asked - asked} requests meanwhile none failed")
            await scene.healed()
            scene.readers.urls[:] = [f"http://127.0.0.1:{scene.gateways[old]}/graphql"]
            await scene.goes_on(1)


async def test_f27_slow_clients(scene_with: OpenScene) -> None:
    """300 clients send a byte of their request each second, or ask and read no answer; the others are answered as ever."""
    async with scene_with() as scene:
        (gateway,) = scene.gateways
        await scene.goes_on(2)
        async with slow_clients(scene.gateways[gateway], SLOW):
            failed, asked = scene.readers.seen.failed, scene.readers.seen.asked
            await scene.goes_on(8)
            held = await _connections(scene.gateways[gateway])
            assert held >= SLOW
            assert scene.readers.seen.failed == failed, scene.readers.seen.errors
            scene.proves(f"{held} connections hung at the gateway; of {scene.readers.seen.asked - asked} requests beside them none failed")
        scene.mended()
        await scene.healed()


async def test_f28_event_loop_blocked(scene_with: OpenScene) -> None:
    """The loops of a gateway and of a projector stand still for three seconds, three times: nothing is read, sent, or kept alive."""
    async with scene_with() as scene:
        (gateway,), (projector,) = scene.gateways, scene.projectors
        projector.kill()
        await projector.wait()
        blocked = await scene.project("tests.chaos.blocked", "project", BLOCKED="3")
        port = scene.gateways[gateway]
        gateway.terminate()
        await gateway.wait()
        served = await scene.road.start("-m", "tests.chaos.blocked", "serve", "--port", str(port), said=scene.said, BLOCKED="3")
        await until(lambda: scene.counts("viewgate_changes_applied_total", 1), 40)
        for _ in range(3):
            for process in (blocked, served):
                process.send_signal(signal.SIGUSR1)
            await _silent(port)
            await scene.goes_on(4)
        scene.mended()
        assert blocked.returncode is None
        scene.proves("three times the gateway did not answer within a second; the projector got the same signal at the same moments")
        await scene.healed()


async def _silent(port: int) -> None:
    """It does not answer within a second."""
    async with httpx.AsyncClient(trust_env=False, timeout=1) as client:
        with contextlib.suppress(httpx.ReadTimeout):
            answer = await client.get(f"http://127.0.0.1:{port}/livez")
            raise AssertionError(f"the loop is not blocked: {answer.status_code}")


@asynccontextmanager
async def slow_clients(port: int, count: int) -> AsyncIterator[None]:
    """Half of them trickle their request, half read nothing of many answers."""
    tasks = [asyncio.create_task(_trickle(port) if number % 2 else _read_nothing(port)) for number in range(count)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _trickle(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer):
        for byte in (
            b"POST /graphql HTTP/1.1\r\nhost: slow\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n" + b" " * 1000
        ):
            writer.write(bytes([byte]))
            await asyncio.sleep(1)


async def _read_nothing(port: int) -> None:
    body = b'{"query": "{ user(id: \\"1\\") { username followerCount } }"}'
    request = b"POST /graphql HTTP/1.1\r\nhost: slow\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer):
        for _ in range(20):
            writer.write(request)
            await asyncio.sleep(0.5)
        await asyncio.sleep(3600)


async def _connections(port: int) -> int:
    """How many are established at this port of loopback."""
    ours = f"0100007F:{port:04X}"
    with open("/proc/net/tcp") as table:  # noqa: ASYNC230  # a small file
        return sum(line.split()[1] == ours and line.split()[3] == "01" for line in table)


async def _asked_at_once(port: int, users: list[str]) -> list[int]:
    """The status of each answer."""
    async with httpx.AsyncClient(trust_env=False, timeout=20, limits=httpx.Limits(max_connections=None)) as client:
        bodies = [{"query": QUERY, "variables": {"id": user}} for user in users]
        answers = await asyncio.gather(*(client.post(f"http://127.0.0.1:{port}/graphql", json=body) for body in bodies))
    return [answer.status_code if not answer.json().get("errors") else 0 for answer in answers]
