"""Faults of change data capture: the connector killed, its slot dropped, its offsets lost, changes sent again; readers go on meanwhile."""

import asyncio
import re

from demo.servers.connect import Connect
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from demo.sink import end_offsets
from tests.cdc.paired import UserView as PairedView
from tests.cdc.test_kills import sent_again
from tests.chaos.capturing import CapturedScene
from tests.chaos.conftest import OpenCapturedScene
from tests.conftest import open_connect

KILLS = 2


async def test_f14_changes_sent_again_at_new_offsets(captured_scene: OpenCapturedScene, apache_kafka_at: Server) -> None:
    """A worker of Kafka Connect that sends at least once gets SIGKILL under load and starts again: it sends a stretch of changes once
    more, at new offsets. The sources are of position `debezium`."""
    async with open_connect(apache_kafka_at, exactly_once=False) as worker, captured_scene(worker, view=PairedView) as scene:
        again = 0
        for _ in range(KILLS):
            await scene.goes_on(2)
            await worker.kill()
            await worker.restart()
        scene.mended()
        await scene.arrived()
        again = await sent_again(scene.captured)
        assert again > 0
        await until(lambda: scene.counts("viewgate_duplicates_dropped_total", again), 30)
        scene.proves(f"{again:,} records came again at new offsets, and as many duplicates were dropped")
        await scene.healed()


async def test_f25_connector_killed(captured_scene: OpenCapturedScene, connect_at: Connect) -> None:
    """The worker of Kafka Connect (distributed, exactly once) gets SIGKILL under load, and is started again by whoever keeps it."""
    async with captured_scene(connect_at) as scene:
        for _ in range(KILLS):
            await scene.goes_on(2)
            await connect_at.kill()
            unsent, ends = await _unsent(scene), await _ends(scene)
            await scene.goes_on(1)
            more = await _unsent(scene)
            assert more > unsent > 0
            assert await _ends(scene) == ends
            scene.proves(f"when it had died {unsent:,} bytes of the write-ahead log were not sent, and a second later {more:,}")
            await connect_at.restart()
        scene.mended()
        await scene.healed()


async def test_f26_replication_slot_dropped(captured_scene: OpenCapturedScene, connect_at: Connect) -> None:
    """The slot of a running connector is dropped. The connector stops with a sentence; then what docs/publishing.md says is done: it is
    made again without its offsets, and `viewgate rebuild --from sql` builds the view that its new snapshot is not added to."""
    async with captured_scene(connect_at) as scene:
        await scene.goes_on(2)
        await _drop_slot(scene)
        told = await _failed(scene, connect_at)
        assert "no longer available on the server" in told
        await scene.goes_on(1)
        await _begun_anew(scene, connect_at)
        scene.proves("the connector failed: `no longer available on the server`; its new snapshot stopped the projector with the command")
        await _rebuilt(scene)
        await scene.healed()


async def test_f15_snapshot_again_in_mid_topic(captured_scene: OpenCapturedScene, connect_at: Connect) -> None:
    """A connector loses its offsets under load, and its slot stays: it takes another snapshot, which overlaps with the changes around
    it. The projector stops with the commands. `viewgate rebuild --from snapshot` is refused; `--from sql` heals."""
    async with captured_scene(connect_at) as scene:
        await scene.goes_on(2)
        await _begun_anew(scene, connect_at)
        await scene.goes_on(1)
        await scene.arrived()
        rebuild = await scene.road.start("-m", "app", "rebuild", "--from", "snapshot", "--promote", said=scene.said)
        async with asyncio.timeout(180):
            refused = await rebuild.wait()
        told = _reason(scene) if refused else "by chance nothing differed"
        scene.proves(f"the projector stopped at a row of the snapshot; `--from snapshot`: {told}")
        await _rebuilt(scene)
        await scene.healed()


def _reason(scene: CapturedScene) -> str:
    """Why a generation was not begun, or not put live."""
    (*_, reason) = re.findall(r"(?:A view cannot be built from the snapshot|g\d+ differs from SQL in).*?(?=[;.]|$)", scene.said.read_text())
    return str(reason)


async def _unsent(scene: CapturedScene) -> int:
    """Bytes of the write-ahead log."""
    return int(
        await scene.road.pool.fetchval(
            "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) FROM pg_replication_slots WHERE slot_name = $1",
            scene.captured.name,
        )
    )


async def _ends(scene: CapturedScene) -> dict[tuple[str, int], int]:
    return await end_offsets(scene.road.settings.kafka_bootstrap, scene.road.definition.topics)


async def _drop_slot(scene: CapturedScene) -> None:
    """While its reader is frozen, for PostgreSQL drops none that is read."""
    scene.captured.connect.process.pause()
    try:
        await scene.road.pool.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1", scene.captured.name
        )
        await scene.captured.drop_slot()
    finally:
        scene.captured.connect.process.resume()


async def _failed(scene: CapturedScene, worker: Connect) -> str:
    """What Connect says of the connector that has failed."""
    trace = ""

    async def failed() -> None:
        nonlocal trace
        for task in (await worker.status(scene.captured.name))["tasks"]:
            trace = task.get("trace", "")
        if not trace:
            raise NotReadyError("the connector has not failed")

    await until(failed, 60)
    return trace


async def _begun_anew(scene: CapturedScene, worker: Connect) -> None:
    """The connector without its offsets; its snapshot stops the projector."""
    (projector,) = scene.projectors
    await worker.forget(scene.captured.name)
    await scene.captured.capture()
    async with asyncio.timeout(60):
        assert await projector.wait() == 1
    said = scene.said.read_text()
    assert "a snapshot's row came at" in said
    assert "Run `viewgate rebuild --from snapshot`, or `--from sql`." in said


async def _rebuilt(scene: CapturedScene) -> None:
    """By the command that was named; then a projector keeps it again."""
    await scene.captured.rebuilt("--from", "sql", "--new", said=scene.captured.said, seconds=180)
    await scene.project()
    scene.mended()
